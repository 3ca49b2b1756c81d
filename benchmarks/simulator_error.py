"""How far the simulator is from what was measured: every point of the reference results.

Plays each point of `results/reference` (`simulator_points.py`) in virtual time and prints
Markdown: measured, simulated, error. Points marked with a star were looked at when the constants
were chosen; the last lines sum up these and the others apart, and say how far measurements of one
configuration and load by several studies lie apart. No GPU, some minutes.

    python benchmarks/simulator_error.py [--busy-host 1.35]

Four studies had a host to themselves, or half of one beside an equal load; the CPUs of the others
are played as slower by a factor that was fitted on their starred points.
"""

import argparse
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import permutations
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.simulator_points import PREFIX_GROUPS, Point, Reading, read  # noqa: E402
from harness.kv_cache import DEFAULT_BLOCK_TOKENS, DEFAULT_UTILIZATION  # noqa: E402
from harness.sim.decoder import BYTES_OF, Decoder  # noqa: E402
from harness.sim.gpus import GPUS  # noqa: E402
from harness.sim.roofline import Roofline, captured_tokens  # noqa: E402
from tests.harness.sim.virtual import Clients, VirtualTime  # noqa: E402

NAMES = ("output tok/s", "TTFT p50, ms", "TPOT p50, ms")
SCALES = (1.0, 1e3, 1e3)
QUIET_HOST = frozenset({"baseline", "frontend", "batching", "batching_traced"})
BUSY_HOST_SLOWDOWN = 1.35


def is_fitted(point: Point) -> bool:
    """Its trace, its times or its CPU shares were used, or variants were compared on it."""
    match point.study:
        case "baseline" | "regression/eager":
            return True
        case "frontend":
            return point.case != "both"
        case "batching_traced":
            return point.max_num_seqs in (16, 256)
        case "parallel":
            return point.case in ("tp1", "tp2")
        case "perf_story":
            return point.case == "graphs"
    return False


def simulate(point: Point, busy_host: float = BUSY_HOST_SLOWDOWN) -> tuple[float, ...]:
    """Replicas share the streams; each share is played by itself."""
    num_servers = point.engine.get("replicas", 1)
    if point.concurrency is None:
        assert num_servers == 1
        shares = [None]
    else:
        streams = [len(range(n, point.concurrency, num_servers)) for n in range(num_servers)]
        shares = [share for share in streams if share]
    played = {share: _clients(point, share, busy_host).run() for share in set(shares)}
    ttfts_s = [ttft for share in shares for ttft in played[share].ttfts_s]
    tpots_s = [tpot for share in shares for tpot in played[share].tpots_s]
    tok_per_s = sum(played[share].output_tok_per_s for share in shares)
    return tok_per_s, median(ttfts_s), median(tpots_s)


def _clients(point: Point, concurrency: int | None, busy_host: float) -> Clients:
    engine = point.engine
    return Clients(
        time=VirtualTime(
            max_num_seqs=min(point.max_num_seqs, point.max_num_batched_tokens),
            max_num_batched_tokens=point.max_num_batched_tokens,
            num_blocks=_num_blocks(point),
            prefix_caching=point.hit_frac is not None,  # other prompts have nothing in common
            chunked_prefill=engine.get("enable_chunked_prefill", True),
            cpu_slowdown=1.0 if point.study in QUIET_HOST else busy_host,
            **_roofline(point),
        ),
        warmup_s=point.warmup_s,
        window_s=point.window_s,
        concurrency=concurrency,
        rate_rps=point.rate_rps,
        input_tokens=point.input_tokens,
        output_tokens=point.output_tokens,
        stream_interval=engine.get("stream_interval", 1),
        groups=PREFIX_GROUPS,
        shared_frac=point.hit_frac,
    )


def _roofline(point: Point) -> dict[str, object]:
    engine = point.engine
    decoder = Decoder.of(point.shape)
    value_bytes = BYTES_OF[engine.get("dtype", decoder.dtype)]
    is_fp8 = str(engine.get("kv_cache_dtype", "auto")).startswith("fp8")
    compilation = engine["extra"].get("compilation_config", {})
    graph_tokens = max(
        compilation.get("cudagraph_capture_sizes", [captured_tokens(point.max_num_seqs)])
    )
    return {
        "decoder": decoder,
        "gpu": GPUS["h200"],
        "tensor_parallel_size": engine["tensor_parallel_size"],
        "weight_value_bytes": value_bytes,
        "kv_value_bytes": 1 if is_fp8 else value_bytes,
        "graph_tokens": 0 if engine.get("enforce_eager") else graph_tokens,
        "async_scheduling": engine.get("async_scheduling", True),
        "api_server_count": engine.get("api_server_count", 1),
    }


def _num_blocks(point: Point) -> int:
    engine = point.engine
    if asked := engine["extra"].get("num_gpu_blocks_override"):
        return asked
    roofline = Roofline(**_roofline(point))
    cache_bytes = roofline.kv_cache_bytes(engine.get("gpu_memory_utilization", DEFAULT_UTILIZATION))
    return cache_bytes // (roofline.kv_bytes_per_token * DEFAULT_BLOCK_TOKENS)


def print_row(point: Point, simulated: tuple[float, ...]) -> None:
    cells = []
    for theirs, ours, scale in zip(point.measured, simulated, SCALES, strict=True):
        spec = ",.0f" if theirs * scale >= 100 else ",.3g"
        cells += [
            f"{theirs * scale:{spec}} / {ours * scale:{spec}}",
            f"{100 * (ours / theirs - 1):+.0f}",
        ]
    star = " *" if is_fitted(point) else ""
    case = f"{point.case}: {point.setting}" if point.case else point.setting
    name = f"{point.study}{star} | {case} | {point.load} | {point.max_num_seqs}"
    print(f"| {name} |", " | ".join(cells), "|", flush=True)


def print_summary(title: str, errors: Iterable[tuple[float, ...]]) -> None:
    rows = list(errors)
    print(f"\n{len(rows)} {title}, |error| median and worst:")
    for name, column in zip(NAMES, zip(*rows, strict=True), strict=True):
        absolute = [abs(error) for error in column]
        print(f"- {name}: {median(absolute):.1%}, {max(absolute):.0%}")


def relative(theirs: tuple[float, ...], ours: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(b / a - 1 for a, b in zip(theirs, ours, strict=True))


def floor(points: Iterable[Point]) -> list[tuple[float, ...]]:
    """One study's measurement taken as a prediction of another's, each pair both ways."""
    same: dict[str, list[Point]] = {}
    for point in points:
        same.setdefault(point.configuration, []).append(point)
    return [
        relative(one.measured, other.measured)
        for group in same.values()
        for one, other in permutations(group, 2)
    ]


def print_left_out(reading: Reading) -> None:
    print(f"\n{sum(reading.left_out.values())} rows left out:")
    for reason, number in reading.left_out.items():
        print(f"- {number}: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measured and simulated, point by point.")
    told = "how much slower the CPUs of busy hosts are [%(default)s]"
    parser.add_argument("--busy-host", type=float, default=BUSY_HOST_SLOWDOWN, help=told)
    busy_host = parser.parse_args().busy_host
    reading = read()
    print("| study | case | load | max seqs |", " | ".join(f"{n} | error %" for n in NAMES), "|")
    print("| :--- | :--- | :--- | ---: |" + " ---: | ---: |" * len(NAMES))
    errors: dict[bool, list[tuple[float, ...]]] = {True: [], False: []}
    with ProcessPoolExecutor() as workers:
        played = workers.map(partial(simulate, busy_host=busy_host), reading.points)
        for point, ours in zip(reading.points, played, strict=True):
            errors[is_fitted(point)].append(relative(point.measured, ours))
            print_row(point, ours)
    print_summary("points used for the fit", errors[True])
    print_summary("other points", errors[False])
    print_summary("pairs of measurements of one configuration and load", floor(reading.points))
    print_left_out(reading)


if __name__ == "__main__":
    main()
