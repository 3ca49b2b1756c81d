"""What a point is to other points: gain, speed-up, efficiency, the knee. Pure.

Rows are points in the order of the grid. What has nothing to be compared with is NaN.
"""

from typing import Any

import pandas as pd

KNEE_FRAC = 0.9  # the knee: the first point that reaches this share of the best

NEEDED = ("load", "setting", "num_gpus", "arrival", "concurrency")

Table = pd.DataFrame


def related(points: Table, outer: list[str]) -> Table:
    """The points with the columns of this file; `outer` are all axes but the innermost."""
    absent = [name for name in NEEDED if name not in points]  # of a table from before they were
    points = points.reindex(columns=[*points.columns, *absent])
    rate = pd.to_numeric(points["output_tok_per_s"])
    return points.assign(
        gain_frac=rate / _before(points, rate, outer) - 1,
        speedup=rate / _first(points, rate, ["load"]),
        gpu_efficiency_frac=_gpu_efficiency(points, rate),
        concurrency_efficiency_frac=_concurrency_efficiency(points, rate),
        online_frac=_over(rate, points, "offline_output_tok_per_s"),
        knee=_knee(points, rate),
    )


def _before(points: Table, rate: "pd.Series[Any]", outer: list[str]) -> "pd.Series[Any]":
    """The row before, if that differs in the innermost axis alone."""
    groups = [points[name].astype(str) for name in outer]
    return rate.groupby(groups, dropna=False).shift() if groups else rate.shift()


def _first(points: Table, values: "pd.Series[Any]", same: list[str]) -> "pd.Series[Any]":
    """The value of the first row that is the same in these columns."""
    keys = [points[name].astype(str) for name in same]
    # the first row itself, not the first that is defined: a failed reference is no reference
    places = (
        pd.Series(range(len(points)), index=points.index)
        .groupby(keys, dropna=False)
        .transform("min")
    )
    return pd.Series(values.to_numpy()[places.to_numpy()], index=points.index)


def _gpu_efficiency(points: Table, rate: "pd.Series[Any]") -> "pd.Series[Any]":
    """Tokens of a GPU over those of a GPU of the first engine setting, at the same load."""
    each = rate / pd.to_numeric(points["num_gpus"])
    return each / _first(points, each, ["load"])


def _concurrency_efficiency(points: Table, rate: "pd.Series[Any]") -> "pd.Series[Any]":
    """Tokens of a stream over those of a stream at the lowest concurrency of the same engine."""
    each = (rate / pd.to_numeric(points["concurrency"])).where(points["arrival"] == "closed")
    lowest = points.assign(each=each).sort_values("concurrency", kind="stable")
    first = _first(lowest, lowest["each"], ["setting", "arrival"])
    return each / first.reindex(points.index)


def _over(rate: "pd.Series[Any]", points: Table, name: str) -> "pd.Series[Any]":
    return rate / pd.to_numeric(points[name]) if name in points else rate * float("nan")


def _knee(points: Table, rate: "pd.Series[Any]") -> "pd.Series[Any]":
    """Of each engine setting's closed loops, the first as listed that is near the best."""
    knee = pd.Series(False, index=points.index)
    for _, mine in points[points["arrival"] == "closed"].groupby("setting", sort=False):
        reached = rate[mine.index] >= KNEE_FRAC * rate[mine.index].max()
        if len(mine) > 2 and reached.any():
            knee[reached.idxmax()] = True
    return knee
