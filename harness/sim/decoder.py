"""The sizes of a dense decoder, from the config.json of a llama- or qwen2-type model."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

BYTES_OF = {"bfloat16": 2, "float16": 2, "half": 2, "float32": 4, "float": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """Config values under Hugging Face's names; biases and norms are too small to count."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    dtype: str

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """The decoder in a config.json. Raises KeyError, TypeError or ValueError if it has none."""
        heads = int(config["num_attention_heads"])
        found = cls(
            hidden_size=int(config["hidden_size"]),
            intermediate_size=int(config["intermediate_size"]),
            num_hidden_layers=int(config["num_hidden_layers"]),
            num_attention_heads=heads,
            num_key_value_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or config["hidden_size"] // max(1, heads)),
            vocab_size=int(config["vocab_size"]),
            max_position_embeddings=int(config["max_position_embeddings"]),
            tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
            dtype=str(config.get("dtype") or config.get("torch_dtype") or "bfloat16"),
        )
        for name, size in asdict(found).items():
            if type(size) is int and size < 1:
                raise ValueError(f"{name} is {size}")
        return found

    @property
    def layer_parameters(self) -> int:
        """Of all layers: query, key, value and output projections, and the three MLP matrices."""
        heads = 2 * self.num_attention_heads + 2 * self.num_key_value_heads
        attention = heads * self.head_dim * self.hidden_size
        mlp = 3 * self.hidden_size * self.intermediate_size
        return self.num_hidden_layers * (attention + mlp)

    @property
    def head_parameters(self) -> int:
        return self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        embeddings = 1 if self.tie_word_embeddings else 2
        return self.layer_parameters + embeddings * self.head_parameters

    def kv_bytes_per_token(self, tensor_parallel_size: int, bytes_per_value: int) -> int:
        """Key and value of a token on one GPU; with fewer KV heads than GPUs, heads are copied."""
        heads = max(1, self.num_key_value_heads // tensor_parallel_size)
        return 2 * heads * self.head_dim * self.num_hidden_layers * bytes_per_value


def read_decoder(folder: Path) -> Decoder:
    """The decoder of a model folder. Raises OSError or ValueError."""
    if not folder.is_dir():
        raise OSError(
            f"{folder} is not a local folder and is not a valid model identifier listed on "
            "'https://huggingface.co/models'"
        )
    file = folder / "config.json"
    if not file.is_file():
        raise OSError(f"{folder} does not appear to have a file named config.json.")
    try:
        return Decoder.of(json.loads(file.read_text()))
    except KeyError as error:
        raise ValueError(
            f"{file} has no {error}: the simulator knows dense decoders only"
        ) from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} is not a dense decoder's configuration: {error}") from None
