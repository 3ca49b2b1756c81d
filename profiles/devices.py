"""What a trace says about one device, in numbers: `device_findings`.

A device's span goes from the first start to the last end of what it ran. It is busy while anything
runs (the union of kernels, copies and sets), and otherwise idle. A share is of the span unless
noted. The time of a class or a kernel is the sum over its activities, so two at once count twice.
None is what the trace cannot tell.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from profiles.gaps import HISTOGRAM_EDGES_S, Doing, Gaps, doing_s, gaps_of, histogram
from profiles.intervals import Bools, Floats, Ints, covered_s, only_s, span_s
from profiles.kernels import CLASSES, KernelClass
from profiles.steps import DeviceSteps, Ownership, device_steps, ownership
from profiles.trace import NOWHERE, Device, StepKind, Trace

LONGEST = 10
SIZES = 12  # how many groups of steps of equal size to report, those with the most time
OUTSIDE = "outside"  # the step kind of work that no engine step launched
KINDS = (StepKind.PREFILL, StepKind.MIXED, StepKind.DECODE, StepKind.EMPTY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The gaps of some range of lengths."""

    from_s: float
    to_s: float | None
    count: int
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LongGap:
    start_s: float  # after the device's first start
    length_s: float
    before: str  # the activity that ended
    after: str  # the activity that began then
    step_kind: str  # of the step that `after` belongs to
    step_requests: int | None
    opens_step: bool  # whether `after` is the first activity of that step
    cpu_s: float | None  # the part in which the GPU waited for the CPU
    doing: str | None  # what the CPU did for most of that part


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How the GPU waited for the CPU: its idle time until the next launch call had returned."""

    cpu_s: float
    cpu_frac: float
    by_doing_s: dict[str, float]  # cpu_s by what the CPU did
    queued_s: float  # the rest of the idle time, in which work was queued already


@dataclass(frozen=True, slots=True, kw_only=True)
class StepGroup:
    """Engine steps of one kind, or of one kind with the same number of requests."""

    kind: str
    requests: int | None  # None: any
    num_steps: int
    requests_p50: float
    tokens_p50: float
    time_total_s: float
    time_mean_s: float
    time_p50_s: float
    busy_mean_s: float
    busy_p50_s: float
    idle_mean_s: float
    wait_before_p50_s: float  # the gap before the step's first activity
    range_p50_s: float  # the length of the step's range on the CPU
    overlapped_frac: float  # share of steps that the CPU began before the previous one had ended
    cpu_wait_total_s: float | None
    cpu_wait_mean_s: float | None
    cpu_wait_p50_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassUse:
    """A class of kernels on a device."""

    name: str
    time_s: float
    frac: float  # of the time of all classes
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelUse:
    """A kernel on a device, within the steps of one kind."""

    name: str
    class_name: str
    step_kind: str
    count: int
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Communication:
    time_s: float  # while at least one collective runs
    frac: float
    exposed_s: float  # … and nothing else does
    exposed_frac: float
    waiting_s: float | None  # for other ranks to begin; a sum over collectives


@dataclass(frozen=True, slots=True, kw_only=True)
class Launches:
    """Work launched one by one, or as nodes of CUDA graphs."""

    in_graphs: bool
    activities: int
    calls: int
    call_s: float  # the CPU's time in those calls, including the profiler's own cost
    call_s_per_activity: float | None
    idle_s: float  # in gaps that end with such work


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFindings:
    label: str
    model: str | None
    is_gpu: bool
    span_s: float
    busy_s: float
    busy_frac: float
    idle_frac: float
    activities: int
    gap_count: int
    gap_bins: tuple[Bin, ...]
    longest_gaps: tuple[LongGap, ...]
    waits: Waits | None
    step_kinds: tuple[StepGroup, ...]
    step_sizes: tuple[StepGroup, ...]
    classes: tuple[ClassUse, ...]
    kernels: tuple[KernelUse, ...]
    communication: Communication | None
    launches: tuple[Launches, ...]


def device_findings(device: Device, trace: Trace, waiting_s: float | None) -> DeviceFindings:
    """All findings of a device; `waiting_s`: its time in collectives before the last rank began."""
    activities = device.activities
    span = span_s(activities.intervals)
    busy = covered_s(activities.intervals)
    gaps = gaps_of(activities, trace.calls)
    owned = ownership(device, trace)
    steps = device_steps(device, owned, gaps)
    doing = doing_s(gaps, device, trace)
    counts, totals = histogram(gaps.length_s)
    explains = device.is_gpu and len(trace.calls) > 0
    return DeviceFindings(
        label=device.label,
        model=device.model,
        is_gpu=device.is_gpu,
        span_s=span,
        busy_s=busy,
        busy_frac=_share(busy, span),
        idle_frac=1.0 - _share(busy, span) if span else 0.0,
        activities=len(activities),
        gap_count=len(gaps),
        gap_bins=_bins(counts, totals),
        longest_gaps=tuple(_longest(device, trace, gaps, owned, doing, explains)),
        waits=_waits(gaps, doing, span) if explains else None,
        step_kinds=tuple(_step_kinds(steps, explains)),
        step_sizes=tuple(_step_sizes(steps, explains)),
        classes=tuple(_classes(device, trace)),
        kernels=tuple(_kernels(device, trace, owned)),
        communication=_communication(device, trace, span, waiting_s),
        launches=tuple(_launches(device, trace, gaps)) if explains else (),
    )


def _bins(counts: Ints, totals: Floats) -> tuple[Bin, ...]:
    edges: list[float | None] = [*HISTOGRAM_EDGES_S, None]
    return tuple(
        Bin(from_s=edges[i] or 0.0, to_s=edges[i + 1], count=int(counts[i]), total_s=float(total))
        for i, total in enumerate(totals)
    )


def _longest(
    device: Device,
    trace: Trace,
    gaps: Gaps,
    owned: Ownership,
    doing: dict[Doing, Floats],
    explains: bool,
) -> Iterator[LongGap]:
    activities, steps = device.activities, owned.steps
    kinds = steps.kinds
    requests = steps.context_requests + steps.generation_requests
    for gap in np.argsort(-gaps.length_s, kind="stable")[:LONGEST]:
        step = owned.of[gaps.after[gap]]
        is_owned = step != NOWHERE
        most = max(doing, key=lambda each: doing[each][gap])
        told = explains and bool(gaps.known[gap])
        yield LongGap(
            start_s=float(gaps.start_s[gap] - activities.start_s[0]),
            length_s=float(gaps.length_s[gap]),
            before=trace.names.text[activities.name[gaps.before[gap]]],
            after=trace.names.text[activities.name[gaps.after[gap]]],
            step_kind=str(kinds[step]) if is_owned else OUTSIDE,
            step_requests=int(requests[step]) if is_owned else None,
            opens_step=bool(is_owned and step not in owned.of[: gaps.after[gap]]),
            cpu_s=float(gaps.cpu_s[gap]) if told else None,
            doing=str(most) if told and gaps.cpu_s[gap] > 0 else None,
        )


def _waits(gaps: Gaps, doing: dict[Doing, Floats], span: float) -> Waits:
    cpu_s = float(gaps.cpu_s.sum())
    return Waits(
        cpu_s=cpu_s,
        cpu_frac=_share(cpu_s, span),
        by_doing_s={str(each): max(0.0, float(part.sum())) for each, part in doing.items()},
        queued_s=float(gaps.length_s.sum()) - cpu_s,
    )


def _step_kinds(steps: DeviceSteps, explains: bool) -> Iterator[StepGroup]:
    kinds = np.array(steps.kind, dtype=object)
    for kind in KINDS:
        if (chosen := kinds == kind).any():
            yield _group(steps, chosen, kind, None, explains)


def _step_sizes(steps: DeviceSteps, explains: bool) -> list[StepGroup]:
    """Steps grouped by kind and number of requests; the SIZES groups with the most time."""
    kinds = np.array(steps.kind, dtype=object)
    groups = [
        _group(steps, chosen & (steps.requests == requests), kind, int(requests), explains)
        for kind in KINDS
        if (chosen := kinds == kind).any()
        for requests in np.unique(steps.requests[chosen])
    ]
    return sorted(groups, key=lambda group: -group.time_total_s)[:SIZES]


def _group(
    steps: DeviceSteps, chosen: Bools, kind: str, requests: int | None, explains: bool
) -> StepGroup:
    time_s, busy_s = steps.time_s[chosen], steps.busy_s[chosen]
    cpu_wait_s = steps.cpu_wait_s[chosen]
    return StepGroup(
        kind=str(kind),
        requests=requests,
        num_steps=int(chosen.sum()),
        requests_p50=float(np.median(steps.requests[chosen])),
        tokens_p50=float(np.median(steps.tokens[chosen])),
        time_total_s=float(time_s.sum()),
        time_mean_s=float(time_s.mean()),
        time_p50_s=float(np.median(time_s)),
        busy_mean_s=float(busy_s.mean()),
        busy_p50_s=float(np.median(busy_s)),
        idle_mean_s=float(steps.idle_s[chosen].mean()),
        wait_before_p50_s=float(np.median(steps.wait_before_s[chosen])),
        range_p50_s=float(np.median(steps.range_s[chosen])),
        overlapped_frac=float(steps.overlapped[chosen].mean()),
        cpu_wait_total_s=float(cpu_wait_s.sum()) if explains else None,
        cpu_wait_mean_s=float(cpu_wait_s.mean()) if explains else None,
        cpu_wait_p50_s=float(np.median(cpu_wait_s)) if explains else None,
    )


def _classes(device: Device, trace: Trace) -> list[ClassUse]:
    class_id = trace.names.class_id[device.activities.name]
    time_s = np.bincount(class_id, device.activities.self_s, len(CLASSES))
    count = np.bincount(class_id, minlength=len(CLASSES))
    uses = [
        ClassUse(
            name=str(klass),
            time_s=float(time_s[i]),
            frac=_share(float(time_s[i]), float(time_s.sum())),
            count=int(count[i]),
        )
        for i, klass in enumerate(CLASSES)
        if count[i]
    ]
    return sorted(uses, key=lambda use: -use.time_s)


def _kernels(device: Device, trace: Trace, owned: Ownership) -> list[KernelUse]:
    """Kernels by name and step kind: each such pair gets a number, and the numbers are counted."""
    activities, names = device.activities, trace.names
    words = [*map(str, KINDS), OUTSIDE]
    of_step = np.array([words.index(kind) for kind in owned.steps.kinds], np.int64)
    kind = np.full(len(activities), len(words) - 1)
    mine = owned.of != NOWHERE
    kind[mine] = of_step[owned.of[mine]]
    pair = activities.name * len(words) + kind
    count = np.bincount(pair)
    time_s = np.bincount(pair, activities.self_s)
    uses = [
        KernelUse(
            name=names.text[each // len(words)],
            class_name=str(CLASSES[names.class_id[each // len(words)]]),
            step_kind=words[each % len(words)],
            count=int(count[each]),
            time_s=float(time_s[each]),
        )
        for each in np.flatnonzero(count)
    ]
    return sorted(uses, key=lambda use: -use.time_s)


def _communication(
    device: Device, trace: Trace, span: float, waiting_s: float | None
) -> Communication | None:
    mine = trace.names.of_class[KernelClass.COMMUNICATION][device.activities.name]
    if not mine.any():
        return None
    theirs, others = device.activities.intervals[mine], device.activities.intervals[~mine]
    time_s = covered_s(theirs)
    exposed_s = min(time_s, only_s(theirs, others))  # rounding may make it larger
    return Communication(
        time_s=time_s,
        frac=_share(time_s, span),
        exposed_s=exposed_s,
        exposed_frac=_share(exposed_s, span),
        waiting_s=waiting_s,
    )


def _launches(device: Device, trace: Trace, gaps: Gaps) -> Iterator[Launches]:
    activities = device.activities
    for in_graphs in (False, True):
        chosen = (activities.in_graph == in_graphs) & (activities.call != NOWHERE)
        if not chosen.any():
            continue
        calls = np.unique(activities.call[chosen])
        call_s = float((trace.calls.end_s[calls] - trace.calls.start_s[calls]).sum())
        yield Launches(
            in_graphs=in_graphs,
            activities=int(chosen.sum()),
            calls=len(calls),
            call_s=call_s,
            call_s_per_activity=call_s / int(chosen.sum()),
            idle_s=float(gaps.length_s[chosen[gaps.after]].sum()),
        )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
