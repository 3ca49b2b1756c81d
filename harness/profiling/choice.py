"""Which of a study's points `profile.points` selects. Pure."""

from typing import Any

import pandas as pd

from harness.axes import swept
from harness.errors import UserError
from harness.void import is_void
from profiles.config import POINTS


def choose(points: pd.DataFrame, axes: dict[str, list[Any]], which: str) -> list[str]:
    """The ids of one good run for each chosen point. Raises UserError if none is selected.

    Points have a knee only if at least three form a series; otherwise the best is taken instead.
    Void points are neither best nor worst, unless all are void: a trace explains them all the same.
    """
    good = points[(points["status"] == "ok") & points["output_tok_per_s"].notna()]
    if good.empty:
        return []
    void = is_void(good)
    rate = pd.to_numeric((good if void.all() else good[~void])["output_tok_per_s"])
    match which:
        case "all":
            mine = good
        case "best":
            mine = good.loc[[rate.idxmax()]]
        case "worst":
            mine = good.loc[[rate.idxmin()]]
        case "knee":
            mine = good[good["knee"]] if good["knee"].any() else good.loc[[rate.idxmax()]]
        case _:
            mine = _filtered(good, axes, which)
    return [str(run) for run in mine["run"]]


def _filtered(points: pd.DataFrame, axes: dict[str, list[Any]], which: str) -> pd.DataFrame:
    for pair in which.split(","):
        name, _, value = pair.partition("=")
        if name not in points:
            known = ", ".join([*POINTS, *(f"{column}=…" for column in swept(axes))])
            raise UserError(
                f"profile.points={which}: there is no column {name}. There are: {known}."
            )
        points = points[[_is(cell, value) for cell in points[name]]]
    if points.empty:
        raise UserError(f"profile.points={which}: no measured point is like that.")
    return points


def _is(cell: Any, value: str) -> bool:
    try:
        return float(cell) == float(value)
    except (TypeError, ValueError):
        return str(cell).lower() == value.lower()
