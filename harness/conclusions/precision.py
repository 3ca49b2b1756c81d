"""What a number format gains, and what it costs in accuracy. Pure."""

from collections.abc import Iterator

import pandas as pd

from harness.conclusions.rows import Row, concluded, good, is_known
from harness.units import number, percent, whole

RATE = "output_tok_per_s"
DELTA = ("perplexity_delta", "perplexity_delta_low", "perplexity_delta_high")


def precision_conclusion(points: pd.DataFrame) -> Iterator[str]:
    """A sentence for each format at the highest concurrency, then the fastest that costs nothing.

    A format costs nothing that was seen if the 95 % interval of its perplexity holds the
    reference's: that is no proof that it costs nothing.
    """
    rows = busiest(points)
    yield from concluded(_formats(rows), points, rows)


def _formats(rows: list[Row]) -> Iterator[str]:
    if not rows:
        return
    for row in rows:
        yield f"{row['case']}: {_speed(row, rows[0])}; {_accuracy(row)}."
    judged = [row for row in rows if is_known(row, *DELTA)]
    even = [row for row in judged if row[DELTA[1]] <= 0 <= row[DELTA[2]]]
    if even:
        best = max(even, key=lambda row: row[RATE])
        yield (
            f"The fastest of the {len(even)} whose perplexity cannot be told from the"
            f" reference's is {best['case']}."
        )
    elif judged:
        yield "All of them change the perplexity."
    else:
        yield "Nothing is known of their accuracy."


def busiest(points: pd.DataFrame) -> list[Row]:
    """The points at the highest concurrency."""
    rows = good(points, RATE, "concurrency")
    most = max((row["concurrency"] for row in rows), default=None)
    return [row for row in rows if row["concurrency"] == most]


def _speed(row: Row, first: Row) -> str:
    told = f"{whole(row[RATE])} output tok/s"
    if row is not first and is_known(row, "speedup"):
        told += f", {number(2)(row['speedup'])} × {first['case']}"
    if is_known(row, "j_per_output_token"):
        told += f", {number(3)(row['j_per_output_token'])} J a token"
    return told


def _accuracy(row: Row) -> str:
    if not is_known(row, "kl_mean_nats", "top1_agreement_frac", "exact_match_frac", *DELTA):
        why = row["accuracy_reference"] if is_known(row, "accuracy_reference") else "not measured"
        return f"accuracy: {why}"
    low, high = (f"{row[name]:+.3g}" for name in DELTA[1:])
    return (
        f"KL {row['kl_mean_nats']:.2g} nats, top-1 {percent(row['top1_agreement_frac'])} %,"
        f" {percent(row['exact_match_frac'])} % of greedy replies alike, perplexity"
        f" {row[DELTA[0]]:+.3g} ({low} to {high}) against {row['accuracy_reference']}"
    )
