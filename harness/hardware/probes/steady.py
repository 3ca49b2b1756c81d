"""The steady state: one large product, repeated until heat has built up.

The first second shows a cold card; what a server will get is the rate of the second half. While
this runs, the harness samples clocks, power, temperature and throttle reasons. Two batches are
always in flight, so the card never waits for Python. The data is random, because a card draws less
power on zeros.
"""

from time import perf_counter

import torch

from .bench import Bench
from .options import Options
from .record import Measurement, emit, reported, tell

SIZE = 8192
BATCH_S = 0.1


def run(options: Options) -> None:
    bench = Bench(options)
    with reported("steady.gemm", bench.gpus, "FLOP/s"):
        at_s, rates = _rates(bench, options.seconds)
        tell(series={"gpu": bench.gpus[0], "at_s": at_s, "flops_per_s": rates})
        emit(_told(bench, at_s, rates))


def _rates(bench: Bench, seconds: float) -> tuple[list[float], list[float]]:
    """When each batch ended, by CLOCK_MONOTONIC, and its FLOP/s."""
    size = bench.size(SIZE, 64)
    a, b = (bench.normal(size, size, dtype=torch.bfloat16) for _ in range(2))
    result = torch.empty_like(a)

    def batch(calls: int) -> None:
        for _ in range(calls):
            torch.mm(a, b.t(), out=result)

    batch(3)
    bench.sync()
    began_at_s = perf_counter()
    batch(3)
    bench.sync()
    calls = max(1, int(BATCH_S / ((perf_counter() - began_at_s) / 3)))
    flops = 2.0 * size**3 * calls
    at_s: list[float] = []
    rates: list[float] = []
    ends = [_Mark(bench)]
    ends[0].wait()
    began_at_s = perf_counter()
    batch(calls)
    ends.append(_Mark(bench))
    while len(at_s) < 2 or perf_counter() - began_at_s < seconds:
        batch(calls)
        ends.append(_Mark(bench))
        ends[1].wait()
        at_s.append(perf_counter())
        rates.append(flops / ends[0].until_s(ends[1]))
        del ends[0]
    bench.sync()
    return at_s, rates


class _Mark:
    """A mark in the stream of work."""

    def __init__(self, bench: Bench) -> None:
        self._event = torch.cuda.Event(enable_timing=True) if bench.is_cuda else None
        self._at_s = perf_counter()
        if self._event is not None:
            self._event.record()

    def wait(self) -> None:
        if self._event is not None:
            self._event.synchronize()

    def until_s(self, later: "_Mark") -> float:
        if self._event is None or later._event is None:
            return later._at_s - self._at_s
        return float(self._event.elapsed_time(later._event)) * 1e-3


def _told(bench: Bench, at_s: list[float], rates: list[float]) -> Measurement:
    """The sustained rate: work / time in the second half, so a harmonic mean over its batches."""
    span_s = at_s[-1] - at_s[0]
    late = [rate for t, rate in zip(at_s, rates, strict=True) if t >= at_s[0] + span_s / 2]
    early = [rate for t, rate in zip(at_s, rates, strict=True) if t <= at_s[0] + 1.0]
    sustained, first = (len(part) / sum(1 / rate for rate in part) for part in (late, early))
    return Measurement(
        name="steady.gemm",
        gpus=bench.gpus,
        unit="FLOP/s",
        value=sustained,
        repeats=len(late),
        how="cuBLAS through PyTorch" if bench.is_cuda else "PyTorch on the CPU",
        detail={
            "size": bench.size(SIZE, 64),
            "seconds": span_s,
            "first_second": first,
            "sustained_over_first": sustained / first,
        },
    )
