"""Collectives over NCCL: one process per card, as in a tensor-parallel server.

    algbw = size / time        busbw = algbw · factor

The factor makes busbw comparable with the speed of a link for any number of ranks n (see
nccl-tests' doc/PERFORMANCE.md): all-reduce 2(n − 1)/n; all-gather, reduce-scatter and all-to-all
(n − 1)/n; broadcast 1. The size is also defined as in nccl-tests: the larger of what goes into and
comes out of one rank. The time is that of the slowest rank. Collectives are launched one by one
through PyTorch, so the latency at small sizes includes its overhead, which CUDA graphs save a
server.

Values are small whole numbers in fp32, so that all sums are exact and any difference is an error.
No NCCL variable is set here, so what the environment says about NVLink multicast applies.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from .bench import Bench
from .options import Options
from .record import Measurement, emit, reported, tell, timing

SIZES = tuple(2**power for power in range(10, 31, 2))  # 1 kB … 1 GB
REHEARSED_SIZES = (2**10, 2**14)
WARMUP_CALLS = 3
REPEATS = 5
RANK_TIMEOUT = timedelta(seconds=60)
TOKENS, WIDTH = (1, 32, 256), 8192  # for all-reduce plus norm: batches of decode steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """A collective; `make(ranks, num_values)` gives (call, result, expected result)."""

    name: str
    factor: Callable[[int], float]
    make: Callable[["Ranks", int], tuple[Callable[[], object], torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process's rank among all."""

    bench: Bench
    rank: int
    world: int

    def of(self, rank: int, num_values: int) -> torch.Tensor:
        """The input of a rank: small whole numbers that differ by rank and position."""
        place = torch.arange(num_values, device=self.bench.device, dtype=torch.int32)
        return ((place + 3 * rank) % 13).float()

    def sum_of_all(self, num_values: int) -> torch.Tensor:
        total = self.of(0, num_values)
        for rank in range(1, self.world):
            total += self.of(rank, num_values)
        return total

    def part(self, values: torch.Tensor, rank: int) -> torch.Tensor:
        length = len(values) // self.world
        return values[rank * length : (rank + 1) * length]


def run(options: Options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{Path(folder) / 'meeting'}"
        mp.spawn(_rank, args=(options, meeting), nprocs=len(options.gpus), join=True)


def _rank(rank: int, options: Options, meeting: str) -> None:
    bench = Bench(options, place=rank)
    backend = "nccl" if bench.is_cuda else "gloo"
    world = len(options.gpus)
    dist.init_process_group(
        backend, init_method=meeting, rank=rank, world_size=world, timeout=RANK_TIMEOUT
    )
    ranks = Ranks(bench=bench, rank=rank, world=world)
    try:
        if rank == 0:
            tell(backend=backend, nccl=_nccl_version() if bench.is_cuda else None)
        for collective in COLLECTIVES:
            for size in SIZES if bench.is_cuda else REHEARSED_SIZES:
                name = f"nccl.{collective.name}.{size}"
                with reported(name, options.gpus, "B/s"):
                    told = _measured(ranks, collective, size, name)
                    if rank == 0:
                        emit(told)
        for tokens in TOKENS if bench.is_cuda else (1, 4):
            name = f"kernels.all_reduce_rms_norm.{tokens}"
            with reported(name, options.gpus, "s"):
                told = _all_reduce_norm(ranks, tokens, name)
                if rank == 0:
                    emit(told)
    finally:
        dist.destroy_process_group()


def _nccl_version() -> str:
    return ".".join(map(str, torch.cuda.nccl.version()))


def _measured(ranks: Ranks, collective: Collective, size: int, name: str) -> Measurement:
    num_values = size // 4 // ranks.world * ranks.world
    call, result, expected = collective.make(ranks, num_values)
    call()
    ranks.bench.sync()
    wrong = _largest(ranks, float((result != expected).sum()) / result.numel())
    times_s = _times_s(ranks, call, 20 if size <= 2**24 else 5)
    time_s, moved = median(times_s), num_values * 4
    factor = collective.factor(ranks.world)
    return Measurement(
        name=name,
        gpus=ranks.bench.options.gpus,
        unit="B/s",
        value=moved / time_s * factor,
        **timing(times_s),
        error=wrong,
        error_limit=0.0,
        how="PyTorch, NCCL" if ranks.bench.is_cuda else "PyTorch, gloo",
        detail={"bytes": moved, "algbw_bytes_per_s": moved / time_s, "busbw_factor": factor},
    )


def _times_s(ranks: Ranks, call: Callable[[], object], calls: int) -> list[float]:
    """The slowest rank's time per call, averaged over `calls`, for each repeat."""
    for _ in range(WARMUP_CALLS):
        call()
    times_s = []
    for _ in range(REPEATS):
        ranks.bench.sync()
        _largest(ranks, 0.0)  # a barrier
        began_at_s = perf_counter()
        for _ in range(calls):
            call()
        ranks.bench.sync()
        times_s.append(_largest(ranks, (perf_counter() - began_at_s) / calls))
    return times_s


def _largest(ranks: Ranks, value: float) -> float:
    """The largest of all ranks' values."""
    told = torch.tensor([value], device=ranks.bench.device, dtype=torch.float64)
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return float(told)


def _all_reduce(
    ranks: Ranks, num_values: int
) -> tuple[Callable[[], object], torch.Tensor, torch.Tensor]:
    """In place: only the first call is checked; later ones add up sums, at the same speed."""
    values = ranks.of(ranks.rank, num_values)
    return lambda: dist.all_reduce(values), values, ranks.sum_of_all(num_values)


def _all_gather(
    ranks: Ranks, num_values: int
) -> tuple[Callable[[], object], torch.Tensor, torch.Tensor]:
    each = num_values // ranks.world
    mine, result = ranks.of(ranks.rank, each), torch.zeros(num_values, device=ranks.bench.device)
    expected = torch.cat([ranks.of(rank, each) for rank in range(ranks.world)])
    return lambda: dist.all_gather_into_tensor(result, mine), result, expected


def _reduce_scatter(
    ranks: Ranks, num_values: int
) -> tuple[Callable[[], object], torch.Tensor, torch.Tensor]:
    mine = ranks.of(ranks.rank, num_values)
    result = torch.zeros(num_values // ranks.world, device=ranks.bench.device)
    expected = ranks.part(ranks.sum_of_all(num_values), ranks.rank).clone()
    return lambda: dist.reduce_scatter_tensor(result, mine), result, expected


def _all_to_all(
    ranks: Ranks, num_values: int
) -> tuple[Callable[[], object], torch.Tensor, torch.Tensor]:
    mine, result = (
        ranks.of(ranks.rank, num_values),
        torch.zeros(num_values, device=ranks.bench.device),
    )
    parts = [ranks.part(ranks.of(rank, num_values), ranks.rank) for rank in range(ranks.world)]
    return lambda: dist.all_to_all_single(result, mine), result, torch.cat(parts)


def _broadcast(
    ranks: Ranks, num_values: int
) -> tuple[Callable[[], object], torch.Tensor, torch.Tensor]:
    values = ranks.of(ranks.rank, num_values)
    return lambda: dist.broadcast(values, 0), values, ranks.of(0, num_values)


COLLECTIVES = (
    Collective(name="all_reduce", factor=lambda n: 2 * (n - 1) / n, make=_all_reduce),
    Collective(name="all_gather", factor=lambda n: (n - 1) / n, make=_all_gather),
    Collective(name="reduce_scatter", factor=lambda n: (n - 1) / n, make=_reduce_scatter),
    Collective(name="all_to_all", factor=lambda n: (n - 1) / n, make=_all_to_all),
    Collective(name="broadcast", factor=lambda _: 1.0, make=_broadcast),
)


def _all_reduce_norm(ranks: Ranks, tokens: int, name: str) -> Measurement:
    """What follows each row-parallel layer: sum over ranks, add the residual, RMS norm.

    Addition and norm are one Triton kernel; the plain form uses PyTorch's operations.
    """
    from .norms import EPSILON, plain_rms_norm, power_of_two
    from .triton_kernels import add_rms_norm

    bench, width = ranks.bench, WIDTH if ranks.bench.is_cuda else 48
    dtype = torch.bfloat16 if bench.is_cuda else torch.float32
    x = ranks.of(ranks.rank, tokens * width).view(tokens, width).to(dtype)
    residual = torch.ones_like(x)
    weight, result = torch.ones(width, device=bench.device, dtype=dtype), torch.empty_like(x)

    def call() -> None:
        dist.all_reduce(x)
        add_rms_norm[(tokens,)](
            x, residual, weight, result, width, EPSILON, BLOCK=power_of_two(width), num_warps=8
        )

    def plain() -> None:
        dist.all_reduce(x)
        plain_rms_norm(residual.add_(x), weight)

    call()
    summed = ranks.sum_of_all(tokens * width).view(tokens, width)
    reference = plain_rms_norm(summed.double() + 1, weight.double())
    told, true = result.double(), reference
    error = float((told - true).norm() / true.norm())
    x.zero_()  # repeated sums would overflow
    times_s, plain_s = (_times_s(ranks, form, 20) for form in (call, plain))
    return Measurement(
        name=name,
        gpus=bench.options.gpus,
        unit="s",
        value=median(times_s),
        **timing(times_s),
        error=_largest(ranks, error),
        error_limit=1e-2,
        how="NCCL, then Triton",
        speedup_plain=median(plain_s) / median(times_s),
        detail={"tokens": tokens, "width": width, "dtype": "bf16", "bytes": x.nbytes},
    )
