"""Memory: how fast bytes move inside a card, and between a card and the host.

HBM: arrays much larger than the L2, with bytes counted like in STREAM (McCalpin 1995): read n,
write n, copy 2n, triad a = b + s·c 3n. L2: the same 16 MB, read again and again. Host: the card's
copy engine moves pinned memory over PCIe; pageable memory is first copied by the CPU.
"""

from collections.abc import Callable
from statistics import median

import torch

from .bench import Bench, relative_error
from .options import Options
from .record import Measurement, emit, reported, timing

ARRAY_BYTES = 2**31
L2_BYTES = 2**24
L2_ROUNDS = 200
HOST_BYTES = 2**29
BLOCK = 4096
PROGRAMS_PER_MULTIPROCESSOR = 4
SCALE = 3.0
FLOPS_PER_BYTE = {"memory.read": 1 / 4, "memory.triad": 2 / 12}  # a sum; a product and a sum


def run(options: Options) -> None:
    bench = Bench(options)
    num_values = bench.size(ARRAY_BYTES, 2**16) // 4
    probes: dict[str, Callable[[Bench, str, int], Measurement]] = {
        "memory.read": _read,
        "memory.write": _write,
        "memory.copy": _copy,
        "memory.triad": _triad,
        "memory.l2_read": _l2_read,
    }
    for name, probe in probes.items():
        with reported(name, bench.gpus, "B/s"):
            emit(probe(bench, name, num_values))
    for to_card in (True, False):
        for pinned in (True, False):
            name = f"memory.{'h2d' if to_card else 'd2h'}.{'pinned' if pinned else 'pageable'}"
            with reported(name, bench.gpus, "B/s"):
                emit(_host(bench, name, to_card=to_card, pinned=pinned))


def _told(
    bench: Bench, name: str, times_s: list[float], moved_bytes: float, error: float, how: str
) -> Measurement:
    time_s = median(times_s)
    return Measurement(
        name=name,
        gpus=bench.gpus,
        unit="B/s",
        value=moved_bytes / time_s,
        **timing(times_s),
        flops=FLOPS_PER_BYTE.get(name, 0.0) * moved_bytes or None,
        moved_bytes=moved_bytes,
        error=error,
        error_limit=1e-6 if "read" not in name else 1e-4,  # a sum of many fp32 values
        how=how,
        detail={"array_bytes": moved_bytes},
    )


def _read_times_s(bench: Bench, values: torch.Tensor, rounds: int) -> tuple[list[float], float]:
    """Times for reading all values `rounds` times, and the error of their sum."""
    from .triton_kernels import read_rows

    programs = 2
    if bench.is_cuda:
        card = torch.cuda.get_device_properties(bench.device)
        programs = PROGRAMS_PER_MULTIPROCESSOR * card.multi_processor_count
    sums = torch.empty(programs, device=bench.device)

    def call() -> None:
        block = bench.size(BLOCK, 256)
        read_rows[(programs,)](values, sums, values.numel(), rounds, BLOCK=block, num_warps=8)

    sums.fill_(float("nan"))
    call()
    reference = values.sum(dtype=torch.float64) * rounds
    error = relative_error(sums.double().sum(), reference)
    return bench.times_s(call, flush=False), error


def _read(bench: Bench, name: str, num_values: int) -> Measurement:
    values = torch.rand(num_values, generator=bench.random, device=bench.device)
    times_s, error = _read_times_s(bench, values, 1)
    return _told(bench, name, times_s, values.nbytes, error, "Triton, a sum")


def _l2_read(bench: Bench, name: str, _: int) -> Measurement:
    num_values, rounds = bench.size(L2_BYTES, 2**12) // 4, bench.size(L2_ROUNDS, 3)
    values = torch.rand(num_values, generator=bench.random, device=bench.device)
    times_s, error = _read_times_s(bench, values, rounds)
    return _told(bench, name, times_s, rounds * values.nbytes, error, "Triton, a sum")


def _write(bench: Bench, name: str, num_values: int) -> Measurement:
    values = torch.full((num_values,), float("nan"), device=bench.device)
    times_s = bench.times_s(lambda: values.fill_(SCALE), flush=False)
    error = float((values != SCALE).sum() / num_values)
    return _told(bench, name, times_s, values.nbytes, error, "PyTorch, fill")


def _copy(bench: Bench, name: str, num_values: int) -> Measurement:
    source = torch.rand(num_values, generator=bench.random, device=bench.device)
    target = torch.full_like(source, float("nan"))
    times_s = bench.times_s(lambda: target.copy_(source), flush=False)
    error = float((target != source).sum() / num_values)
    return _told(bench, name, times_s, 2 * source.nbytes, error, "PyTorch, copy")


def _triad(bench: Bench, name: str, num_values: int) -> Measurement:
    b, c = (torch.rand(num_values, generator=bench.random, device=bench.device) for _ in range(2))
    a = torch.full_like(b, float("nan"))
    times_s = bench.times_s(lambda: torch.add(b, c, alpha=SCALE, out=a), flush=False)
    some = slice(0, None, max(1, num_values // 2**20))
    error = relative_error(a[some], b[some].double() + SCALE * c[some].double())
    return _told(bench, name, times_s, 3 * b.nbytes, error, "PyTorch, add")


def _host(bench: Bench, name: str, *, to_card: bool, pinned: bool) -> Measurement:
    num_values = bench.size(HOST_BYTES, 2**14) // 4
    host = torch.arange(num_values, dtype=torch.float32)
    if pinned and bench.is_cuda:
        host = host.pin_memory()
    card = host.to(bench.device).clone()
    source, target = (host, card) if to_card else (card, host)
    source.add_(1.0)
    times_s = bench.times_s(lambda: target.copy_(source, non_blocking=pinned), flush=False)
    error = float((card.cpu() != host).sum() / num_values)
    return _told(bench, name, times_s, host.nbytes, error, "PyTorch, copy")
