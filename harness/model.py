"""The model that is served: real weights by path or hub id, or a shape with dummy weights.

A shape holds the config numbers of a real model. Materialised, it is a folder with config.json and
a synthetic tokenizer that can be served with `--load-format dummy`: the speed is that of the real
model, the text is noise.

The synthetic tokenizer has one word for each id, "t0", "t1", … and no special tokens, so every
generated token shows as text, and text encodes back to exactly the ids that it was decoded from. It
has a folder and a model type of its own, because beside a config.json of type qwen2, transformers 5
loads Qwen2's byte-level BPE, whatever the tokenizer's files say.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from loadgen.config import STRICT

TOKENIZER = "tokenizer"  # folder inside a materialised shape, for `--tokenizer`
SAFE_VOCAB_SIZE = 1000  # every tokenizer in use has more


@dataclass(kw_only=True, config=STRICT)
class Shape:
    """A decoder's config numbers, by the names of Hugging Face's config.json."""

    architecture: str = "Qwen2ForCausalLM"
    model_type: str = "qwen2"
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    max_position_embeddings: int = Field(gt=0)
    tie_word_embeddings: bool = False
    rope_theta: float = Field(10000.0, gt=0)
    rms_norm_eps: float = Field(1e-6, gt=0)
    dtype: str = "bfloat16"

    @model_validator(mode="after")
    def _heads_share_kv_heads_evenly(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}"
            )
        return self


@dataclass(kw_only=True, config=STRICT)
class Model:
    """What to serve. Exactly one of `path` and `shape`."""

    name: str = Field(pattern=r"^[\w.-]+$", description="name shown in tables")
    path: str | None = Field(None, description="folder with weights, or a hub id")
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    shape: Shape | None = Field(
        None, description="config numbers of a model to serve with dummy weights"
    )

    @model_validator(mode="after")
    def _exactly_one_of_path_and_shape(self) -> Self:
        if (self.path is None) == (self.shape is None):
            given = "neither" if self.path is None else "both"
            raise ValueError(f"model {self.name}: give exactly one of path and shape, got {given}")
        if self.revision is not None and self.path is None:
            raise ValueError(f"model {self.name}: a shape has no revision")
        return self

    def vocab_size(self) -> int:
        """The number of token ids, from 0, that prompts may use.

        Without a config.json it is a number that is safe for every tokenizer in use.
        """
        if self.shape is not None:
            return self.shape.vocab_size
        try:
            return int((config_of(self) or {})["vocab_size"])
        except (KeyError, TypeError, ValueError):
            return SAFE_VOCAB_SIZE


def materialise(model: Model, root: Path) -> str:
    """What the server is given: `path` unchanged, or a folder below `root` made from the shape.

    The folder's name contains a hash of its contents, and it appears complete, so any number of
    processes may ask for it at once.
    """
    if model.shape is None:
        assert model.path is not None
        return model.path
    files = _files(model.shape)
    digest = hashlib.sha256("\0".join(files.values()).encode()).hexdigest()[:12]
    folder = root.resolve() / f"{model.name}-{digest}"
    if folder.is_dir():
        return str(folder)
    root.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=root))
    try:
        for name, text in files.items():
            (draft / name).parent.mkdir(exist_ok=True)
            (draft / name).write_text(text)
        draft.chmod(0o755)
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster with the same content
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return str(folder)


def config_of(model: Model) -> dict[str, Any] | None:
    """The text decoder's part of a model's config.json; None if it is not on this machine.

    Raises OSError or ValueError if it cannot be read.
    """
    assert model.path is not None
    files = [Path(model.path) / "config.json", *_cached(model.path, model.revision or "main")]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        told = (config.get("text_config") or config) if isinstance(config, dict) else None
        if not isinstance(told, dict):  # multimodal models nest it
            raise ValueError("it holds no names with values")
    except ValueError as error:
        raise ValueError(f"{file} is no model's configuration: {error}") from None
    return told


def _cached(hub_id: str, revision: str) -> list[Path]:
    """Where Hugging Face's cache keeps a hub id's config.json: by commit, which refs point to."""
    home = os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE", Path(home) / "hub"))
    folder = cache / f"models--{hub_id.replace('/', '--')}"
    ref = folder / "refs" / revision
    commit = ref.read_text().strip() if ref.is_file() else revision
    return [folder / "snapshots" / commit / "config.json"]


def _files(shape: Shape) -> dict[str, str]:
    config = {
        "architectures": [shape.architecture],
        "model_type": shape.model_type,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.rms_norm_eps,
        "torch_dtype": shape.dtype,
        "bos_token_id": None,  # Llama's config class would default to 1 and 2,
        "eos_token_id": None,  # and random text would end by chance
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.max_position_embeddings,
        "clean_up_tokenization_spaces": False,
        "chat_template": "{% for message in messages %}{{ message['content'] }} {% endfor %}",
    }
    return {
        "config.json": json.dumps(config, indent=2),
        "generation_config.json": json.dumps({"bos_token_id": None, "eos_token_id": None}),
        f"{TOKENIZER}/tokenizer.json": json.dumps(
            _tokenizer(shape.vocab_size), separators=(",", ":")
        ),
        # The version keeps transformers from warning of an old tokenizer's regular expression.
        f"{TOKENIZER}/config.json": '{"model_type": "llama", "transformers_version": "5.0.0"}',
        f"{TOKENIZER}/tokenizer_config.json": json.dumps(tokenizer_config, indent=2),
    }


def _tokenizer(vocab_size: int) -> dict[str, Any]:
    """One word for each id, split at white space; without a decoder, a space joins the words."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {f"t{token}": token for token in range(vocab_size)},
            "unk_token": "t0",  # an ordinary word: a special token would be cut from the text
        },
    }
