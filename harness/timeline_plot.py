"""A run's timeline as a picture: a panel for each kind of quantity, on one time axis."""

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.axes import axis_values, swept
from harness.plots import MADE_BY
from harness.study import SavedRun, Study
from harness.tables import heading
from harness.timeline import STEP_S, Floats, Series, timeline
from harness.units import named_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_RUNS = 20  # of a study; nobody looks at more pictures than that
SMOOTH_S = 0.5  # tokens arrive in steps, so a rate over less looks like a comb


def draw_timelines(study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw timeline-<run>.png for every good run of a study with at most `MAX_RUNS` runs.

    A picture newer than its run is kept.
    """
    about = study.about
    runs = [run for run in study.runs() if run.ok]
    if len(about["runs"]) > MAX_RUNS:
        return []
    drawn = []
    for run in runs:
        path = folder / f"timeline-{run.record['id']}.png"
        measured_ns = (run.folder / "run.json").stat().st_mtime_ns
        if not path.is_file() or path.stat().st_mtime_ns < measured_ns:
            folder.mkdir(exist_ok=True)
            mine = points[points["point"] == run.record["point"]]
            title = f"{heading(about, mine)}\n{_label(run, about)}"
            draw_timeline(timeline(run), title.replace("**", ""), path)
        drawn.append(path)
    return drawn


def _label(run: SavedRun, about: dict[str, Any]) -> str:
    """What distinguishes this run from the others."""
    values = axis_values(run.record, about["axes"])
    settings = named_values({column: values[column] for column in swept(about["axes"])})
    return ", ".join(filter(None, [settings, f"run {run.record['id']}"]))


def draw_timeline(series: Series, title: str, path: Path) -> Path:
    """Draw one picture: a panel for each kind of quantity, stacked on one time axis.

    Panels without data are left out. The window is shaded. While a GPU was throttled by power, heat
    or hardware, a red line runs along the top of the GPU panels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [panel for panel in _PANELS if any(_known(series, name) for name, _, _ in panel[1])]
    height = 1.35 * max(1, len(panels)) + 1.1
    figure = Figure(figsize=(10, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(fill(line, 120) for line in title.splitlines()), fontsize=10)
    plots = figure.subplots(max(1, len(panels)), 1, sharex=True, squeeze=False)[:, 0]
    for plot, (label, lines, is_share) in zip(plots, panels, strict=False):
        _panel(plot, series, label, lines, is_share=is_share)
    plots[0].set_xlim(series["t_s"][0], series["t_s"][-1] + STEP_S)
    plots[-1].set_xlabel("seconds since the window opened (shaded: the window)")
    figure.savefig(path, dpi=110, metadata=MADE_BY)
    return path


# axis label, lines (series, name for people, factor), whether it is a share with a maximum of 1.0
_Line = tuple[str, str, float]
_PANELS: tuple[tuple[str, tuple[_Line, ...], bool], ...] = (
    (
        "requests",
        (
            ("requests_in_flight", "in flight (client)", 1),
            ("requests_running", "running (server)", 1),
            ("requests_waiting", "waiting (server)", 1),
        ),
        False,
    ),
    ("output tok/s", (("output_tok_per_s", f"over {SMOOTH_S:g} s", 1),), False),
    ("KV cache, %", (("kv_cache_usage_frac", "in use", 100),), True),
    (
        "GPU, %",
        (
            ("sm_activity_frac", "SM activity", 100),
            ("dram_bandwidth_frac", "DRAM bandwidth", 100),
            ("tensor_activity_frac", "tensor cores", 100),
        ),
        True,
    ),
    ("power, W", (("power_instant_w", "all GPUs", 1),), False),
    ("SM clock, MHz", (("sm_clock_hz", "slowest GPU", 1e-6),), False),
    (
        "CPU, cores",
        (
            ("api_server_cpu_frac", "API server", 1),
            ("engine_core_cpu_frac", "engine core", 1),
            ("worker_cpu_frac", "worker", 1),
        ),
        False,
    ),
)
_OF_GPUS = ("sm_activity_frac", "power_instant_w", "sm_clock_hz")


def _panel(
    plot: "Axes", series: Series, label: str, lines: tuple[_Line, ...], *, is_share: bool
) -> None:
    shown = [line for line in lines if _known(series, line[0])]
    for name, told, factor in shown:
        values = series[name] * factor
        if name == "output_tok_per_s":
            plot.step(series["t_s"], values, where="post", color="0.8", lw=0.6)
            values = _smooth(values)
        plot.step(series["t_s"], values, where="post", lw=1.1, label=told)
    plot.set_ylabel(label, fontsize=8)
    plot.tick_params(labelsize=8)
    low, high = plot.get_ylim()
    plot.set_ylim(0, 106 if is_share and high > 50 else max(high, low + 1e-9) * 1.06)
    plot.axvspan(0, series["window_s"][0], color="tab:blue", alpha=0.07, lw=0)
    plot.grid(alpha=0.3)
    throttled = np.nan_to_num(series["throttled"]) > 0
    if lines[0][0] in _OF_GPUS and throttled.any():
        (line,) = plot.step(series["t_s"], np.where(throttled, 0.985, np.nan), where="post")
        line.set(transform=plot.get_xaxis_transform(), color="tab:red", lw=3, label="throttled")
    plot.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _known(series: Series, name: str) -> bool:
    return not bool(np.isnan(series[name]).all())


def _smooth(values: Floats) -> Floats:
    """Moving means over `SMOOTH_S` around each grid point; shorter at the ends."""
    width = min(round(SMOOTH_S / STEP_S), len(values))
    kernel = np.ones(width)
    sums = np.convolve(values, kernel, mode="same")
    counts = np.convolve(np.ones(len(values)), kernel, mode="same")
    return sums / counts
