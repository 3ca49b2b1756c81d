"""Plots of searches: share of requests that kept the limits, and latencies, against the rate."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.capacity.found import Capacity
from harness.capacity.text import name_of
from harness.units import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Search = tuple[str, Capacity]  # (label, search)
MARKS = {"met": ("o", "full"), "unresolved": ("o", "none"), "missed": ("X", "full")}
KEY = (
    "filled: met    hollow: unresolved    cross: missed    at the edge: stopped, or no end seen\n"
    "red: limit    dotted: capacity    shaded: from clearly kept to clearly missed"
)


def draw_curves(found: Sequence[Search], runs: pd.DataFrame, title: str, path: Path) -> None:
    """Draw a panel for the share and one for each limit; marks show the verdict of each run.

    A label has one colour, whatever its number of launches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first, by_run = found[0][1], runs.set_index("run")
    panels = {"slo_met_frac": (100.0, first.slo.share_frac, "kept the limits, %")}
    for name, limit_s in first.slo.limits.items():
        panels[f"{name.removesuffix('_s')}_p99_s"] = (1e3, limit_s, f"{name_of(name)} p99, ms")
    launches = Counter(label for label, _ in found)
    colors = {label: f"C{index % 10}" for index, label in enumerate(launches)}
    height = 2.3 * len(panels) + 1.7 + 0.18 * len(launches)
    figure = Figure(figsize=(8, height), layout="constrained")
    FigureCanvasAgg(figure)
    told = title.replace("**", "").split(". Load: ")
    figure.suptitle("\n".join(fill(part, 105) for part in told), fontsize=10)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (column, (factor, limit, label)) in zip(axes, panels.items(), strict=True):
        is_share = column == "slo_met_frac"
        for of, one in found:
            values = by_run[column].astype(float) * factor
            _curve(panel, one, values, colors[of], edge=0.05 if is_share else 0.95)
        if not is_share:  # what is at the edge is beyond the limit
            panel.set_ylim(top=max(panel.get_ylim()[1], 1.15 * limit * factor))
        panel.axhline(limit * factor, color="tab:red", lw=1, ls="--")
        panel.set_ylabel(label, fontsize=9)
        panel.set_ylim(-5 if is_share else 0)
        panel.grid(alpha=0.3)
    axes[-1].set_xlabel("requests a second" if first.load.is_open else "concurrency")
    for of, count in launches.items():
        name = f"{of}, {plural(count, 'launch')}" if count > 1 else of
        axes[0].plot([], [], "o-", color=colors[of], label=name)
    handles, labels = axes[0].get_legend_handles_labels()
    style: Any = {"fontsize": 8, "title": KEY, "title_fontsize": 8}
    # Inside a panel the legend would hide runs in which no request kept the limits.
    figure.legend(handles, labels, loc="outside lower center", **style)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)


def _curve(
    panel: "Axes", one: Capacity, values: "pd.Series[Any]", color: str, *, edge: float
) -> None:
    """One launch. A probe without a value is at the edge: a share of the panel's height."""
    seen = [(p.rate, p, float(values.get(p.run, np.nan))) for p in one.probes if p.rate is not None]
    seen.sort(key=lambda mark: mark[0])
    line = [(x, y) for x, _, y in seen if np.isfinite(y)]
    style: Any = {"color": color, "lw": 0.8, "alpha": 0.6}
    panel.plot([x for x, _ in line], [y for _, y in line], "-", **style)
    for rate, probe, value in seen:
        mark, filled = MARKS[str(one.verdict(probe))]
        is_known = bool(np.isfinite(value))
        panel.plot(
            [rate],
            [value if is_known else edge],
            mark,
            color=color,
            fillstyle=filled,
            transform=panel.transData if is_known else panel.get_xaxis_transform(),
        )
    known = one.bracket
    if known.low is not None and known.high is not None:
        panel.axvspan(known.low, known.high, color=color, alpha=0.08, lw=0)
    if known.best is not None:
        panel.axvline(known.best, color=color, lw=1, ls=":")
