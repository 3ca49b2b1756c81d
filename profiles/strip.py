"""The busiest window of a trace as strips to draw: one per device, by class, with its gaps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiles.intervals import Intervals, coverage, covered_s, gaps, union
from profiles.kernels import CLASSES
from profiles.trace import Device, Trace

WINDOW_S = 0.050
RESOLUTION = 2000  # pieces side by side in a window; closer ones are drawn as one
PLACES = 2000  # how many windows are tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Something to draw; `start_s` is relative to the window's start."""

    start_s: float
    length_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A device's strip."""

    label: str
    busy_frac: float
    by_class: dict[str, tuple[Piece, ...]]
    class_frac: dict[str, float]  # of the window, exactly; sums to over 1 if streams overlap
    gaps: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A window of the trace, the same for all devices."""

    start_s: float  # in the trace's time
    length_s: float
    rows: tuple[Row, ...]


def strip(trace: Trace, window_s: float = WINDOW_S) -> Strip:
    """The window in which all devices together are busiest."""
    everything = [device.activities.intervals for device in trace.devices]
    begin_s = min(float(each.start_s[0]) for each in everything)
    end_s = max(float(each.end_s.max()) for each in everything)
    length_s = min(window_s, end_s - begin_s) or window_s
    start_s = _busiest(everything, begin_s, end_s - length_s, length_s)
    rows = tuple(_row(device, trace, start_s, length_s) for device in trace.devices)
    return Strip(start_s=start_s, length_s=length_s, rows=rows)


def _busiest(
    everything: Sequence[Intervals], first_s: float, last_s: float, length: float
) -> float:
    places = np.linspace(first_s, last_s, PLACES)
    busy = [union(each) for each in everything]
    covered_s = sum(coverage(each, places + length) - coverage(each, places) for each in busy)
    return float(places[np.argmax(covered_s)])


def _row(device: Device, trace: Trace, start_s: float, length_s: float) -> Row:
    activities, end_s = device.activities, start_s + length_s
    inside = (activities.end_s > start_s) & (activities.start_s < end_s)
    starts = np.maximum(activities.start_s[inside], start_s) - start_s
    ends = np.minimum(activities.end_s[inside], end_s) - start_s
    shown = Intervals(starts, ends)
    class_id = trace.names.class_id[activities.name[inside]]
    least_s = length_s / RESOLUTION
    of_class = {str(CLASSES[each]): shown[class_id == each] for each in np.unique(class_id)}
    idle = gaps(_framed(shown, length_s))
    return Row(
        label=device.label,
        busy_frac=covered_s(shown) / length_s,
        by_class={name: _pieces(_blurred(each, least_s)) for name, each in of_class.items()},
        class_frac={name: covered_s(each) / length_s for name, each in of_class.items()},
        gaps=_pieces(idle[idle.length_s >= least_s]),
    )


def _framed(of: Intervals, length_s: float) -> Intervals:
    """Adds an interval on either side of the window, so that idle time at its edges is a gap."""
    return Intervals(np.r_[-1.0, of.start_s, length_s], np.r_[0.0, of.end_s, length_s + 1.0])


def _blurred(of: Intervals, least_s: float) -> Intervals:
    """Joins intervals across gaps that are too short to see."""
    wide = union(Intervals(of.start_s, of.end_s + least_s))
    return Intervals(wide.start_s, wide.end_s - least_s)


def _pieces(of: Intervals) -> tuple[Piece, ...]:
    return tuple(
        Piece(start_s=float(start), length_s=float(length))
        for start, length in zip(of.start_s, of.length_s, strict=True)
    )
