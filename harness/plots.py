"""Plots of a study: those that its sweep asks for, or throughput and TPOT against what was swept.

A mark or a bar is a point, i.e. the median of its runs. If it has several runs, a thin line extends
from the least to the greatest of them, like the table's spread.
"""

from math import inf, nan
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.axes import axis_columns, swept
from harness.columns import metric
from harness.presentation import Plot
from harness.tables import extremes, heading
from harness.units import named_values, scale_of, value_text
from harness.void import is_void

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LEAST, GREATEST = " least", " greatest"  # suffixes of columns: extremes over a point's runs
MADE_BY = {"Software": "vLLM harness"}  # metadata of each picture of a study


def draw(
    points: pd.DataFrame, about: dict[str, Any], folder: Path, runs: pd.DataFrame | None = None
) -> list[Path]:
    """Draw every plot that the points have data for; returns the files.

    Failed points are not drawn. With `runs`, of which the points are the medians, their spread is
    drawn as well.
    """
    import matplotlib as mpl

    mpl.use("agg")
    if "tune" in about:  # a grid's plots do not show how trials relate
        from harness.tune.plots import draw_answer

        return draw_answer(folder)
    good = _drawable(points, runs)
    axes = swept(about["axes"])
    if len(good) < 2 or not axes:
        return []
    folder.mkdir(exist_ok=True)
    asked = {n: Plot(**p) for n, p in ((about.get("options") or {}).get("plots") or {}).items()}
    drawn = [
        _save(figure, folder / f"{name}.png")
        for name, plot in asked.items()
        if (figure := _asked(good, plot, about)) is not None
    ]
    if "case" in axes:
        return [*drawn, _save(_bars(good, axes, about), folder / "cases.png")]
    if not asked:
        x = axes[0]
        drawn.append(_save(_over_setting(good, x, axes[1:], about), folder / f"over_{x}.png"))
    return [*drawn, _save(_tradeoff(good, axes, about), folder / "throughput_latency.png")]


def figure(
    points: pd.DataFrame, about: dict[str, Any], plot: Plot, runs: pd.DataFrame | None = None
) -> "Figure | None":
    """One plot of a study, for a page; None if its columns are empty. `runs` as in `draw`."""
    drawn = _asked(_drawable(points, runs), plot, about)
    if drawn is not None:
        drawn.tight_layout()
    return drawn


def _drawable(points: pd.DataFrame, runs: pd.DataFrame | None) -> pd.DataFrame:
    """The good points, ready to be drawn.

    Empty columns become NaN, and so do infinite values, which took longer than the run. Beside each
    column are its least and greatest value over a point's runs, if there are several.
    """
    good = points[points["status"] == "ok"].reset_index(drop=True)
    if runs is not None:
        least, greatest = extremes(runs)
        good = good.join(least.add_suffix(LEAST), on="point")
        good = good.join(greatest.add_suffix(GREATEST), on="point")
    for name in good:
        if good[name].isna().all():
            good[name] = nan
    numbers = good.select_dtypes("number").columns
    good[numbers] = good[numbers].replace([inf, -inf], nan)
    return good


def _asked(good: pd.DataFrame, plot: Plot, about: dict[str, Any]) -> "Figure | None":
    """A plot as the sweep's YAML asks for it; None if its columns are empty.

    If x is an axis, points that differ in another axis get another line, asked for or not.
    """
    by = _column(plot.by, about) if plot.by else None
    by = by if by in good else None
    mine = good[good["case"].isin(plot.cases)] if plot.cases else good
    rows = [y for y in plot.y if y in mine and pd.api.types.is_numeric_dtype(mine[y])]
    rows = [y for y in rows if mine[y].notna().any()]
    mine = mine[mine[plot.x].notna()] if plot.x in mine else mine.head(0)
    if len(mine) < 2 or not rows:
        return None
    axes = swept(about["axes"])
    also = [a for a in axes if a not in (plot.x, by) and mine[a].map(str).nunique() > 1]
    lines = [*([by] if by else []), *(also if plot.x in axes else [])]
    figure, panels = _figure(_heading(about, mine), rows=len(rows))
    is_number = pd.api.types.is_numeric_dtype(mine[plot.x])
    ticks = list(dict.fromkeys(map(value_text, mine[plot.x])))
    for label, group in _groups(mine, lines):
        places = [ticks.index(value_text(value)) for value in group[plot.x]]
        x = plot.x if is_number else places
        for panel, y in zip(panels, rows, strict=True):
            _line(panel, x, y, group, label=label or None)
    for panel, y in zip(panels, rows, strict=True):
        _dress(panel, y=metric(y)[0], log=plot.log_y and bool((mine[y] > 0).any()))
        if plot.log_x and is_number and (mine[plot.x] > 0).any():
            panel.set_xscale("log", base=2)
            panel.xaxis.set_major_formatter("{x:,.6g}")
        elif not is_number:
            panel.set_xticks(range(len(ticks)), ticks)
        if lines:
            panel.legend(fontsize=8)
    panels[-1].set_xlabel(metric(plot.x)[0])
    return figure


def _column(name: str, about: dict[str, Any]) -> str:
    """The column of a name, which may be an axis' dotted name."""
    return axis_columns(about["axes"]).get(name, name)


def _bars(good: pd.DataFrame, axes: list[str], about: dict[str, Any]) -> "Figure":
    """A bar for each point: output tok/s, and median TPOT with its 99th percentile as a mark."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    if "case" in axes and good["case"].is_unique:
        axes = ["case"]  # the rest would be numbers without names
    names = [
        "  ".join(
            value_text(row[name])
            for name in axes
            if row[name] is not None and not _is_nan(row[name])
        )
        for row in good.to_dict("records")
    ]
    height = 0.26 * len(good) + 1.6
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, height), sharey=True)
    figure.suptitle(_titled(_heading(about, good, void="hatched")), fontsize=10)
    places = range(len(good))
    colors = {c: f"C{k % 10}" for k, c in enumerate(dict.fromkeys(good["case"]))}
    tint = [colors[case] for case in good["case"]]
    look: dict[str, Any] = {"color": tint, "height": 0.7, "edgecolor": "white", "linewidth": 0}
    look["hatch"] = ["///" if void else "" for void in is_void(good)]
    for panel, name in ((left, "output_tok_per_s"), (right, "tpot_p50_s")):
        values = _shown(good, name)
        panel.barh(places, values, **look)
        panel.errorbar(
            values, places, xerr=_reach(good, name), fmt="none", ecolor="0.2", elinewidth=1
        )
    right.plot(_shown(good, "tpot_p99_s"), places, "k|", ms=8)
    left.set_yticks(places, names, fontsize=8)
    left.invert_yaxis()
    left.set_xlabel("output tok/s")
    left.xaxis.set_major_locator(MaxNLocator(5))  # large numbers are wide
    left.xaxis.set_major_formatter("{x:,.0f}")
    right.set_xlabel("TPOT p50 ms, its p99 as a mark")  # a legend would hide bars
    left.set_title(f"labels: {', '.join(axes)}", fontsize=8, loc="left")
    for panel in (left, right):
        panel.grid(alpha=0.3, axis="x")
    return figure


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _over_setting(good: pd.DataFrame, x: str, others: list[str], about: dict[str, Any]) -> "Figure":
    """Output tok/s and TPOT p50/p99 against the first axis, a line per value of the others."""
    figure, (top, bottom) = _figure(_heading(about, good), rows=2)
    ticks = list(dict.fromkeys(map(value_text, good[x])))
    for label, group in _groups(good, others):
        places = [ticks.index(value_text(value)) for value in group[x]]
        color = _line(top, places, "output_tok_per_s", group, label=label)
        p50, p99 = (f"{label} {p}".strip() for p in ("p50", "p99"))
        _line(bottom, places, "tpot_p50_s", group, label=p50, color=color)
        _line(bottom, places, "tpot_p99_s", group, "^--", label=p99, color=color)
    for plot in (top, bottom):
        plot.set_xticks(range(len(ticks)), ticks)
    _dress(top, y="output tok/s")
    _dress(bottom, y="TPOT (ms)", x=x)
    bottom.legend(fontsize=8)
    if others:
        top.legend(fontsize=8)
    return figure


def _tradeoff(good: pd.DataFrame, axes: list[str], about: dict[str, Any]) -> "Figure":
    """Output tok/s against TPOT p50, every point labelled with its settings."""
    figure, (plot,) = _figure(_heading(about, good), rows=1)
    for _, group in _groups(good, axes[1:]):
        _line(plot, "tpot_p50_s", "output_tok_per_s", group, alpha=0.8)
    for row in good.to_dict("records"):
        label = ", ".join(value_text(row[name]) for name in axes)
        at = (_shown(row, "tpot_p50_s"), row["output_tok_per_s"])
        plot.annotate(label, at, xytext=(6, -10), textcoords="offset points", fontsize=8)
    plot.margins(x=0.12)
    _dress(plot, y="output tok/s", x="TPOT p50 (ms)")
    plot.text(
        0.99, 0.02, f"labels: {', '.join(axes)}", transform=plot.transAxes, ha="right", fontsize=8
    )
    return figure


def _figure(title: str, rows: int) -> "tuple[Figure, tuple[Axes, ...]]":
    from matplotlib import pyplot as plt

    height = 3.2 * rows + 1.2
    figure, axes = plt.subplots(rows, 1, figsize=(8, height), sharex=True, squeeze=False)
    # Near the edge at every height: the layout makes room for the title, not for space above it.
    figure.suptitle(_titled(title), fontsize=10, y=1 - 0.1 / height)
    return figure, tuple(axes[:, 0])


def _line(
    panel: "Axes", x: str | list[int], y: str, rows: pd.DataFrame, style: str = "o-", **look: Any
) -> Any:
    """Draw a line through the rows' marks, hollow for void rows; returns its colour.

    `y` is a column; `x` is a column or the rows' places.
    """
    at = _shown(rows, x) if isinstance(x, str) else np.array(x)
    values = _shown(rows, y)
    (line,) = panel.plot(at, values, style, **look)
    color = line.get_color()
    across = _reach(rows, x) if isinstance(x, str) else None
    reach: dict[str, Any] = {"xerr": across, "yerr": _reach(rows, y), "fmt": "none"}
    panel.errorbar(at, values, **reach, ecolor=color, elinewidth=1, alpha=0.6)
    void = is_void(rows).to_numpy()
    if void.any():
        hollow: dict[str, Any] = {"color": color, "markerfacecolor": "white"}
        panel.plot(np.asarray(at)[void], np.asarray(values)[void], style[0], **hollow)
    return color


def _reach(rows: pd.DataFrame, name: str) -> list[Any] | None:
    """How far the runs of each row extend below and above its value, in display units.

    None if the runs are not known.
    """
    if f"{name}{LEAST}" not in rows:
        return None
    value, scale = _shown(rows, name), scale_of(name)
    return [value - rows[f"{name}{LEAST}"] * scale, rows[f"{name}{GREATEST}"] * scale - value]


def _shown(rows: Any, name: str) -> Any:
    """A column, or a row's value of it, in display units."""
    return rows[name] * scale_of(name)


def _heading(about: dict[str, Any], rows: pd.DataFrame, void: str = "hollow") -> str:
    """What was measured, with a legend for void points and for the spread of runs."""
    lines = [heading(about, rows)]
    if is_void(rows).any():
        lines.append(f"{void}: void, see validity")
    spread = rows.get(f"output_tok_per_s{LEAST}")
    if spread is not None and spread.notna().any():
        lines.append("thin lines: from the least to the greatest of a point's runs")
    return "\n".join(lines)


def _titled(text: str) -> str:
    """A heading as the title of a figure, wrapped to its width."""
    lines = text.replace("**", "").replace(". Load: ", "\n").splitlines()
    return "\n".join(fill(line, 110) for line in lines)


def _dress(plot: "Axes", y: str, x: str | None = None, *, log: bool = False) -> None:
    """Set axis names, a scale that includes zero (or `log`), and separators of thousands."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    plot.set_ylabel(y)
    if x is not None:
        plot.set_xlabel(x)
    if log:
        plot.set_yscale("log")
        plot.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # all nine would overlap
        plot.yaxis.set_minor_formatter(StrMethodFormatter("{x:,.6g}"))
    else:
        low, high = plot.get_ylim()
        plot.set_ylim(0 if plot.dataLim.y0 >= 0 else low, max(0, high) * 1.05)
    plot.yaxis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
    plot.grid(alpha=0.3)


def _groups(good: pd.DataFrame, others: list[str]) -> list[tuple[str, pd.DataFrame]]:
    """The rows grouped by their other axes, as (label, rows) in the order of the grid."""
    if not others:
        return [("", good)]
    labels = [named_values({name: row[name] for name in others}) for row in good.to_dict("records")]
    return [(label, good[[at == label for at in labels]]) for label in dict.fromkeys(labels)]


def _save(figure: "Figure", path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure.tight_layout()
    figure.savefig(path, dpi=150, metadata=MADE_BY)
    plt.close(figure)
    return path
