"""Launches: what a kernel costs beyond its work.

A chain of kernels that do almost nothing, each waiting for the one before it. If they are launched
one by one from Python, the CPU sets the pace; replayed as a CUDA graph, the card does. A decode
step has hundreds of such kernels, which is why vLLM captures it.
"""

from statistics import median
from time import perf_counter

import torch

from .bench import Bench, Call
from .record import Measurement, emit, reported, timing

KERNELS = 500
REPEATS = 20
VALUES = 256


def run(bench: Bench) -> None:
    with reported("kernels.launch.eager", bench.gpus, "s"):
        values = torch.zeros(VALUES, device=bench.device)
        emit(_told(bench, "kernels.launch.eager", values, _chain(values), "PyTorch, eager"))
    if bench.is_cuda:
        with reported("kernels.launch.graph", bench.gpus, "s"):
            values = torch.zeros(VALUES, device=bench.device)
            replay = _captured(values)
            emit(_told(bench, "kernels.launch.graph", values, replay, "PyTorch, CUDA graph"))


def _chain(values: torch.Tensor) -> Call:
    def call() -> None:
        for _ in range(KERNELS):
            values.add_(1.0)

    return call


def _captured(values: torch.Tensor) -> Call:
    """The chain as a CUDA graph. Capture needs a warm-up on a side stream first."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        _chain(values)()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        _chain(values)()
    replay: Call = graph.replay
    return replay


def _told(bench: Bench, name: str, values: torch.Tensor, call: Call, how: str) -> Measurement:
    """Wall time of a chain, from idle card to idle card, divided by its number of kernels."""
    values.zero_()
    times_s = []
    for _ in range(REPEATS):
        bench.sync()
        began_at_s = perf_counter()
        call()
        bench.sync()
        times_s.append((perf_counter() - began_at_s) / KERNELS)
    true = float(REPEATS * KERNELS)
    return Measurement(
        name=name,
        gpus=bench.gpus,
        unit="s",
        value=median(times_s),
        **timing(times_s),
        error=float((values != true).sum()) / VALUES,
        error_limit=0.0,
        how=how,
        detail={"kernels": KERNELS},
    )
