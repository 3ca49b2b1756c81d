"""The busiest moments of a trace as a picture.

Each device has one strip of everything it ran, and below it a lane for each class of kernel and one
for the gaps, all on one time axis.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from profiles.kernels import CLASSES, KernelClass
from profiles.markdown import percent, time
from profiles.strip import RESOLUTION, Piece, Row, Strip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which is distinguishable with any colour vision, and greys.
COLOURS: dict[KernelClass, str] = {
    KernelClass.GEMM: "#0072B2",
    KernelClass.ATTENTION: "#E69F00",
    KernelClass.COMMUNICATION: "#D55E00",
    KernelClass.ELEMENTWISE: "#009E73",
    KernelClass.CACHE: "#56B4E9",
    KernelClass.SAMPLING: "#CC79A7",
    KernelClass.COPY: "#B8A800",
    KernelClass.GRAPH: "#6A5ACD",
    KernelClass.OTHER: "#8C8C8C",
}
GAP = "#1A1A1A"
STRIP_HEIGHT, LANE_HEIGHT, SPACE = 2.2, 0.82, 0.9  # in lanes


def draw_strip(strip: Strip, title: str, path: Path) -> Path:
    """Write the picture.

    A piece shorter than a pixel is drawn one pixel wide, so the shares are given as numbers at the
    left of each lane.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    classes = [
        str(each) for each in CLASSES if any(str(each) in row.by_class for row in strip.rows)
    ]
    lanes = (STRIP_HEIGHT + len(classes) + 1 + SPACE) * len(strip.rows)
    figure = Figure(figsize=(12, 0.19 * lanes + 1.0), layout="constrained")
    FigureCanvasAgg(figure)
    plot = figure.subplots()
    top = 0.0
    labels: list[tuple[float, str, str]] = []
    for row in strip.rows:
        top = _device(plot, row, classes, top, labels)
    plot.set_yticks([place for place, _, _ in labels], [text for _, text, _ in labels], fontsize=8)
    for tick, (_, _, weight) in zip(plot.get_yticklabels(), labels, strict=True):
        tick.set_fontweight(weight)
    plot.set_ylim(top - SPACE, -0.3)
    plot.set_xlim(0, strip.length_s * 1e3)
    plot.tick_params(axis="y", length=0)
    plot.tick_params(axis="x", labelsize=8)
    plot.spines[["top", "right", "left"]].set_visible(False)
    plot.grid(axis="x", alpha=0.3)
    plot.set_axisbelow(True)
    plot.set_xlabel(
        f"ms: the busiest {time(strip.length_s)} of the trace, from {time(strip.start_s)} on;"
        f" gaps under {time(strip.length_s / RESOLUTION)} are not drawn",
        fontsize=8,
    )
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)
    return path


def _device(
    plot: "Axes", row: Row, classes: list[str], top: float, labels: list[tuple[float, str, str]]
) -> float:
    """Draw a device from `top` downwards; returns where the next one begins."""
    # The class with the most time first, so that it does not hide the shorter ones.
    for name in sorted(row.by_class, key=lambda name: -row.class_frac[name]):
        _draw(plot, row.by_class[name], COLOURS[KernelClass(name)], top, STRIP_HEIGHT)
    labels.append((top + STRIP_HEIGHT / 2, f"{row.label}: busy {percent(row.busy_frac)}", "bold"))
    top += STRIP_HEIGHT + 0.2
    for name in classes:
        _draw(plot, row.by_class.get(name, ()), COLOURS[KernelClass(name)], top, LANE_HEIGHT)
        share = percent(row.class_frac.get(name))
        labels.append((top + LANE_HEIGHT / 2, f"{name} {share}", "normal"))
        top += 1
    _draw(plot, row.gaps, GAP, top, LANE_HEIGHT)
    labels.append((top + LANE_HEIGHT / 2, f"gaps: idle {percent(1 - row.busy_frac)}", "normal"))
    return top + 1 + SPACE


def _draw(plot: "Axes", pieces: tuple[Piece, ...], colour: str, top: float, height: float) -> None:
    bars = [(piece.start_s * 1e3, piece.length_s * 1e3) for piece in pieces]
    plot.broken_barh(bars, (top, height), color=colour, linewidth=0.35)
