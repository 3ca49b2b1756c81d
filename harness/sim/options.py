"""The command line: the flags of `vllm serve` with its defaults, and three of the simulator's own.

Defaults are those of vLLM 0.25.1 for an API server. Two depend on the GPU. With at least 70 GiB of
memory, except on A100, a step has up to 1,024 sequences and 8,192 tokens (16,384 with at least 160
GiB); otherwise 256 sequences and 2,048 tokens.
"""

import argparse
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from harness.sim.fault import Fault, parse_fault
from harness.sim.gpus import GIB, GPUS, Gpu

NOT_OF_VLLM = ("--cpu-slowdown", "--fault", "--gpu")
# vLLM's flags that a sweep may set, but that change nothing here. Unknown flags are refused.
NO_EFFECT = (
    "--attention-backend",
    "--compilation-config",
    "--data-parallel-size",
    "--disable-custom-all-reduce",
    "--disable-log-requests",
    "--disable-log-stats",
    "--disable-uvicorn-access-log",
    "--distributed-executor-backend",
    "--enable-log-requests",
    "--no-enable-log-requests",
    "--generation-config",
    "--hf-overrides",
    "--load-format",
    "--profiler-config",
    "--quantization",
    "--revision",
    "--tokenizer",
    "--trust-remote-code",
    "--uvicorn-log-level",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    model: Path
    served_model_name: str
    host: str
    port: int
    gpu: Gpu
    tensor_parallel_size: int
    api_server_count: int
    cpu_slowdown: float
    max_num_seqs: int
    max_num_batched_tokens: int | None  # None: vLLM's default, which depends on the model
    max_model_len: int | None  # None: the model's own
    gpu_memory_utilization: float
    num_gpu_blocks_override: int | None
    dtype: str
    kv_cache_dtype: str
    block_size: int
    enable_prefix_caching: bool
    enable_chunked_prefill: bool
    async_scheduling: bool
    enforce_eager: bool
    stream_interval: int
    seed: int
    fault: Fault
    no_effect: tuple[str, ...]
    non_default: dict[str, Any]


def default_max_num_seqs(gpu: Gpu) -> int:
    return 1024 if _is_large(gpu) else 256


def default_max_num_batched_tokens(gpu: Gpu) -> int:
    if gpu.memory_bytes >= 160 * GIB:
        return 16384
    return 8192 if _is_large(gpu) else 2048


def _is_large(gpu: Gpu) -> bool:
    return gpu.memory_bytes >= 70 * GIB and gpu.name != "a100"


def parse_options(argv: Sequence[str]) -> Options:
    """The options. Like vLLM, exits with code 2 and argparse's message on a wrong argument."""
    parser = _parser()
    values = vars(parser.parse_args(argv))
    ignored = {flag: _name(flag) for flag in NO_EFFECT}
    no_effect = tuple(flag for flag, name in ignored.items() if values[name] is not None)
    non_default = {k: v for k, v in values.items() if v != parser.get_default(k)}
    non_default["model"] = str(values["model"])
    values = {k: v for k, v in values.items() if k not in ignored.values()}
    gpu = GPUS[values["gpu"]]
    values |= {
        "gpu": gpu,
        "served_model_name": (values["served_model_name"] or [str(values["model"])])[0],
        "max_num_seqs": values["max_num_seqs"] or default_max_num_seqs(gpu),
    }
    return Options(**values, no_effect=no_effect, non_default=non_default)


def refusal(flags: Sequence[str]) -> str | None:
    """Why the simulator would refuse these flags, in argparse's words; None if it takes them."""
    try:
        _parser(_Raising).parse_args(["MODEL_DIR", *flags])
    except ValueError as error:
        return str(error)
    return None


def flags_with_effect() -> frozenset[str]:
    """Every flag that affects the simulator."""
    told = {flag for action in _parser()._actions for flag in action.option_strings}
    return frozenset(told - set(NO_EFFECT))


def _name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


# argparse names these functions where it refuses a value
def count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def share(text: str) -> float:
    if not 0 < (number := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {number}")
    return number


def factor(text: str) -> float:
    if not 0 < (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {number}")
    return number


class _Raising(ArgumentParser):
    """A parser that raises ValueError where others print and exit."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named | {"add_help": False})

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


@cache
def _parser(kind: type[ArgumentParser] = ArgumentParser) -> ArgumentParser:
    parser = kind(
        prog="python -m harness.sim",
        description="Stand-in for `vllm serve`: its scheduling and endpoints, roofline step times.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL_DIR", help="folder with config.json")
    add("--served-model-name", nargs="+")
    add("--host", default="0.0.0.0")
    add("--port", type=int, default=8000)
    add("--gpu", choices=sorted(GPUS), default="h200", help="GPU to simulate")
    add("--fault", type=parse_fault, default=Fault(), help="misbehave: see harness/sim/fault.py")
    add(
        "--cpu-slowdown",
        type=factor,
        default=1.0,
        help="how much slower the host's CPU is than the quiet host that was measured",
    )
    add("--tensor-parallel-size", "-tp", type=count, default=1)
    add("--api-server-count", type=count, default=1)
    add("--max-num-seqs", type=count)
    add("--max-num-batched-tokens", type=count)
    add("--max-model-len", type=count)
    add("--gpu-memory-utilization", type=share, default=0.92)
    add("--num-gpu-blocks-override", type=count)
    add(
        "--dtype",
        default="auto",
        choices=["auto", "bfloat16", "float16", "half", "float32", "float"],
    )
    add(
        "--kv-cache-dtype",
        default="auto",
        choices=["auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"],
    )
    add("--block-size", type=count, default=16)
    for flag, default in (
        ("--enable-prefix-caching", True),
        ("--enable-chunked-prefill", True),
        ("--async-scheduling", True),
        ("--enforce-eager", False),
    ):
        add(flag, action=argparse.BooleanOptionalAction, default=default)
    add("--stream-interval", type=count, default=1)
    add("--seed", type=int, default=0)
    for flag in NO_EFFECT:
        add(flag, nargs="?", const=True, help="has no effect on the simulator")
    return parser
