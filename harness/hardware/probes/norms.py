"""Norms: a few FLOPs per value, so memory-bound. Each value is read once and written once.

    layer norm   (x − mean) / sqrt(variance + ε) · weight + bias        about 8 FLOPs per value
    RMS norm     x / sqrt(mean(x²) + ε) · weight                        4

The plain forms are these formulas in PyTorch's operations, each of which passes through memory.
"""

import torch
from torch.nn import functional

from .bench import Bench
from .kernel import Kernel

TOKENS, WIDTH = 32768, 4096
EPSILON = 1e-6
CPU_SHARE = 1 / 64
CHECKED_ROWS = 64


def layer_norm(bench: Bench, name: str) -> Kernel:
    x, weight, bias = _inputs(bench)
    rows = _some_rows(bench, x)
    result = x

    def call() -> None:
        nonlocal result
        result = functional.layer_norm(x, (x.shape[1],), weight, bias, EPSILON)

    def checked() -> tuple[torch.Tensor, torch.Tensor]:
        exact = [values.double() for values in (x[rows], weight, bias)]
        return result[rows], plain_layer_norm(*exact)

    share = len(x) // int(1 / CPU_SHARE) or 1
    on_cpu = [values.cpu().float() for values in (x[:share], weight, bias)]
    return Kernel(
        name=name,
        unit="B/s",
        how="PyTorch, F.layer_norm",
        flops=8.0 * x.numel(),
        moved_bytes=2.0 * x.nbytes,
        call=call,
        plain=lambda: plain_layer_norm(x, weight, bias),
        checked=checked,
        error_limit=1e-2,
        cpu=lambda: plain_layer_norm(*on_cpu),
        cpu_share=share / len(x),
        detail={"tokens": len(x), "width": x.shape[1], "dtype": "bf16"},
    )


def rms_norm(bench: Bench, name: str) -> Kernel:
    from .triton_kernels import rms_norm as kernel

    x, weight, _ = _inputs(bench)
    rows, result = _some_rows(bench, x), torch.full_like(x, float("nan"))
    tokens, width = x.shape

    def checked() -> tuple[torch.Tensor, torch.Tensor]:
        return result[rows], plain_rms_norm(x[rows].double(), weight.double())

    share = tokens // int(1 / CPU_SHARE) or 1
    on_cpu = (x[:share].cpu().float(), weight.cpu().float())
    return Kernel(
        name=name,
        unit="B/s",
        how="Triton",
        flops=4.0 * x.numel(),
        moved_bytes=2.0 * x.nbytes,
        call=lambda: kernel[(tokens,)](
            x, weight, result, width, EPSILON, BLOCK=power_of_two(width), num_warps=8
        ),
        plain=lambda: plain_rms_norm(x, weight),
        checked=checked,
        error_limit=1e-2,
        cpu=lambda: plain_rms_norm(*on_cpu),
        cpu_share=share / tokens,
        detail={"tokens": tokens, "width": width, "dtype": "bf16"},
    )


def plain_layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.pow(2).mean(-1, keepdim=True)
    return centred * torch.rsqrt(variance + EPSILON) * weight + bias


def plain_rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = x.float() if x.dtype != torch.float64 else x
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPSILON)).to(x.dtype) * weight


def power_of_two(number: int) -> int:
    """The smallest power of two that is not less: the block size of a Triton kernel."""
    return 1 << (number - 1).bit_length()


def _inputs(bench: Bench) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens, width = bench.size(TOKENS, 8), bench.size(WIDTH, 48)
    dtype = torch.bfloat16 if bench.is_cuda else torch.float32
    x = bench.normal(tokens, width, dtype=dtype)
    return x, bench.normal(width, dtype=dtype), bench.normal(width, dtype=dtype)


def _some_rows(bench: Bench, x: torch.Tensor) -> torch.Tensor:
    return torch.randint(len(x), (CHECKED_ROWS,), generator=bench.random, device=bench.device)
