"""What a second GPU brings: by the probes, by a sweep, by traces. Pure."""

from collections.abc import Iterable, Iterator

import pandas as pd

from harness.conclusions.rows import Row, concluded, good, is_known
from harness.hardware.card import Row as CardRow
from harness.units import number, percent, plural, significant, whole
from profiles.findings import Findings
from profiles.kernels import KernelClass

ALL_REDUCE = "nccl.all_reduce."


def links_conclusion(card: Iterable[CardRow]) -> Iterator[str]:
    """What the probes say: independent work on all cards at once, and the way between them."""
    rows = [row for row in card if row.value is not None]
    for row in rows:
        if row.name.startswith("scaling.") and row.name.endswith(".efficiency"):
            what = row.name.split(".")[1]
            yield f"{row.where}, each at its own {what}: {row.shown_value} of what one alone does."
    for row in rows:
        if row.name == "p2p.both_ways":
            yield f"{row.where}: {row.shown_value} both ways{_of_peak(row)}."
    by_bytes = all_reduces(rows)
    if len(by_bytes) > 1:
        (small_bytes, small), *_, (large_bytes, large) = by_bytes
        yield (
            f"An all-reduce over {large.where} reaches {large.shown_value}{_of_peak(large)} with"
            f" {whole(large_bytes / 2**20)} MiB; one of {whole(small_bytes / 2**10)} KiB takes"
            f" {significant(1e6)(small.time_s or 0.0)} µs."
        )


def all_reduces(card: Iterable[CardRow]) -> list[tuple[int, CardRow]]:
    """Bytes and row of each all-reduce, the smallest first."""
    found = [
        (int(row.name.removeprefix(ALL_REDUCE)), row)
        for row in card
        if row.name.startswith(ALL_REDUCE) and row.value is not None
    ]
    return sorted(found, key=lambda one: one[0])


def communication_conclusion(findings: Findings) -> Iterator[str]:
    """How much of a trace's kernel time is communication, and how much of that is waiting."""
    for device in findings.devices:
        shares = {use.name: use.frac for use in device.classes}
        told = device.communication
        if told is None or not told.time_s or told.waiting_s is None:
            continue
        yield (
            f"{device.label}: {percent(shares.get(KernelClass.COMMUNICATION, 0.0))} % of the"
            f" kernel time is communication, and {percent(told.waiting_s / told.time_s)} % of"
            " that is waiting for the other card to begin."
        )


def parallel_conclusion(points: pd.DataFrame) -> Iterator[str]:
    """The fastest way to use more than one GPU, at each concurrency."""
    rows = good(points, "concurrency", "speedup", "gpu_efficiency_frac", "num_gpus")
    yield from concluded(_fastest(points, rows), points, rows)


def _fastest(points: pd.DataFrame, rows: list[Row]) -> Iterator[str]:
    for concurrency in sorted({row["concurrency"] for row in rows}):
        mine = [row for row in rows if row["concurrency"] == concurrency]
        several = [row for row in mine if row["num_gpus"] > 1]
        if several:
            best = max(several, key=lambda row: row["speedup"])
            yield f"Concurrency {whole(concurrency)}: {_way(best)}{_others(several, best)}."
    if rows and not (pd.to_numeric(points["num_gpus"]) > 1).any():
        yield "No point used more than one GPU."


def _way(row: Row) -> str:
    told = f"{row['case']} gives {number(2)(row['speedup'])} × one GPU"
    told += f" with {plural(int(row['num_gpus']), 'GPU')}"
    told += f", {percent(row['gpu_efficiency_frac'])} % by GPU"
    if is_known(row, "tpot_p50_s"):
        told += f", at TPOT p50 {significant(1e3)(row['tpot_p50_s'])} ms"
    return told


def _others(rows: Iterable[Row], best: Row) -> str:
    told = [
        f"{row['case']} {number(2)(row['speedup'])} ×"
        for row in rows
        if row["case"] != best["case"]
    ]
    return f" ({', '.join(told)})" if told else ""


def _of_peak(row: CardRow) -> str:
    return f", {percent(row.peak_frac)} % of the peak" if row.peak_frac is not None else ""
