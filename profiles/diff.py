"""Two profiles of the same point, compared.

Captures never have the same number of steps, so times are compared per engine step of a kind (a
mean over the devices), or per second of the trace if steps are not named. Changes are ordered by
their share of all change: |after − before| over its sum.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from profiles.devices import StepGroup
from profiles.findings import Findings
from profiles.markdown import percent, plural, shortened, signed, signed_percent, table, time, whole
from profiles.trace import StepKind

SAME = 0.02  # a relative change up to this counts as none
EVERYTHING = "second of the trace"  # the kind to use if no step is named
FEW = 5  # a mean of fewer steps says little
SIZES_APART = 0.1
TOLD_KERNELS = 20
NEGLIGIBLE = 0.001  # share of the change: smaller ones are left out of the page


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A class or a kernel, per step."""

    name: str
    class_name: str
    status: str  # grew | shrank | same | new | gone
    before_s: float
    after_s: float
    count_before: float
    count_after: float
    change_frac: float  # its share of all change

    @property
    def delta_s(self) -> float:
        return self.after_s - self.before_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The steps of a kind in one of the two profiles; a mean over the devices."""

    num_steps: float
    requests_p50: float
    time_s: float  # per step, like all below
    busy_s: float
    idle_s: float
    cpu_wait_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDiff:
    kind: str
    before: Side
    after: Side
    classes: tuple[Change, ...]
    kernels: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    before: str  # source of the findings
    after: str
    steps: tuple[StepDiff, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def diff(before: Findings, after: Findings) -> Diff:
    """What changed from one profile to the other."""
    both = before, after
    named = all(any(device.step_kinds for device in each.devices) for each in both)
    kinds = _common_kinds(before, after) if named else [EVERYTHING]
    steps = tuple(_step_diff(kind, before, after) for kind in kinds)
    return Diff(
        before=before.source,
        after=after.source,
        steps=steps,
        notes=tuple(_notes(before, after, steps, named)),
    )


def _common_kinds(before: Findings, after: Findings) -> list[str]:
    """The step kinds that both have, in order of their time in the first."""
    time_s: dict[str, float] = {}
    for device in before.devices:
        for group in device.step_kinds:
            time_s[group.kind] = time_s.get(group.kind, 0.0) + group.time_total_s
    later = {group.kind for device in after.devices for group in device.step_kinds}
    return sorted(time_s.keys() & later, key=lambda kind: -time_s[kind])


def _step_diff(kind: str, before: Findings, after: Findings) -> StepDiff:
    sides = _side(kind, before), _side(kind, after)
    uses = [_per_step(kind, each, side) for each, side in zip((before, after), sides, strict=True)]
    by_class = [_by_class(each) for each in uses]
    return StepDiff(
        kind=kind,
        before=sides[0],
        after=sides[1],
        classes=_changes(*by_class),
        kernels=_changes(*uses),
    )


Use = tuple[float, float]  # time_s and count, per step
Uses = Mapping[tuple[str, str], Use]  # by name and class


def _side(kind: str, findings: Findings) -> Side:
    devices = findings.devices
    if kind == EVERYTHING:
        waits = [d.waits.cpu_frac for d in devices if d.waits]
        return Side(
            num_steps=_mean(d.span_s for d in devices),
            requests_p50=0.0,
            time_s=1.0,
            busy_s=_mean(d.busy_frac for d in devices),
            idle_s=_mean(d.idle_frac for d in devices),
            cpu_wait_s=_mean(waits) if waits else None,
        )
    groups = [group for d in devices for group in d.step_kinds if group.kind == kind]
    waits = [group.cpu_wait_mean_s for group in groups if group.cpu_wait_mean_s is not None]
    return Side(
        num_steps=_mean(group.num_steps for group in groups),
        requests_p50=_mean(group.requests_p50 for group in groups),
        time_s=_mean(group.time_mean_s for group in groups),
        busy_s=_mean(group.busy_mean_s for group in groups),
        idle_s=_mean(group.idle_mean_s for group in groups),
        cpu_wait_s=_mean(waits) if waits else None,
    )


def _per_step(kind: str, findings: Findings, side: Side) -> Uses:
    steps = side.num_steps * len([d for d in findings.devices if _has(d.step_kinds, kind)])
    totals: dict[tuple[str, str], Use] = {}
    for device in findings.devices:
        for use in device.kernels:
            if kind in (use.step_kind, EVERYTHING):
                time_s, count = totals.get((use.name, use.class_name), (0.0, 0.0))
                key = use.name, use.class_name
                totals[key] = (time_s + use.time_s, count + use.count)
    return {key: (time_s / steps, count / steps) for key, (time_s, count) in totals.items()}


def _has(groups: Sequence[StepGroup], kind: str) -> bool:
    return kind == EVERYTHING or any(group.kind == kind for group in groups)


def _by_class(uses: Uses) -> Uses:
    totals: dict[tuple[str, str], Use] = {}
    for (_, klass), (time_s, count) in uses.items():
        before_s, before = totals.get((klass, klass), (0.0, 0.0))
        totals[klass, klass] = (before_s + time_s, before + count)
    return totals


def _changes(before: Uses, after: Uses) -> tuple[Change, ...]:
    """All changes, those with the largest share first."""
    nothing: Use = (0.0, 0.0)
    pairs = {
        key: (before.get(key, nothing), after.get(key, nothing)) for key in {**before, **after}
    }
    change_s = sum(abs(later[0] - earlier[0]) for earlier, later in pairs.values()) or 1.0
    changes = [
        Change(
            name=name,
            class_name=klass,
            status=_status(earlier, later),
            before_s=earlier[0],
            after_s=later[0],
            count_before=earlier[1],
            count_after=later[1],
            change_frac=abs(later[0] - earlier[0]) / change_s,
        )
        for (name, klass), (earlier, later) in pairs.items()
    ]
    return tuple(sorted(changes, key=lambda change: (-change.change_frac, change.name)))


def _status(before: Use, after: Use) -> str:
    if before[1] == 0:
        return "new"
    if after[1] == 0:
        return "gone"
    if abs(after[0] - before[0]) <= SAME * before[0]:
        return "same"
    return "grew" if after[0] > before[0] else "shrank"


def _notes(
    before: Findings, after: Findings, steps: Sequence[StepDiff], named: bool
) -> Iterable[str]:
    if len(before.devices) != len(after.devices):
        yield (
            f"{len(before.devices)} and {len(after.devices)} devices: a device's share of the model"
            " is not the same"
        )
    if _has_gpu(before) != _has_gpu(after):
        yield "one is of GPUs and the other of operators on a CPU: little can be compared"
    if not named:
        yield "no engine steps are named in both, so all is per second of the trace"
    elif not steps:
        yield "no kind of engine step is in both"
    for each in steps:
        if each.kind == EVERYTHING:
            continue
        if min(each.before.num_steps, each.after.num_steps) < FEW:
            yield f"few {each.kind} steps: their means may be chance"
        size, other = each.before.requests_p50, each.after.requests_p50
        if abs(size - other) > SIZES_APART * max(size, other):
            yield (
                f"the {each.kind} steps are not of one size: {size:.0f} and {other:.0f} requests"
                " (medians)"
            )


def _has_gpu(findings: Findings) -> bool:
    return any(device.is_gpu for device in findings.devices)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else 0.0


def page(told: Diff) -> str:
    """The diff as Markdown."""
    lines = [f"# {told.after} against {told.before}", ""]
    lines += [f"- {_sentence(each)}" for each in told.steps]
    lines += [f"- Note: {note}." for note in told.notes]
    lines.append("")
    for each in told.steps:
        unit = each.kind if each.kind == EVERYTHING else f"{each.kind} step"
        lines += [f"## Per {unit}", "", *_sides(each), *_table("class", each.classes)]
        kernels = [c for c in each.kernels if c.change_frac >= NEGLIGIBLE][:TOLD_KERNELS]
        lines += _table("kernel", kernels)
    return "\n".join(lines)


def _sentence(step: StepDiff) -> str:
    before, after = step.before, step.after
    if step.kind == EVERYTHING:
        head = f"Busy {percent(before.busy_s)} before and {percent(after.busy_s)} after"
    else:
        delta_s = after.time_s - before.time_s
        article = "An" if step.kind == StepKind.EMPTY else "A"
        head = (
            f"{article} {step.kind} step takes {time(after.time_s)} instead of "
            f"{time(before.time_s)} ({signed(delta_s)}, "
            f"{signed_percent(delta_s / (before.time_s or 1.0))}): busy "
            f"{signed(after.busy_s - before.busy_s)}, idle {signed(after.idle_s - before.idle_s)}"
        )
    moved = [c for c in step.classes if c.status != "same" and c.change_frac >= 0.1]
    parts = [f"{c.name} {signed(c.delta_s)} ({percent(c.change_frac)})" for c in moved]
    return f"{head}. Most of the change: {'; '.join(parts)}." if parts else f"{head}."


def _sides(step: StepDiff) -> list[str]:
    def row(name: str, before: float | None, after: float | None) -> list[str]:
        delta = "–" if before is None or after is None else signed(after - before)
        return [name, time(before), time(after), delta]

    before, after = step.before, step.after
    rows = [
        row("time", before.time_s, after.time_s),
        row("busy", before.busy_s, after.busy_s),
        row("idle", before.idle_s, after.idle_s),
        row("waits for the CPU", before.cpu_wait_s, after.cpu_wait_s),
    ]
    steps = plural(before.num_steps, "step"), plural(after.num_steps, "step")
    if step.kind == EVERYTHING:
        steps = time(before.num_steps), time(after.num_steps)
    return table(["mean", f"before ({steps[0]})", f"after ({steps[1]})", "change"], rows)


def _table(what: str, changes: Sequence[Change]) -> list[str]:
    rows = [
        [
            shortened(change.name),
            change.status,
            time(change.before_s),
            time(change.after_s),
            signed(change.delta_s),
            percent(change.change_frac),
            f"{_count(change.count_before)} → {_count(change.count_after)}",
        ]
        for change in changes
    ]
    head = [what, "", "before", "after", "change", "of all change", "count"]
    return table(head, rows, 2) if rows else []


def _count(count: float) -> str:
    return whole(count) if count >= 9.95 or count == round(count) else f"{count:.1f}"
