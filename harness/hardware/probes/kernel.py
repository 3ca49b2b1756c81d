"""A kernel, compared with its reference, its plain form in PyTorch, and the CPU."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import torch

from .bench import Bench, Call, relative_error
from .record import Measurement, timing

Checked = Callable[[], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The work in FLOPs and bytes, and the calls that do it."""

    name: str
    unit: str  # FLOP/s if compute-bound, else B/s
    how: str
    flops: float  # of one call
    moved_bytes: float  # each input read once, each result written once
    call: Call
    plain: Call | None  # the same in PyTorch's own operations, unfused
    checked: Checked  # after a call: (part of the result, the same part in float64)
    error_limit: float
    cpu: Call | None = None  # the plain form on the CPU, for `cpu_share` of the work
    cpu_share: float = 1.0
    detail: dict[str, Any] = field(default_factory=dict)


def measured(bench: Bench, kernel: Kernel) -> Measurement:
    """Check the kernel, then time it, its plain form, and the CPU."""
    kernel.call()
    error = relative_error(*kernel.checked())
    times_s = bench.times_s(kernel.call)
    time_s = median(times_s)
    plain_s = None if kernel.plain is None else median(bench.times_s(kernel.plain))
    work = kernel.flops if kernel.unit == "FLOP/s" else kernel.moved_bytes
    return Measurement(
        name=kernel.name,
        gpus=bench.gpus,
        unit=kernel.unit,
        value=work / time_s,
        **timing(times_s),
        flops=kernel.flops,
        moved_bytes=kernel.moved_bytes,
        error=error,
        error_limit=kernel.error_limit,
        how=kernel.how,
        speedup_plain=None if plain_s is None else plain_s / time_s,
        speedup_cpu=_speedup_cpu(bench, kernel, time_s),
        detail=kernel.detail,
    )


def _speedup_cpu(bench: Bench, kernel: Kernel, time_s: float) -> float | None:
    """The speedup over the CPU's second call: the first allocates, and more would take long."""
    if kernel.cpu is None or not bench.options.compare_cpu:
        return None
    kernel.cpu()
    began_at_s = perf_counter()
    kernel.cpu()
    return (perf_counter() - began_at_s) / kernel.cpu_share / time_s
