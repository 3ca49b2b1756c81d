"""Tables of a study, made from its raw samples alone whenever they are wanted."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.axes import axis_columns, swept
from harness.capacity.columns import capacity_columns
from harness.ceilings import measured_ceiling
from harness.checks.columns import check_columns
from harness.columns import COLUMNS, Column
from harness.relations import related
from harness.rows import row_of
from harness.slo import limits_text, slo_of
from harness.study import Study, damaged
from harness.units import percent, value_text, whole
from harness.validity import codes, fatal_codes
from harness.void import is_void

EMPTY = "–"
SIMULATED = "SIMULATED: no hardware was measured."


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """A study's tables: one with a row per run, one with a row per point."""

    runs: pd.DataFrame
    points: pd.DataFrame


def runs_table(study: Study, only: Collection[str] | None = None) -> pd.DataFrame:
    """One row per run, in the order of the grid; `only` restricts it to these runs.

    The columns are those of harness/columns.py that any run has, preceded by one for each axis that
    is not among them.
    """
    about = study.about
    ceiling = measured_ceiling(study.folder, about)
    checked, searched = check_columns(study, about), capacity_columns(study)
    rows = []
    for run in study.runs(only):
        try:
            row = row_of(run, about, ceiling)
            of_checks = checked.columns(row["setting"], run.record["load"])
            row |= of_checks | searched.get(row["run"], {})
            rows.append(row | {"validity": " ".join(codes(row))})
        except (OSError, ValueError, KeyError) as error:
            raise damaged(run, error) from None
    rows.sort(key=lambda row: (*row["place"], row["launch_repeat"], row["run_repeat"]))
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    names = [column.name for column in COLUMNS if column.name in table]
    axes = list(axis_columns(about["axes"]).values())
    for name in axes:
        table[name] = _of_one_type(table[name])
    return table[[name for name in axes if name not in names] + names]


def points_table(runs: pd.DataFrame, axes: dict[str, list[Any]]) -> pd.DataFrame:
    """One row per point: the median of its good runs, their number, and their spread.

    A void run is good only where no other is: then the row is void, too. `validity` has the codes
    of the runs behind the row, then in parentheses what voids those that it leaves out.
    `spread_frac` is (largest - smallest) / median of output_tok_per_s. Relations to other points
    (gain, speed-up, efficiency) come from harness/relations.py.
    """
    rows: list[dict[Any, Any]] = []
    for _, group in runs.groupby("point", sort=False):
        good = _counted(group)
        row = group.iloc[0].to_dict() | {"spread_frac": None}  # kept if all runs failed
        if len(good):
            row = good.iloc[0].to_dict() | good.median(numeric_only=True).to_dict()
            rate = good["output_tok_per_s"]
            row["spread_frac"] = (
                (rate.max() - rate.min()) / rate.median() if len(good) > 1 else None
            )
        row["runs_ok"], row["runs_all"] = len(good), len(group)
        row["validity"] = _validity(good, group)
        rows.append(row)
    return related(pd.DataFrame(rows), swept(axes))


def extremes(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The least and the greatest value of every numeric column over the runs behind each point.

    Both tables have a row for each point with several such runs, indexed by the point's id.
    """
    counted = [_counted(group).index for _, group in runs.groupby("point", sort=False)]
    several = runs.loc[[place for places in counted if len(places) > 1 for place in places]]
    numbers = several.select_dtypes("number").groupby(several["point"])
    return numbers.min(), numbers.max()


def _counted(runs: pd.DataFrame) -> pd.DataFrame:
    """Those of a point's runs that its row is made from."""
    good = runs[runs["status"] == "ok"]
    if "stopped" in good:  # a run that was cut short has no numbers
        good = good[good["stopped"].isna()]
    if "at_capacity" in good and good["at_capacity"].any():  # for a search, the run at its result
        good = good[good["at_capacity"] == True]  # noqa: E712  # it may hold None
    sound = good[~is_void(good)]
    return sound if len(sound) else good


def _validity(counted: pd.DataFrame, runs: pd.DataFrame) -> str:
    """The codes of the runs that a row is made from, and what voids others of its point."""
    if counted.empty:
        return _union(runs["validity"])
    others = runs.drop(counted.index)
    if "at_capacity" in others:  # a search's steps are no part of its result
        others = others[others["at_capacity"] != False]  # noqa: E712  # it may hold None
    left_out = _union(" ".join(fatal_codes(told)) for told in others["validity"])
    return " ".join([*_union(counted["validity"]).split(), *map("({})".format, left_out.split())])


def markdown(points: pd.DataFrame, about: dict[str, Any]) -> str:
    """The points as a Markdown table for people, below a heading."""
    shown = point_columns(points, about)
    lines = [
        "| " + " | ".join(c.title or c.name for c in shown) + " |",
        "|" + "|".join(" ---: " if c.name != "validity" else " :--- " for c in shown) + "|",
    ]
    for row in points.to_dict("records"):
        lines.append("| " + " | ".join(cell(c, row) for c in shown) + " |")
    return f"{heading(about, points)}\n\n" + "\n".join(lines) + "\n"


def point_columns(points: pd.DataFrame, about: dict[str, Any]) -> list[Column]:
    """The columns shown for these points.

    Columns that are empty in all of them are left out, unless they were swept, or asked for on the
    command line.
    """
    rows = points.to_dict("records")
    always = {"validity", *swept(about["axes"]), *about.get("columns_asked", ())}
    shown = [c for c in shown_columns(about) if c.name in points]
    shown = [c for c in shown if c.name in always or any(cell(c, row) != EMPTY for row in rows)]
    if (points["runs_all"] > 1).any():
        shown.append(Column(name="runs_ok", meaning="", title="runs", shown=whole))
        spread = Column(name="spread_frac", meaning="", title="spread %", shown=percent)
        shown.insert(1 + _index(shown, "output_tok_per_s"), spread)
    return shown


def heading(about: dict[str, Any], points: pd.DataFrame) -> str:
    """What was measured, in a sentence or two."""
    parts = [f"{about['sweep']}: {about['model']['name']}", about["engine"]]
    text = ", ".join(parts) + f". Load: {about['load']}." + slo_text(about)
    return f"**{SIMULATED}** {text}" if points["simulated"].any() else text


def slo_text(about: dict[str, Any]) -> str:
    """The limits behind `goodput_rps` and `slo_met_frac`; empty if none are set."""
    limits = limits_text(slo_of(about))
    return f" SLO: {limits}." if limits else ""


def write_tables(study: Study) -> Tables | None:
    """Write table.parquet, .csv and .md; None if there is no run."""
    runs = runs_table(study)
    if runs.empty:
        return None
    about = study.about
    points = points_table(runs, about["axes"])
    with study.draft("table.parquet") as path:
        runs.to_parquet(path, index=False)
    with study.draft("table.csv") as path:
        runs.to_csv(path, index=False)
    with study.draft("table.md") as path:
        path.write_text(markdown(points, about))
    return Tables(runs=runs, points=points)


def _of_one_type(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """A column of numbers unchanged; one that contains anything else, as text."""
    is_number = all(type(value) in (int, float, type(None)) for value in values)
    return values if is_number else values.map(lambda v: v if v is None else value_text(v))


def shown_columns(about: dict[str, Any]) -> list[Column]:
    """The columns for people: the axes, then those the sweep asks for, else all with a title."""
    own = {column.name: column for column in COLUMNS}
    axes = [own.get(n) or Column(name=n, meaning="") for n in axis_columns(about["axes"]).values()]
    axes = [Column(name=c.name, meaning="", title=c.title or c.name, shown=c.shown) for c in axes]
    asked = (about.get("options") or {}).get("columns")
    if not asked:
        extra = [c for c in axes if c.name not in own or not own[c.name].title]
        useful = ("goodput_rps", "slo_met_frac") if slo_text(about) else ()
        return extra + [c.for_people() for c in COLUMNS if c.title or c.name in useful]
    names = [c.name for c in axes]
    rest = [own[name].for_people() for name in asked if name in own and name not in names]
    return [*axes, *rest, *([] if "validity" in asked else [own["validity"]])]


def cell(column: Column, row: dict[Any, Any]) -> str:
    """A row's value in a column, as text for people."""
    value = row[column.name]
    if column.name == "output_tok_per_s" and row["status"] != "ok":
        return f"{row['failure']}"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return EMPTY
    if isinstance(value, float) and math.isinf(value):
        return "> run"  # it took longer than the run
    if isinstance(value, bool | np.bool_):
        return "yes" if value else ""
    is_number = isinstance(value, int | float | np.number)
    return column.shown(value) if column.shown and is_number else value_text(value)


def _union(texts: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(code for text in texts for code in text.split()))


def _index(columns: list[Column], name: str) -> int:
    names = [c.name for c in columns]
    return names.index(name) if name in names else len(names) - 1
