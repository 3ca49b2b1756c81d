"""How large a batch is worth its latency. Pure."""

from collections.abc import Iterator

import pandas as pd

from harness.conclusions.rows import Row, concluded, good, is_known
from harness.relations import KNEE_FRAC, KNEE_POINTS, SERIES
from harness.units import milliseconds, number, percent, whole

RATE = "output_tok_per_s"


def batch_conclusion(
    points: pd.DataFrame, *, ttft_p99_s: float, tpot_p99_s: float
) -> Iterator[str]:
    """Where more requests stop paying, and the most within two limits of latency."""
    told = [*_knee(points), *_within(points, ttft_p99_s, tpot_p99_s)]
    yield from concluded(told, points, good(points, RATE))


def limit_conclusion(points: pd.DataFrame) -> Iterator[str]:
    """What the batch limit `max_num_seqs` gives and takes, of a sweep over it."""
    rows = [
        row
        for row in good(points, "max_num_seqs", RATE, "tpot_p99_s")
        if not is_known(row, "case") or row["case"] == "max_num_seqs"
    ]
    yield from concluded(_limit(rows), points, rows)


def _limit(rows: list[Row]) -> Iterator[str]:
    if len({row["max_num_seqs"] for row in rows}) < 2:
        return
    best = max(rows, key=lambda row: row[RATE])
    reached = [row for row in rows if row[RATE] >= KNEE_FRAC * best[RATE]]
    enough = min(reached, key=lambda row: row["max_num_seqs"])
    text = f"max_num_seqs={enough['max_num_seqs']:.0f} is the smallest"
    text += f" within {percent(1 - KNEE_FRAC)} % of the best: {_speed(enough)}"
    if enough is not best:
        text += f"; {best['max_num_seqs']:.0f}, the best, gives {_speed(best)}"
    yield f"{text}."


def _speed(row: Row) -> str:
    return f"{whole(row[RATE])} output tok/s at TPOT p99 {milliseconds(row['tpot_p99_s'])} ms"


def _knee(points: pd.DataFrame) -> Iterator[str]:
    closed = good(points, "concurrency", RATE, "ttft_p50_s", "tpot_p50_s")
    for knee in (row for row in closed if row["knee"]):
        series = [row for row in closed if _series(row) == _series(knee)]
        if len(series) < KNEE_POINTS:  # it is one of an engine's axis
            continue
        alone = min(series, key=lambda row: row["concurrency"])
        best = max(series, key=lambda row: row[RATE])
        yield (
            f"The knee is concurrency {whole(knee['concurrency'])}: {whole(knee[RATE])} output"
            f" tok/s at TTFT p50 {milliseconds(knee['ttft_p50_s'])} ms and TPOT p50"
            f" {milliseconds(knee['tpot_p50_s'])} ms, {_times(knee, alone, 'ttft_p50_s')} and"
            f" {_times(knee, alone, 'tpot_p50_s')} times those of concurrency"
            f" {whole(alone['concurrency'])}."
        )
        if best is not knee:
            yield (
                f"From there to concurrency {whole(best['concurrency'])}, the best, throughput"
                f" grows {_times(best, knee, RATE)}-fold and TTFT p50"
                f" {_times(best, knee, 'ttft_p50_s')}-fold."
            )


def _series(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in SERIES)


def _times(row: Row, other: Row, name: str) -> str:
    return number(2)(row[name] / other[name])


def _within(points: pd.DataFrame, ttft_p99_s: float, tpot_p99_s: float) -> Iterator[str]:
    rows = good(points, RATE, "ttft_p99_s", "tpot_p99_s")
    kept = [row for row in rows if _wait_s(row) <= ttft_p99_s and row["tpot_p99_s"] <= tpot_p99_s]
    limits = f"TTFT p99 ≤ {milliseconds(ttft_p99_s)} ms, TPOT p99 ≤ {milliseconds(tpot_p99_s)} ms"
    for kind in dict.fromkeys(row["arrival"] for row in rows):
        mine = [row for row in kept if row["arrival"] == kind]
        if mine:
            best = max(mine, key=lambda row: row[RATE])
            told = f"the most is {whole(best[RATE])} output tok/s, at {_load(best)}"
        else:
            told = "there is no point"
        yield f"Within {limits} ({kind}) {told}."


def _wait_s(row: Row) -> float:
    """Where requests do not wait for one another, the time before they are written counts, too."""
    name = "ttft_p99_s" if row["arrival"] == "closed" else "ttft_sched_p99_s"
    return float(row[name])


def _load(row: Row) -> str:
    if is_known(row, "concurrency"):
        return f"concurrency {whole(row['concurrency'])}"
    share = f", {percent(row['rate_frac'])} % of the capacity" if is_known(row, "rate_frac") else ""
    return f"{number(1)(row['rate_rps'])} req/s{share}"
