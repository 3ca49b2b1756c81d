"""The host: its memory and its matrix products. NumPy only, in the harness's own interpreter.

Bandwidth: arrays much larger than a cache, copied by one thread, and by as many as there are cores
to run on (MOST_THREADS at most). A copy moves 2n bytes; NumPy releases the interpreter's lock for
it. GEMM: NumPy's BLAS with its own threads, 2·n³ FLOPs, checked against float64; n is as large as a
short time allows.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter

import numpy as np

from .options import Options
from .record import Measurement, emit, reported, timing

ARRAY_BYTES, REHEARSED_BYTES = 2**27, 2**24
SIZES, REHEARSED_SIZE = (512, 1024, 2048, 4096), 256
PRODUCT_S = 0.2
MOST_THREADS = 16
REPEATS = 5
CHECKED_ROWS = 16


def run(options: Options) -> None:
    num_bytes = REHEARSED_BYTES if options.rehearsal else ARRAY_BYTES
    threads = min(len(os.sched_getaffinity(0)), MOST_THREADS)
    for num in dict.fromkeys((1, threads)):
        name = f"host.memory.copy.{'one' if num == 1 else 'all'}"
        with reported(name, (), "B/s"):
            emit(_copy(name, num, num_bytes))
    for dtype in ("float32", "float64"):
        with reported(f"host.gemm.{dtype}", (), "FLOP/s"):
            emit(_gemm(dtype, REHEARSED_SIZE if options.rehearsal else _affordable(dtype)))


def _copy(name: str, threads: int, num_bytes: int) -> Measurement:
    source = np.random.default_rng(0).integers(256, size=num_bytes, dtype=np.uint8)
    target = np.zeros_like(source)
    parts = (np.array_split(values, threads) for values in (target, source))
    pieces = list(zip(*parts, strict=True))
    with ThreadPoolExecutor(threads) as pool:
        times_s = _times_s(lambda: list(pool.map(lambda pair: np.copyto(*pair), pieces)))
    return Measurement(
        name=name,
        unit="B/s",
        value=2 * num_bytes / median(times_s),
        **timing(times_s),
        moved_bytes=2 * num_bytes,
        error=float((source != target).mean()),
        error_limit=0.0,
        how="NumPy, copyto",
        detail={"threads": threads, "array_bytes": num_bytes},
    )


def _affordable(dtype: str) -> int:
    """The largest size whose product is expected to take at most `PRODUCT_S`."""
    a = np.ones((SIZES[0], SIZES[0]), dtype)
    least_s = min(_times_s(lambda: a @ a))
    fitting = [size for size in SIZES if least_s * (size / SIZES[0]) ** 3 <= PRODUCT_S]
    return max(fitting, default=SIZES[0])


def _gemm(dtype: str, size: int) -> Measurement:
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((size, size)).astype(dtype) for _ in range(2))
    result = np.zeros_like(a)
    times_s = _times_s(lambda: np.matmul(a, b, out=result))
    reference = a[:CHECKED_ROWS].astype(np.float64) @ b.astype(np.float64)
    flops = 2.0 * size**3
    return Measurement(
        name=f"host.gemm.{dtype}",
        unit="FLOP/s",
        value=flops / median(times_s),
        **timing(times_s),
        flops=flops,
        moved_bytes=3.0 * a.nbytes,
        error=float(np.linalg.norm(result[:CHECKED_ROWS] - reference) / np.linalg.norm(reference)),
        error_limit=1e-5 if dtype == "float32" else 1e-12,
        how="NumPy, BLAS",
        detail={"size": size},
    )


def _times_s(call: Callable[[], object]) -> list[float]:
    call()  # touches the memory, and starts the threads
    times_s = []
    for _ in range(REPEATS):
        began_at_s = perf_counter()
        call()
        times_s.append(perf_counter() - began_at_s)
    return times_s
