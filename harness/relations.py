"""A point's relations to other points: gain, speed-up, efficiency, the knee. Pure.

Rows are points in the order of the grid. Without a point to compare with, or where either is void,
values are NaN.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from harness.void import is_void

KNEE_FRAC = 0.9  # the knee is the lowest point of a series that reaches this share of its best
KNEE_POINTS = 3  # the fewest that make a series
SERIES = ["setting", "load_kind"]  # one engine setting, loads that differ only in intensity

Table = pd.DataFrame
Values = pd.Series  # of numbers
NEEDED = ("load", "load_kind", "setting", "arrival", "concurrency", "case")


def related(points: Table, axes: Sequence[str]) -> Table:
    """The points with the columns of this file; `axes` are the columns of the swept axes.

    A void point has no rate here, like one that failed.
    """
    absent = [name for name in NEEDED if name not in points]  # in a table of an older version
    points = points.reindex(columns=[*points.columns, *absent])
    rate = _numbers(points, "output_tok_per_s").mask(is_void(points))
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
    """A column as numbers; NaN where it is empty or absent."""
    values = points[name] if name in points else pd.Series(index=points.index, dtype=float)
    return pd.to_numeric(values).astype(float)


def _before(points: Table, rate: "Values[Any]", axes: Sequence[str]) -> "Values[Any]":
    """The rate of the previous row in the same case, if only the case's last axis differs.

    An axis that does not vary within a case does not count as one of it.
    """
    before = pd.Series(float("nan"), index=points.index)
    texts = points[list(axes)].map(str)  # "left to the server" (None) counts as a value
    for _, mine in texts.groupby(points["case"].map(str), sort=False):
        varied = [name for name in axes if mine[name].nunique() > 1]
        if varied:
            outer = [mine[name] for name in varied[:-1]]
            rates = rate[mine.index]
            before[mine.index] = rates.groupby(outer).shift() if outer else rates.shift()
    return before


def _first(points: Table, values: "Values[Any]", same: list[str]) -> "Values[Any]":
    """For each row, the value of the first row that agrees with it in these columns."""
    keys = [points[name] for name in same]
    # The first row, not the first defined value: a failed reference must not be replaced.
    places = (
        pd.Series(range(len(points)), index=points.index)
        .groupby(keys, dropna=False)
        .transform("min")
    )
    return pd.Series(values.to_numpy()[places.to_numpy(dtype=int)], index=points.index)


def _concurrency_efficiency(points: Table, rate: "Values[Any]") -> "Values[Any]":
    """Tokens per second and stream, relative to the lowest concurrency of the series."""
    closed = _by_concurrency(points)
    each = rate[closed.index] / _numbers(closed, "concurrency")
    return (each / _first(closed, each, SERIES)).reindex(points.index)


def _knee(points: Table, rate: "Values[Any]", axes: Sequence[str]) -> "Values[Any]":
    """Marks the knee of each series: its lowest point that is near the best."""
    knee = pd.Series(data=False, index=points.index)
    for series in _series(points, axes):
        rates = rate[series].dropna()
        if len(rates) >= KNEE_POINTS:
            knee[(rates >= KNEE_FRAC * rates.max()).idxmax()] = True
    return knee


def _series(points: Table, axes: Sequence[str]) -> "Iterator[pd.Index[Any]]":
    """Series of closed loops that differ in one number, lowest first; a point is in at most one.

    The number is the concurrency. Points left over from that form series along an axis of numbers,
    the last such axis first, as for the gain.
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
    """The closed loops, ordered by concurrency."""
    closed = points[points["arrival"] == "closed"]
    order = _numbers(closed, "concurrency").sort_values(kind="stable").index
    return closed.loc[order]
