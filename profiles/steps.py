"""Engine steps on a device: which work belongs to which step, and how long each took.

A step owns what its process launched from the start of its range to the start of the next one:
sampling comes after the range, but is part of the step. On a device without launches (operators of
the CPU), a step owns what began in that time. A step lasts from the previous step's end on the
device to its own, waiting included, so that the steps together make up the device's span.
"""

from dataclasses import dataclass

import numpy as np

from profiles.gaps import Gaps
from profiles.intervals import Bools, Floats, Ints, intervals, totals, union
from profiles.trace import NOWHERE, Device, StepKind, Steps, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSteps:
    """The steps of one device that ran anything there; each column (n,)."""

    kind: tuple[StepKind, ...]
    requests: Ints
    tokens: Ints
    range_s: Floats  # the length of the range on the CPU
    overlapped: Bools  # whether that began while the previous step still ran on the device
    time_s: Floats
    busy_s: Floats  # the union of what it owns
    idle_s: Floats  # gaps that end with something it owns
    cpu_wait_s: Floats  # the CPU's part of these gaps
    wait_before_s: Floats  # the gap before its first activity

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """`of[i]` is the index in `steps` of the step that owns activity i, or NOWHERE."""

    steps: Steps
    of: Ints


def ownership(device: Device, trace: Trace) -> Ownership:
    """Which engine step each activity of a device belongs to."""
    steps = trace.steps.of_process(device.process)
    if not len(steps):
        return Ownership(steps=steps, of=np.full(len(device.activities), NOWHERE))
    call = device.activities.call
    if device.is_gpu:
        if not len(trace.calls):
            return Ownership(steps=steps, of=np.full(len(call), NOWHERE))
        known = call != NOWHERE
        begun_s = trace.calls.start_s[np.where(known, call, 0)]
        theirs = known & (trace.calls.process[np.where(known, call, 0)] == device.process)
    else:
        begun_s, theirs = device.activities.start_s, np.ones(len(call), np.bool_)
    place = np.searchsorted(steps.start_s, begun_s, side="right") - 1  # −1 before the first
    return Ownership(steps=steps, of=np.where(theirs, place, NOWHERE))


def device_steps(device: Device, owned: Ownership, gaps: Gaps) -> DeviceSteps:
    """The steps, in the order in which they end on the device."""
    activities, steps = device.activities, owned.steps
    mine = np.flatnonzero(owned.of != NOWHERE)
    present = np.unique(owned.of[mine])
    first_s, last_s = np.full(len(steps), np.inf), np.full(len(steps), -np.inf)
    np.minimum.at(first_s, owned.of[mine], activities.start_s[mine])
    np.maximum.at(last_s, owned.of[mine], activities.end_s[mine])
    idle_s, cpu_wait_s, before_s = _waits(gaps, owned, activities.start_s, first_s)
    busy_s = _busy_s(activities.start_s[mine], activities.end_s[mine], owned.of[mine], len(steps))

    order = present[np.argsort(last_s[present], kind="stable")]
    began_s = activities.start_s[0] if len(activities) else 0.0
    kinds = steps.kinds
    return DeviceSteps(
        kind=tuple(kinds[step] for step in order),
        requests=(steps.context_requests + steps.generation_requests)[order],
        tokens=(steps.context_tokens + steps.generation_tokens)[order],
        range_s=(steps.end_s - steps.start_s)[order],
        overlapped=steps.start_s[order] < np.r_[-np.inf, last_s[order][:-1]],
        time_s=np.diff(last_s[order], prepend=began_s),
        busy_s=busy_s[order],
        idle_s=idle_s[order],
        cpu_wait_s=cpu_wait_s[order],
        wait_before_s=before_s[order],
    )


def _waits(
    gaps: Gaps, owned: Ownership, start_s: Floats, first_s: Floats
) -> tuple[Floats, Floats, Floats]:
    """For each step: the gaps that end in it, the CPU's part of them, and the gap before it."""
    num = len(owned.steps)
    owner = owned.of[gaps.after]
    ends_in_one = owner != NOWHERE
    owner = owner[ends_in_one]
    length_s = gaps.length_s[ends_in_one]
    is_first = start_s[gaps.after[ends_in_one]] == first_s[owner]
    return (
        totals(owner, length_s, num),
        totals(owner, gaps.cpu_s[ends_in_one], num),
        totals(owner, length_s * is_first, num),
    )


def _busy_s(start_s: Floats, end_s: Floats, owner: Ints, num: int) -> Floats:
    """The length of the union for each owner.

    Each owner's intervals are shifted to a separate range of time, so that one union serves all.
    They cover the middle two thirds of it, so that rounding moves none into a neighbour's.
    """
    if not len(start_s):
        return np.zeros(num)
    origin_s = start_s.min()
    apart_s = (end_s.max() - origin_s) * 1.5
    shift_s = owner * apart_s - origin_s + apart_s / 6
    busy = union(intervals(start_s + shift_s, end_s + shift_s))
    return totals((busy.start_s // apart_s).astype(np.int64), busy.length_s, num)
