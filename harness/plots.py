"""Plots of a study: throughput and TPOT over the swept setting, and over each other."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.tables import heading, swept, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(points: pd.DataFrame, about: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what the points allow; returns the files. A point that failed is not drawn."""
    import matplotlib as mpl

    mpl.use("agg")
    good = points[points["status"] == "ok"].reset_index(drop=True)
    axes = swept(about["axes"])
    drawn = []
    if len(good) > 1 and axes:
        folder.mkdir(exist_ok=True)
        x = axes[0]
        drawn.append(_save(_over_setting(good, x, axes[1:], about), folder / f"over_{x}.png"))
        drawn.append(_save(_tradeoff(good, axes, about), folder / "throughput_latency.png"))
    return drawn


def _over_setting(good: pd.DataFrame, x: str, others: list[str], about: dict[str, Any]) -> "Figure":
    """Output tok/s and TPOT p50/p99 against the first swept setting, a line for each rest."""
    figure, (top, bottom) = _figure(heading(about, good), rows=2)
    ticks = list(dict.fromkeys(map(value_text, good[x])))
    for label, group in _groups(good, others):
        places = [ticks.index(value_text(value)) for value in group[x]]
        line = top.plot(places, group["output_tok_per_s"], "o-", label=label)
        style: dict[str, Any] = {"color": line[0].get_color()}
        p50, p99 = (f"{label} {p}".strip() for p in ("p50", "p99"))
        bottom.plot(places, group["tpot_p50_s"] * 1e3, "o-", label=p50, **style)
        bottom.plot(places, group["tpot_p99_s"] * 1e3, "^--", label=p99, **style)
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
    figure, (plot,) = _figure(heading(about, good), rows=1)
    for _, group in _groups(good, axes[1:]):
        plot.plot(group["tpot_p50_s"] * 1e3, group["output_tok_per_s"], "o-", alpha=0.8)
    for row in good.to_dict("records"):
        label = ", ".join(value_text(row[name]) for name in axes)
        at = (row["tpot_p50_s"] * 1e3, row["output_tok_per_s"])
        plot.annotate(label, at, xytext=(6, -10), textcoords="offset points", fontsize=8)
    plot.margins(x=0.12)
    _dress(plot, y="output tok/s", x="TPOT p50 (ms)")
    plot.text(
        0.99, 0.02, f"labels: {', '.join(axes)}", transform=plot.transAxes, ha="right", fontsize=8
    )
    return figure


def _figure(title: str, rows: int) -> "tuple[Figure, tuple[Axes, ...]]":
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(rows, 1, figsize=(8, 3.2 * rows + 1.2), sharex=True, squeeze=False)
    figure.suptitle(title.replace("**", "").replace(". Load: ", "\n"), fontsize=10)
    return figure, tuple(axes[:, 0])


def _dress(plot: "Axes", y: str, x: str | None = None) -> None:
    """Axis names, a scale from zero with air at the top, thousands separated."""
    from matplotlib.ticker import StrMethodFormatter

    plot.set_ylabel(y)
    if x is not None:
        plot.set_xlabel(x)
    plot.set_ylim(0, plot.get_ylim()[1] * 1.05)
    plot.yaxis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
    plot.grid(alpha=0.3)


def _groups(good: pd.DataFrame, others: list[str]) -> list[tuple[str, pd.DataFrame]]:
    """The rows by what their other axes say, in the order of the grid."""
    if not others:
        return [("", good)]
    labels = [
        ", ".join(f"{name}={value_text(row[name])}" for name in others)
        for row in good.to_dict("records")
    ]
    return [(label, good[[at == label for at in labels]]) for label in dict.fromkeys(labels)]


def _save(figure: "Figure", path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
