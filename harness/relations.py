"""What a point is to other points: gain, speed-up, efficiency, the knee. Pure.

Rows are points in the order of the grid. What has nothing to be compared with is NaN.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

KNEE_FRAC = 0.9  # the knee: the lowest of a series that reaches this share of its best
KNEE_POINTS = 3  # fewer are no series
SERIES = ["setting", "load_kind"]  # one engine setting, loads that differ in their intensity alone

Table = pd.DataFrame
Values = pd.Series  # of numbers
NEEDED = ("load", "load_kind", "setting", "arrival", "concurrency", "case")


def related(points: Table, axes: Sequence[str]) -> Table:
    """The points with the columns of this file; `axes` are the columns of what was swept."""
    absent = [name for name in NEEDED if name not in points]  # of a table from before they were
    points = points.reindex(columns=[*points.columns, *absent])
    rate = _numbers(points, "output_tok_per_s")
    each_gpu = rate / _numbers(points, "num_gpus")
    return points.assign(
        gain_frac=rate / _before(points, rate, axes) - 1,
        speedup=rate / _first(points, rate, ["load"]),
        gpu_efficiency_frac=each_gpu / _first(points, each_gpu, ["load"]),
        concurrency_efficiency_frac=_concurrency_efficiency(points, rate),
        online_frac=rate / _numbers(points, "offline_output_tok_per_s"),
        knee=_knee(points, rate, axes),
    )


def _numbers(points: Table, name: str) -> "Values[Any]":
    """A column as numbers; NaN where it is empty, or not there."""
    values = points[name] if name in points else pd.Series(index=points.index, dtype=float)
    return pd.to_numeric(values).astype(float)


def _before(points: Table, rate: "Values[Any]", axes: Sequence[str]) -> "Values[Any]":
    """Of the row before in the same case, if nothing but the case's last axis differs.

    An axis that does not vary in a case is none of it.
    """
    before = pd.Series(float("nan"), index=points.index)
    texts = points[list(axes)].map(str)  # what is left to the server is a value, too
    for _, mine in texts.groupby(points["case"].map(str), sort=False):
        varied = [name for name in axes if mine[name].nunique() > 1]
        if varied:
            outer = [mine[name] for name in varied[:-1]]
            rates = rate[mine.index]
            before[mine.index] = rates.groupby(outer).shift() if outer else rates.shift()
    return before


def _first(points: Table, values: "Values[Any]", same: list[str]) -> "Values[Any]":
    """The value of the first row that is the same in these columns."""
    keys = [points[name] for name in same]
    # the first row itself, not the first that is defined: a failed reference is no reference
    places = (
        pd.Series(range(len(points)), index=points.index)
        .groupby(keys, dropna=False)
        .transform("min")
    )
    return pd.Series(values.to_numpy()[places.to_numpy(dtype=int)], index=points.index)


def _concurrency_efficiency(points: Table, rate: "Values[Any]") -> "Values[Any]":
    """Tokens of a stream over those of a stream at the lowest concurrency of its series."""
    closed = _by_concurrency(points)
    each = rate[closed.index] / _numbers(closed, "concurrency")
    return (each / _first(closed, each, SERIES)).reindex(points.index)


def _knee(points: Table, rate: "Values[Any]", axes: Sequence[str]) -> "Values[Any]":
    """Of each series, the lowest that is near the best."""
    knee = pd.Series(data=False, index=points.index)
    for series in _series(points, axes):
        reached = rate[series] >= KNEE_FRAC * rate[series].max()
        if reached.any():
            knee[reached.idxmax()] = True
    return knee


def _series(points: Table, axes: Sequence[str]) -> "Iterator[pd.Index[Any]]":
    """Closed loops that differ in one number alone, the lowest first; a point is in one at most.

    That number is the concurrency. Points of which only one concurrency was measured are a series
    along an engine's axis that holds numbers: the last of them, as for the gain.
    """
    left = _by_concurrency(points)
    for _, mine in left.groupby(SERIES, sort=False, dropna=False):
        if len(mine) >= KNEE_POINTS:
            left = left.drop(mine.index)
            yield mine.index
    for name in reversed(axes):
        others = [left[other].map(str) for other in axes if other != name]
        values = pd.to_numeric(left[name], errors="coerce").dropna().sort_values(kind="stable")
        ordered = left.loc[values.index]
        for _, mine in ordered.groupby([left["load"], *others], sort=False):
            if len(mine) >= KNEE_POINTS:
                left = left.drop(mine.index)
                yield mine.index


def _by_concurrency(points: Table) -> Table:
    """The closed loops, the lowest concurrency first."""
    closed = points[points["arrival"] == "closed"]
    order = _numbers(closed, "concurrency").sort_values(kind="stable").index
    return closed.loc[order]
