"""Train a small language model on the Python source of this interpreter, for accuracy to mean
something.

    python harness/scripts/train_model.py --out models/small              # one GPU, under 5 minutes
    python harness/scripts/train_model.py --out models/tiny --size tiny --minutes 1.5   # two cores

Run it with the interpreter that has PyTorch and transformers: vLLM's. It needs this one file. What
it writes is what vLLM serves: Qwen2's architecture, its weights in bfloat16 as most are published,
a byte-level BPE tokenizer, and beside them

    heldout.json     windows of held-out text as token ids: the prompts of the accuracy check
    training.json    how it was trained, and the perplexity on those windows, beside a unigram's

The text is the standard library and then the installed packages. A hash of a file's content
decides whether it is held out, so no copy of a held-out file is trained on; a file that differs
from it in one line may be. Perplexity is therefore no claim about the model, and needs to be none:
what is compared is the same model with itself, served in two ways.
"""

import argparse
import hashlib
import json
import math
import os
import platform
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # loaded where they are needed: --help is there at once
    import torch
    from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

END = "<|endoftext|>"
TEXT_BYTES = 48_000_000  # of source, at most
HELD_OUT_FRAC = 0.05
HELD_OUT_WINDOWS = 128
HELD_OUT_TOKENS = 256  # a window's
MAX_FILE_BYTES = 400_000  # larger ones are tables
MIN_TRAIN_S = 10.0
WARMUP_FRAC = 0.05
LAST_RATE_FRAC = 0.05  # of the learning rate, when the budget is spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A model and how it is trained. head_dim is 64, the least that vLLM's attention takes."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    train_bytes: int
    context: int  # tokens in a training window
    batch: int  # windows in a step
    learning_rate: float


SIZES = {
    # 82 M parameters. All its widths are multiples of 128 on two GPUs: blocks of fp8 fit.
    "small": Size(
        vocab_size=8192,
        hidden_size=768,
        intermediate_size=2048,
        layers=12,
        heads=12,
        kv_heads=4,
        train_bytes=TEXT_BYTES,
        context=2048,
        batch=32,
        learning_rate=1e-3,
    ),
    # 1.6 M parameters
    "tiny": Size(
        vocab_size=4096,
        hidden_size=128,
        intermediate_size=512,
        layers=4,
        heads=2,
        kv_heads=2,
        train_bytes=6_000_000,
        context=256,
        batch=4,
        learning_rate=3e-3,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Files of source, apart: those to train on and those that never are."""

    trained: tuple[str, ...]
    held_out: tuple[str, ...]


def main() -> None:
    """Gather text, train a tokenizer and a model, write them."""
    started_at_s = perf_counter()
    asked = _arguments()
    size = SIZES[asked.size]
    text = split(source_files(), size.train_bytes)
    tokenizer = train_tokenizer(text, size.vocab_size)
    trained = tokens_of(tokenizer, text.trained)
    windows = held_out_windows(tokens_of(tokenizer, text.held_out), asked.seed)
    flat = [token for tokens in trained for token in tokens]
    print(
        f"{len(text.trained)} files, {len(flat) / 1e6:.1f} M tokens to train on; "
        f"{len(windows)} windows held out; {perf_counter() - started_at_s:.0f} s so far",
        flush=True,
    )
    budget_s = 60 * asked.minutes - (perf_counter() - started_at_s)
    if asked.steps is None and budget_s < MIN_TRAIN_S:
        raise SystemExit(f"the text took all of --minutes {asked.minutes:g}: ask for more")
    model = new_model(size, asked.seed, asked.device)
    spent = train(model, flat, windows, size, budget_s=budget_s, steps=asked.steps, seed=asked.seed)
    record = {
        "size": asked.size,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "seed": asked.seed,
        "device": _device_name(asked.device),
        "python": platform.python_version(),
        "train_tokens": len(flat),
        **spent,
        "held_out_perplexity": math.exp(held_out_loss(model, windows)),
        "held_out_unigram_perplexity": math.exp(unigram_loss(flat, windows, size.vocab_size)),
        "wall_s": perf_counter() - started_at_s,
    }
    write(asked.out, model, tokenizer, windows, record)
    print(json.dumps(record, indent=1))


def source_files() -> Iterator[Path]:
    """Python source: the standard library's, then that of the installed packages."""
    library, packages = (Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib"))
    inside = sorted(library.rglob("*.py"))
    yield from (path for path in inside if not {"site-packages", "dist-packages"} & {*path.parts})
    yield from sorted(packages.rglob("*.py"))


def split(paths: Iterable[Path], train_bytes: int) -> Text:
    """Held-out files of all the text, and `train_bytes` of the others; no content twice.

    The order is that of hashes: a part of it is a fair sample.
    """
    contents = dict(sorted(hashed(paths)))
    held_out = [text for digest, text in contents.items() if is_held_out(digest)]
    trained = []
    for digest, text in contents.items():
        if train_bytes > 0 and not is_held_out(digest):
            trained.append(text)
            train_bytes -= len(text)
    return Text(trained=tuple(trained), held_out=tuple(held_out))


def hashed(paths: Iterable[Path]) -> Iterator[tuple[bytes, str]]:
    """A digest and the text of each file that is one, the first TEXT_BYTES of them together."""
    left_bytes = TEXT_BYTES
    for path in paths:
        content = path.read_bytes() if path.stat().st_size <= MAX_FILE_BYTES else b""
        try:
            text = content.decode()
        except UnicodeDecodeError:  # a test of wrong encodings
            continue
        if text.strip():
            yield hashlib.sha256(content).digest(), text
            left_bytes -= len(content)
        if left_bytes <= 0:
            return


def is_held_out(digest: bytes) -> bool:
    """By the content's hash alone: the same on every machine, whatever else is there."""
    return int.from_bytes(digest[:4], "big") < HELD_OUT_FRAC * 2**32


def train_tokenizer(text: Text, vocab_size: int) -> "Qwen2Tokenizer":
    """Qwen2's own splitting of text into words, which transformers insists on beside a config.json
    of type qwen2, with a vocabulary learned here from a part of the text."""
    from tokenizers import pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.backend_tokenizer.train_from_iterator(text.trained[::4], trainer)
    return tokenizer


def tokens_of(tokenizer: "Qwen2Tokenizer", files: Sequence[str]) -> list[list[int]]:
    """Each file's tokens and an end; all cores at once."""
    end = tokenizer.convert_tokens_to_ids(END)
    encoded = tokenizer.backend_tokenizer.encode_batch(list(files), add_special_tokens=False)
    return [[*one.ids, end] for one in encoded]


def held_out_windows(files: Sequence[Sequence[int]], seed: int) -> list[list[int]]:
    """One window a file, anywhere in it: windows of different files are independent prompts."""
    import numpy as np

    random = np.random.default_rng(seed)
    long_enough = [tokens for tokens in files if len(tokens) >= HELD_OUT_TOKENS]
    chosen = random.permutation(len(long_enough))[:HELD_OUT_WINDOWS]
    windows = []
    for index in chosen:
        tokens = long_enough[index]
        first = int(random.integers(len(tokens) - HELD_OUT_TOKENS + 1))
        windows.append(list(tokens[first : first + HELD_OUT_TOKENS]))
    return windows


def new_model(size: Size, seed: int, device: str) -> "Qwen2ForCausalLM":
    """Random weights, in float32."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    config = Qwen2Config(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,  # END: the first token that the tokenizer's trainer gives out
        use_cache=False,
    )
    return Qwen2ForCausalLM(config).to(device)


def train(
    model: "Qwen2ForCausalLM",
    tokens: Sequence[int],
    windows: Sequence[Sequence[int]],
    size: Size,
    *,
    budget_s: float,
    steps: int | None,
    seed: int,
) -> dict[str, Any]:
    """AdamW, the rate rising and then falling as a cosine, until the time or the steps are spent.

    Returns how much was done, for the record.
    """
    import torch

    device = model.device
    text = torch.tensor(tokens, dtype=torch.int32, device=device)
    random = torch.Generator().manual_seed(seed)
    offsets = torch.arange(size.context, device=device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    model.train()
    begun_at_s, step, done_frac, shown_frac = perf_counter(), 0, 0.0, 0.0
    while done_frac < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = size.learning_rate * rate_frac(done_frac)
        firsts = torch.randint(len(text) - size.context, (size.batch, 1), generator=random)
        batch = text[firsts.to(device) + offsets].long()
        with _autocast(device):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        train_loss = loss.item()  # waits for the step, so that the clock below is right
        spent_s = perf_counter() - begun_at_s
        done_frac = step / steps if steps else spent_s / budget_s
        if done_frac >= shown_frac:
            shown_frac += 0.1
            print(
                f"step {step}, {spent_s:.0f} s: loss {train_loss:.3f}, "
                f"held out {held_out_loss(model, windows[:32]):.3f}",
                flush=True,
            )
    return {
        "steps": step,
        "tokens_seen": step * size.batch * size.context,
        "last_train_loss": train_loss,
        "train_s": perf_counter() - begun_at_s,
    }


def rate_frac(done_frac: float) -> float:
    """The learning rate at this part of the way, as a share of its highest."""
    if done_frac < WARMUP_FRAC:
        return (done_frac + 1e-3) / (WARMUP_FRAC + 1e-3)
    fall = (done_frac - WARMUP_FRAC) / (1.0 - WARMUP_FRAC)
    return LAST_RATE_FRAC + (1.0 - LAST_RATE_FRAC) * (1.0 + math.cos(math.pi * fall)) / 2


def held_out_loss(model: "Qwen2ForCausalLM", windows: Sequence[Sequence[int]]) -> float:
    """Mean loss of the held-out windows, in nats a token."""
    import torch

    model.eval()
    losses: list[float] = []
    with torch.no_grad(), _autocast(model.device):
        for first in range(0, len(windows), 32):
            batch = torch.tensor(windows[first : first + 32], device=model.device)
            losses += [model(input_ids=batch, labels=batch).loss.item()] * len(batch)
    model.train()
    return sum(losses) / len(losses)


def unigram_loss(tokens: Sequence[int], windows: Sequence[Sequence[int]], vocab_size: int) -> float:
    """What knowing only how often each token occurs would reach, add-one smoothed."""
    import numpy as np

    counts = np.bincount(tokens, minlength=vocab_size) + 1
    predicted = np.array(windows)[:, 1:]  # nothing predicts a window's first token
    return float(-np.log(counts / counts.sum())[predicted].mean())


def write(
    folder: Path,
    model: "Qwen2ForCausalLM",
    tokenizer: "Qwen2Tokenizer",
    windows: Sequence[Sequence[int]],
    record: dict[str, Any],
) -> None:
    """Everything that a server and the accuracy check read."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    model.config.use_cache = True
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "heldout.json").write_text(json.dumps({"prompts": windows}) + "\n")
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def _autocast(device: "torch.device") -> Any:
    """bfloat16 where it is fast and float32 where it is not."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} CPU cores"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small Qwen2 model that vLLM serves.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--minutes", type=float, default=4.0, help="time for everything [4]")
    parser.add_argument(
        "--steps", type=int, help="train exactly this many steps instead: reproducible"
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), help="default: cuda where there is a GPU"
    )
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.device is None:
        import torch

        asked.device = "cuda" if torch.cuda.is_available() else "cpu"
    return asked


if __name__ == "__main__":
    main()
