"""Two plots: every probe under the roofline of its card, and the steady state over time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.hardware.ceilings import Ceilings
from harness.hardware.probes.record import Measurement
from monitors.nvml import THROTTLING, UNKNOWN_REASONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INTENSITIES = (0.05, 20_000.0)  # FLOP per byte: the range of the axis
NAMED = ("kernels.", "memory.triad", "gemm.bf16.max", "gemm.fp8.max", "gemm.int8.16384")


def draw_roofline(measurements: Sequence[Measurement], title: str, path: Path) -> Path | None:
    """Plot FLOP/s over intensity for all probes that have both; None if no card has a roof.

    Roofs are measured: the best of read, copy and triad, and the best product of each precision.
    """
    gpus = sorted({told.gpus[0] for told in measurements if len(told.gpus) == 1})
    ceilings = Ceilings(measurements)
    gpus = [gpu for gpu in gpus if ceilings.memory_bytes_per_s(gpu) and ceilings.flops_per_s(gpu)]
    if not gpus:
        return None
    figure, (plot,) = _figure(1, (9, 6), title)
    plot.set_xscale("log")
    plot.set_yscale("log")
    for place, gpu in enumerate(gpus):
        color = f"C{place}"
        _roofs(plot, ceilings, gpu, color)
        _points(plot, measurements, gpu, color, named=place == 0)
    plot.set_xlabel("arithmetic intensity, FLOP per byte of memory")
    plot.set_ylabel("TFLOP/s")
    plot.set_xlim(*INTENSITIES)
    plot.grid(alpha=0.3, which="both", lw=0.4)
    plot.legend(fontsize=8, loc="lower right")
    return _saved(figure, path)


def _roofs(plot: "Axes", ceilings: Ceilings, gpu: int, color: str) -> None:
    memory = ceilings.memory_bytes_per_s(gpu) or 0.0
    x = np.geomspace(*INTENSITIES, 400)
    for precision, style in (("bf16", "-"), ("fp8", "--")):
        flops = ceilings.flops_per_s(gpu, precision)
        if flops:
            told = f"GPU {gpu}: {memory / 1e12:.2f} TB/s, {precision} {flops / 1e12:,.0f} TFLOP/s"
            roof = np.minimum(x * memory, flops) / 1e12
            plot.plot(x, roof, style, color=color, lw=1.2, label=told)


def _points(
    plot: "Axes", measurements: Sequence[Measurement], gpu: int, color: str, *, named: bool
) -> None:
    for told in measurements:
        if told.gpus != (gpu,) or not (told.flops and told.moved_bytes and told.time_s):
            continue
        at = (told.flops / told.moved_bytes, told.flops / told.time_s / 1e12)
        is_kernel = told.name.startswith("kernels.")
        plot.plot(*at, "o" if is_kernel else ".", color=color, ms=6 if is_kernel else 4, alpha=0.7)
        if named and told.name.startswith(NAMED):
            label = told.name.removeprefix("kernels.")
            plot.annotate(label, at, xytext=(5, -9), textcoords="offset points", fontsize=7)


def draw_steady_state(
    series: Mapping[int, Mapping[str, Sequence[float]]],
    samples: Mapping[str, Any],
    title: str,
    path: Path,
) -> Path | None:
    """Plot rate, clock, power and temperature of each card; None if no card has a series.

    `series` is by GPU; `samples` are the monitor's. A red line at the top marks where the card was
    slowed by power or heat.
    """
    if not series:
        return None
    began_at_s = min(told["at_s"][0] for told in series.values())
    figure, plots = _figure(4, (9, 8), title)
    for place, (gpu, told) in enumerate(sorted(series.items())):
        style: dict[str, Any] = {"color": f"C{place}", "lw": 1}
        at_s = np.array(told["at_s"]) - began_at_s
        plots[0].plot(at_s, np.array(told["flops_per_s"]) / 1e12, label=f"GPU {gpu}", **style)
        if "at_s" in samples:
            _sensors(plots[1:], samples, gpu, began_at_s, style)
    labels = ("bf16 TFLOP/s", "SM clock, MHz", "power, W", "temperature, °C")
    for plot, label in zip(plots, labels, strict=True):
        plot.set_ylabel(label, fontsize=8)
        plot.grid(alpha=0.3)
    plots[0].legend(fontsize=8, loc="lower right")
    plots[-1].set_xlabel("seconds")
    return _saved(figure, path)


def _sensors(
    plots: "Sequence[Axes]",
    samples: Mapping[str, Any],
    gpu: int,
    began_at_s: float,
    style: Mapping[str, Any],
) -> None:
    mine = samples["gpu"] == gpu
    at_s = samples["at_s"][mine] - began_at_s
    names = (("sm_clock_hz", 1e-6), ("power_instant_w", 1.0), ("temperature_c", 1.0))
    for plot, (name, factor) in zip(plots, names, strict=True):
        plot.plot(at_s, samples[name][mine] * factor, **style)
    reasons = samples["throttle_reasons"][mine]
    is_braked = (reasons & THROTTLING != 0) & (reasons & UNKNOWN_REASONS == 0)
    top = plots[0].get_xaxis_transform()
    plots[0].plot(at_s, np.where(is_braked, 0.97, np.nan), color="tab:red", lw=3, transform=top)
    plots[0].set_title("red: slowed by power or heat", fontsize=7, loc="right", pad=2)


def _figure(rows: int, size: tuple[float, float], title: str) -> "tuple[Figure, Sequence[Axes]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    return figure, list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])


def _saved(figure: "Figure", path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
