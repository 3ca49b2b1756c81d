"""Rows that a conclusion may rest on, and how it names them. Pure."""

from collections.abc import Hashable, Iterable, Iterator
from math import inf, nan
from typing import Any

import pandas as pd

from harness.tables import SIMULATED
from harness.units import plural
from harness.validity import fatal_codes
from harness.void import is_void

Row = dict[Hashable, Any]
NO_ANSWER = "This cannot be answered by what was measured."


def good(points: pd.DataFrame, *numbers: str) -> list[Row]:
    """The points that did not fail, are not void, and have a finite number in these columns."""
    if points.empty or any(name not in points for name in numbers):
        return []
    known = points[(points["status"] == "ok") & ~is_void(points)]
    values = known[list(numbers)].apply(pd.to_numeric, errors="coerce").replace([inf, -inf], nan)
    rows: list[Row] = known[values.notna().all(axis=1)].to_dict("records")
    return rows


def is_known(row: Row, *numbers: str) -> bool:
    """Whether a row has these numbers."""
    return all(name in row and not pd.isna(row[name]) for name in numbers)


def of_case(rows: Iterable[Row], case: str) -> list[Row]:
    """Those of one of the sweep's cases."""
    return [row for row in rows if row.get("case") == case]


def concluded(sentences: Iterable[str], points: pd.DataFrame, rows: Iterable[Row]) -> Iterator[str]:
    """Sentences drawn from rows of the points, and their caveats.

    Without a sentence, that nothing can be said, and what speaks against the points.
    """
    told = list(sentences)
    yield from told or [NO_ANSWER]
    yield from caveats(points, rows if told else ())


def caveats(points: pd.DataFrame, rows: Iterable[Row]) -> Iterator[str]:
    """What a reader must know of the points, and of the rows that a conclusion was drawn from."""
    told = list(rows)
    if points.empty:
        return
    if points["simulated"].any():
        yield SIMULATED
    if void := points["validity"][is_void(points)].tolist():
        why = sorted({code for codes in void for code in fatal_codes(codes)})
        counted = f"{plural(len(void), 'point')} of {len(points)}"
        yield f"Left out as void: {counted}, by {', '.join(why)} (--help validity)."
    if told and max(row["runs_all"] for row in told) == 1:
        yield "Each point was measured once: how far launches lie apart is not known."
    codes = {code for row in told for code in row["validity"].split()}
    if codes:
        counted = plural(sum(bool(row["validity"]) for row in told), "point")
        yield f"Codes of {counted} of {len(told)}: {', '.join(sorted(codes))} (--help validity)."


def answer(sentences: Iterable[str]) -> str:
    """One sentence a line; of nothing, that nothing can be said."""
    return "\n".join(sentences) or NO_ANSWER
