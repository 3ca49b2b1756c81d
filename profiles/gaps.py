"""The times in which a device ran nothing: how long, between what, and because of what.

Work reaches a GPU through a CPU call. Let [a, b) be a gap and c the end of the call that launched
what runs at b. Until that call returned, the GPU waited for the CPU, so [a, min(b, c)) is the CPU's
part. The rest is the GPU's own: work was queued, but held up by a dependency, the launch itself or
another stream. Between two nodes of the same graph launch, the CPU has no part.

What the CPU did in its part is read from the thread that launches: the CUDA call it was in, or
otherwise whether it was inside an engine step's range or between two.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from profiles.intervals import (
    EMPTY,
    Bools,
    Floats,
    Intervals,
    Ints,
    intervals,
    joined,
    overlap_s,
    totals,
)
from profiles.trace import NOWHERE, Activities, Calls, Device, Trace

HISTOGRAM_EDGES_S = (0.0, 2e-6, 10e-6, 100e-6, 1e-3, 10e-3)


class Doing(StrEnum):
    """What the launching thread did while the GPU waited for it."""

    SYNCHRONISE = "synchronising with the GPU"
    LAUNCH = "in a launch call"
    COPY = "in a copy or set call"
    MEMORY = "allocating or freeing"
    CALL = "in another CUDA call"
    IN_STEP = "in Python inside an engine step"
    BETWEEN = "between engine steps"


# What a call is, by parts of its name; the first entry that matches decides.
CALL_WORDS: tuple[tuple[Doing, tuple[str, ...]], ...] = (
    (Doing.SYNCHRONISE, ("Synchronize",)),
    (Doing.LAUNCH, ("Launch",)),
    (Doing.COPY, ("Memcpy", "Memset")),
    (Doing.MEMORY, ("Alloc", "Free", "HostRegister")),
    (Doing.CALL, ("",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """All gaps of a device, by start; each column (n,)."""

    start_s: Floats
    end_s: Floats
    before: Ints  # index of the activity whose end begins the gap
    after: Ints  # index of the activity whose start ends it
    cpu_s: Floats  # the CPU's part; 0 if the launching call is unknown
    known: Bools  # whether the launching call is known

    @property
    def length_s(self) -> Floats:
        return self.end_s - self.start_s

    def __len__(self) -> int:
        return len(self.start_s)


def gaps_of(activities: Activities, calls: Calls) -> Gaps:
    """The gaps inside a device's span."""
    if not len(activities):
        empty, none = np.empty(0), np.empty(0, np.int64)
        return Gaps(
            start_s=empty,
            end_s=empty,
            before=none,
            after=none,
            cpu_s=empty,
            known=np.empty(0, np.bool_),
        )
    reached_s = np.maximum.accumulate(activities.end_s)
    is_last = np.r_[True, activities.end_s[1:] > reached_s[:-1]]  # to end, of all so far
    last = np.maximum.accumulate(np.where(is_last, np.arange(len(activities)), 0))
    after = np.flatnonzero(activities.start_s[1:] > reached_s[:-1]) + 1
    before = last[after - 1]
    start_s, end_s = reached_s[after - 1], activities.start_s[after]
    call = activities.call[after]
    known = call != NOWHERE
    cpu_s = np.zeros(len(after))
    if len(calls):
        late = known & (call != activities.call[before])
        launched_s = np.where(late, calls.end_s[np.where(late, call, 0)], start_s)
        cpu_s = np.clip(launched_s, start_s, end_s) - start_s
    return Gaps(start_s=start_s, end_s=end_s, before=before, after=after, cpu_s=cpu_s, known=known)


def doing_s(gaps: Gaps, device: Device, trace: Trace) -> dict[Doing, Floats]:
    """What the launching thread did in the CPU's part of each gap; the parts add up to `cpu_s`.

    Calls may be nested; each moment counts once, for the first of CALL_WORDS that matches.
    """
    waits = Intervals(gaps.start_s, gaps.start_s + gaps.cpu_s)
    so_far, told_s = EMPTY, np.zeros(len(gaps))
    found: dict[Doing, Floats] = {}
    layers = [*_calls_by_kind(device, trace), (Doing.IN_STEP, _step_ranges(device, trace))]
    for doing, when in layers:
        so_far = joined((so_far, when))
        covered_s = overlap_s(waits, so_far)
        found[doing] = covered_s - told_s
        told_s = covered_s
    found[Doing.BETWEEN] = gaps.cpu_s - told_s
    return found


def _calls_by_kind(device: Device, trace: Trace) -> list[tuple[Doing, Intervals]]:
    calls = trace.calls
    mine = (calls.process == device.process) & (calls.thread == device.thread)
    kind_of_name = np.array([_kind(name) for name in trace.call_names], np.int64)
    kind = kind_of_name[calls.name] if len(calls) else np.empty(0, np.int64)
    return [
        (doing, Intervals(calls.start_s, calls.end_s)[mine & (kind == index)])
        for index, (doing, _) in enumerate(CALL_WORDS)
    ]


def _kind(name: str) -> int:
    return next(i for i, (_, words) in enumerate(CALL_WORDS) if any(w in name for w in words))


def _step_ranges(device: Device, trace: Trace) -> Intervals:
    steps = trace.steps.of_process(device.process)
    return intervals(steps.start_s, steps.end_s)


def histogram(length_s: Floats) -> tuple[Ints, Floats]:
    """The number of gaps in each bin of HISTOGRAM_EDGES_S, and their total time."""
    place = np.searchsorted(HISTOGRAM_EDGES_S, length_s, side="right") - 1
    bins = len(HISTOGRAM_EDGES_S)
    return np.bincount(place, minlength=bins).astype(np.int64), totals(place, length_s, bins)
