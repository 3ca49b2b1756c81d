"""Matrix products: what the tensor cores can do.

C = A·Bᵀ with A of (m, k) and B of (n, k), the layout of a linear layer's weights: 2·m·n·k FLOPs
over at least (m·k + n·k)·bytes in and m·n·bytes out. Large squares are bound by compute and, on
random data, by power. A decode step's few rows are bound by reading B.

bf16 and fp16 accumulate in fp32 (torch.mm). fp8 is e4m3 with one scale per tensor and fast
accumulation, with output in bf16 (torch._scaled_mm). int8 accumulates in int32 (torch._int_mm), and
its unit is op/s.

Results are checked against float64 on 64 rows and 64 columns drawn at random. The error limits
allow for rounding the result and the partial sums of a split k, with some margin. fp8 has a higher
one, because on Hopper its fast accumulation keeps some 14 bits (DeepSeek-V3 technical report,
section 3.3.2).

The best shape is searched for like in mamf-finder (Bekman, "Maximum Achievable Matmul FLOPS"): in a
fixed random order until the budget is used up; then the best five are timed again. These are
seconds of products in a row, so the search finds what the power limit leaves. A small square, with
the L2 flushed between its repeats, stays below that limit. `max` is therefore the best of the
search, the squares and the model's products, so that no product of its precision is above it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from statistics import median
from time import perf_counter

import torch

from .bench import Bench, relative_error
from .options import Options, Shape
from .record import Measurement, emit, highest, reported, timing

SQUARES = (1024, 2048, 4096, 8192, 16384)
BATCHES = (1, 32, 256, 2048)
SAMPLE = 64
SEARCH_S = {"bf16": 8.0, "fp8": 5.0}
SEARCHED = range(2048, 16385, 256)
FINALISTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """A type of values, and how it is multiplied."""

    name: str
    unit: str
    value_bytes: int
    out_bytes: int
    error_limit: float
    random: Callable[[Bench, int, int], torch.Tensor]
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    least_rows: int = 1

    def fits(self, m: int, n: int, k: int) -> bool:
        return m >= self.least_rows and n % 16 == 0 and k % 16 == 0


def _fp8(bench: Bench, rows: int, columns: int) -> torch.Tensor:
    return bench.normal(rows, columns, dtype=torch.bfloat16).to(torch.float8_e4m3fn)


def _int8(bench: Bench, rows: int, columns: int) -> torch.Tensor:
    return torch.randint(
        -128,
        128,
        (rows, columns),
        generator=bench.random,
        device=bench.device,
        dtype=torch.int8,
    )


@cache
def _one(device: torch.device) -> torch.Tensor:
    return torch.ones((), device=device, dtype=torch.float32)


def _scaled(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    one = _one(a.device)
    return torch._scaled_mm(
        a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=a.is_cuda
    )


PRECISIONS = (
    Precision(
        name="bf16",
        unit="FLOP/s",
        value_bytes=2,
        out_bytes=2,
        error_limit=1e-2,
        random=lambda bench, rows, columns: bench.normal(rows, columns, dtype=torch.bfloat16),
        product=lambda a, b: torch.mm(a, b.t()),
    ),
    Precision(
        name="fp16",
        unit="FLOP/s",
        value_bytes=2,
        out_bytes=2,
        error_limit=3e-3,
        random=lambda bench, rows, columns: bench.normal(rows, columns, dtype=torch.float16),
        product=lambda a, b: torch.mm(a, b.t()),
    ),
    Precision(
        name="fp8",
        unit="FLOP/s",
        value_bytes=1,
        out_bytes=2,
        error_limit=5e-2,
        random=_fp8,
        product=_scaled,
    ),
    Precision(
        name="int8",
        unit="op/s",
        value_bytes=1,
        out_bytes=4,
        error_limit=0.0,
        random=_int8,
        product=lambda a, b: torch._int_mm(a, b.t()),
        least_rows=32,
    ),
)
MODEL_PRECISION = PRECISIONS[0]  # bf16, as most models are served


def run(options: Options) -> None:
    bench = Bench(options)
    found: dict[str, list[Measurement]] = {precision.name: [] for precision in PRECISIONS}
    for precision in PRECISIONS:
        for size in SQUARES if bench.is_cuda else (64, 128):
            name = f"gemm.{precision.name}.{size}"
            with reported(name, bench.gpus, precision.unit):
                found[precision.name].append(measured(bench, precision, name, (size, size, size)))
                emit(found[precision.name][-1])
    if options.model is not None:
        for tp in options.tensor_parallel_sizes:
            found[MODEL_PRECISION.name] += _of_model(bench, options.model, tp)
    for precision in PRECISIONS:
        if precision.name in SEARCH_S:
            name = f"gemm.{precision.name}.max"
            with reported(name, bench.gpus, precision.unit):
                emit(highest(searched(bench, precision, name), found[precision.name]))


def _of_model(bench: Bench, model: Shape, tp: int) -> list[Measurement]:
    """The products of one decoder layer and the LM head on one of `tp` ranks."""
    products = []
    for name, (n, k) in matrices(model, tp).items():
        for batch in BATCHES if bench.is_cuda else (1, 16):
            told = f"gemm.model.{name}.tp{tp}.batch{batch}"
            with reported(told, bench.gpus, MODEL_PRECISION.unit):
                products.append(measured(bench, MODEL_PRECISION, told, (batch, n, k)))
                emit(products[-1])
    return products


def matrices(model: Shape, tp: int) -> dict[str, tuple[int, int]]:
    """(out, in) of each weight on one rank; with more ranks than KV heads, heads are copied."""
    heads = model.num_attention_heads // tp
    kv_heads = max(1, model.num_key_value_heads // tp)
    middle = model.intermediate_size // tp
    return {
        "qkv": ((heads + 2 * kv_heads) * model.head_dim, model.hidden_size),
        "output": (model.hidden_size, heads * model.head_dim),
        "up": (2 * middle, model.hidden_size),  # gate and up in one
        "down": (model.hidden_size, middle),
        "lm_head": (model.vocab_size // tp, model.hidden_size),
    }


def measured(
    bench: Bench, precision: Precision, name: str, size: tuple[int, int, int]
) -> Measurement:
    """Measure one shape, (m, n, k)."""
    m, n, k = size
    if not precision.fits(m, n, k):
        reason = f"{precision.name} takes {precision.least_rows} rows or more, in multiples of 16"
        return Measurement(name=name, gpus=bench.gpus, unit=precision.unit, reason=reason)
    a, b = precision.random(bench, m, k), precision.random(bench, n, k)
    error = check(bench, precision, a, b)
    return _told(
        bench, precision, name, size, bench.times_s(lambda: precision.product(a, b)), error
    )


def check(bench: Bench, precision: Precision, a: torch.Tensor, b: torch.Tensor) -> float:
    """The relative error on some rows and columns, against float64."""
    result = precision.product(a, b)
    rows = torch.randint(len(a), (SAMPLE,), generator=bench.random, device=bench.device)
    columns = torch.randint(len(b), (SAMPLE,), generator=bench.random, device=bench.device)
    reference = _exact(a, rows) @ _exact(b, columns).t()
    return relative_error(result[rows][:, columns], reference)


def _exact(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    if values.dtype == torch.float8_e4m3fn:  # not every device can index it
        return values.view(torch.uint8)[rows].view(values.dtype).float().double()
    return values[rows].double()


def _told(
    bench: Bench,
    precision: Precision,
    name: str,
    size: tuple[int, int, int],
    times_s: list[float],
    error: float,
    **detail: object,
) -> Measurement:
    m, n, k = size
    time_s, flops = median(times_s), 2.0 * m * n * k
    return Measurement(
        name=name,
        gpus=bench.gpus,
        unit=precision.unit,
        value=flops / time_s,
        **timing(times_s),
        flops=flops,
        moved_bytes=(m + n) * k * precision.value_bytes + m * n * precision.out_bytes,
        error=error,
        error_limit=precision.error_limit,
        how="cuBLAS through PyTorch" if bench.is_cuda else "PyTorch on the CPU",
        detail={"m": m, "n": n, "k": k, **detail},
    )


def searched(bench: Bench, precision: Precision, name: str) -> Measurement:
    """The fastest shape found within the budget."""
    sizes = SEARCHED if bench.is_cuda else range(32, 129, 32)
    budget_s = SEARCH_S[precision.name] if bench.is_cuda else 0.05
    pools = [precision.random(bench, max(sizes), max(sizes)).flatten() for _ in range(2)]

    def operands(size: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        m, n, k = size
        return pools[0][: m * k].view(m, k), pools[1][: n * k].view(n, k)

    def times_s(size: tuple[int, int, int], budget_s: float) -> list[float]:
        a, b = operands(size)
        return bench.times_s(lambda: precision.product(a, b), budget_s=budget_s)

    draw = Random(0)
    found: dict[tuple[int, int, int], float] = {}
    began_at_s = perf_counter()
    while not found or perf_counter() - began_at_s < budget_s:
        size = (draw.choice(sizes), draw.choice(sizes), draw.choice(sizes))
        found[size] = 2.0 * size[0] * size[1] * size[2] / median(times_s(size, 0.01))
    finalists = sorted(found, key=lambda size: found[size])[-FINALISTS:]
    again = {size: times_s(size, 0.3) for size in finalists}
    winner = max(finalists, key=lambda size: size[0] * size[1] * size[2] / median(again[size]))
    return _told(
        bench,
        precision,
        name,
        winner,
        again[winner],
        check(bench, precision, *operands(winner)),
        shapes_tried=len(found),
    )
