"""The findings as a Markdown page: sentences with numbers first, tables below."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from profiles.advice import advice, step_group
from profiles.devices import DeviceFindings, StepGroup
from profiles.findings import Findings
from profiles.markdown import edge, joined, percent, plural, shortened, table, time, whole
from profiles.trace import StepKind

TOP_KERNELS = 20
TOLD_FRAC = 0.10  # smaller parts of a whole are left to the tables


def page(findings: Findings) -> str:
    """The whole page."""
    return "\n".join([f"# Profile of {findings.source}", "", *summary(findings), *tables(findings)])


def summary(findings: Findings) -> list[str]:
    """The lines of the first part: what matters most, and what to try."""
    lines = [*(f"- {sentence}" for sentence in sentences(findings)), ""]
    if told := advice(findings):
        lines += ["## What to try", ""]
        lines += [
            f"{number}. **{each.try_[0].upper()}{each.try_[1:]}**: {each.because}."
            f" Here, {each.evidence}."
            for number, each in enumerate(told, 1)
        ]
        lines.append("")
    return lines


def tables(findings: Findings) -> list[str]:
    """The lines of the rest: all numbers that one may want."""
    lines = []
    for section in (_devices, _steps, _waits, _gaps, _classes, _kernels, _ranks, _launches):
        lines += section(findings)
    return [
        *lines,
        f"Taken with {findings.profiler}, which slows what it watches: shares and differences are "
        "to be trusted, absolute speeds are not.",
        "",
    ]


def sentences(findings: Findings) -> Iterator[str]:
    """What matters most, in reading order."""
    yield from findings.notes
    for device in findings.devices:
        yield _busy(device)
        yield from _waiting(device)
    if not findings.devices:
        return
    device = max(findings.devices, key=lambda each: each.idle_frac)
    yield from _decode(device)
    yield _by_class(device)
    yield from _communication(findings)
    yield from _launched(device)
    if not device.step_kinds:
        yield "No engine step is named in the trace, so nothing is told by step."


def _busy(device: DeviceFindings) -> str:
    model = f" ({device.model})" if device.model else ""
    longest = f"; its longest gap is {time(device.longest_gaps[0].length_s)}" * bool(
        device.longest_gaps
    )
    return (
        f"{device.label}{model} is busy {percent(device.busy_frac)} of {time(device.span_s)} and "
        f"idle {percent(device.idle_frac)}{longest}."
    )


def _waiting(device: DeviceFindings) -> Iterator[str]:
    waits = device.waits
    if waits is None or waits.cpu_s == 0:
        return
    groups = sorted(device.step_sizes, key=lambda group: -(group.cpu_wait_total_s or 0.0))
    parts = [
        f"{percent((group.cpu_wait_total_s or 0.0) / waits.cpu_s)} of that before or in "
        f"{_steps_of(group)}"
        for group in groups
        if (group.cpu_wait_total_s or 0.0) >= TOLD_FRAC * waits.cpu_s
    ]
    yield f"{device.label} waits for the CPU {percent(waits.cpu_frac)} of the time" + (
        f"; {joined(parts)}." if parts else "."
    )
    doing = sorted(waits.by_doing_s.items(), key=lambda each: -each[1])
    told = [
        f"{percent(part / waits.cpu_s)} {what}"
        for what, part in doing
        if part >= TOLD_FRAC * waits.cpu_s
    ]
    yield f"While {device.label} waits, the CPU thread that launches is {joined(told)}."


def _steps_of(group: StepGroup) -> str:
    median = "median " if group.num_steps > 1 else ""
    return (
        f"{group.kind} steps of {plural(group.requests or 0, 'request')} "
        f"({plural(group.num_steps, 'step')}, {median}{time(group.cpu_wait_p50_s)})"
    )


def _decode(device: DeviceFindings) -> Iterator[str]:
    decode = step_group(device, StepKind.DECODE)
    if decode is None:
        return
    ran = "the GPU is busy" if device.is_gpu else "operators run"
    waits = ""
    if decode.cpu_wait_p50_s is not None:
        waits = f" and waits for the CPU {time(decode.cpu_wait_p50_s)}"
    yield (
        f"A decode step on {device.label} takes {time(decode.time_p50_s)}, of which {ran} "
        f"{time(decode.busy_p50_s)}{waits} (medians of {whole(decode.num_steps)}, "
        f"{whole(decode.requests_p50)} requests)."
    )


def _by_class(device: DeviceFindings) -> str:
    told = [f"{each.name} {percent(each.frac)}" for each in device.classes if each.frac >= 0.05]
    what = "kernel" if device.is_gpu else "operator"
    return f"Of the {what} time on {device.label}: {'; '.join(told)}."


def _communication(findings: Findings) -> Iterator[str]:
    for device in findings.devices:
        told = device.communication
        if told is None:
            continue
        waiting = ""
        if told.waiting_s is not None:
            waiting = (
                f"; {percent(told.waiting_s / told.time_s)} of it ({time(told.waiting_s)}) is "
                "waiting for another rank to begin"
            )
        hidden = "all of it" if told.exposed_s >= 0.999 * told.time_s else "of which"
        exposed = "" if hidden == "all of it" else f" {percent(told.exposed_frac)}"
        yield (
            f"{device.label} communicates {percent(told.frac)} of the time, {hidden}{exposed} "
            f"while nothing else runs there{waiting}."
        )


def _launched(device: DeviceFindings) -> Iterator[str]:
    parts = [
        f"{whole(each.activities)} activities "
        + (f"as nodes of {plural(each.calls, 'graph')}" if each.in_graphs else "one by one")
        + f" ({time(each.call_s_per_activity)} of the CPU each)"
        for each in device.launches
    ]
    if parts:
        yield (
            f"The CPU launched {joined(parts)} on {device.label}; tracing makes launches dearer, "
            "most of all those of graphs whose nodes are traced."
        )


def _devices(findings: Findings) -> list[str]:
    rows = [
        [
            each.label,
            time(each.span_s),
            percent(each.busy_frac),
            percent(each.idle_frac),
            percent(each.waits.cpu_frac if each.waits else None),
            whole(each.activities),
            whole(each.gap_count),
        ]
        for each in findings.devices
    ]
    head = ["device", "span", "busy", "idle", "waits for CPU", "activities", "gaps"]
    return ["## Devices", "", *table(head, rows)]


def _steps(findings: Findings) -> list[str]:
    rows = [
        [
            device.label,
            group.kind,
            "any" if group.requests is None else str(group.requests),
            whole(group.num_steps),
            whole(group.tokens_p50),
            percent(group.time_total_s / device.span_s),
            time(group.time_p50_s),
            time(group.busy_p50_s),
            time(group.cpu_wait_p50_s),
            time(group.cpu_wait_total_s),
            time(group.range_p50_s),
        ]
        for device in findings.devices
        for group in (*device.step_kinds, *device.step_sizes[:6])
    ]
    if not rows:
        return []
    head = ["device", "steps", "requests", "n", "tokens", "of the time", "time p50", "busy p50"]
    head += ["CPU wait p50", "CPU wait total", "CPU range p50"]
    return ["## Engine steps", "", *table(head, rows, 2)]


def _waits(findings: Findings) -> list[str]:
    devices = [(device, device.waits) for device in findings.devices if device.waits]
    if not devices:
        return []
    names = [*devices[0][1].by_doing_s] if devices[0][1] else []
    rows = [
        [name, *(percent(waits.by_doing_s[name] / device.span_s) for device, waits in devices)]
        for name in names
    ]
    rows.append(
        ["work was queued", *(percent(w.queued_s / device.span_s) for device, w in devices)]
    )
    head = ["while the GPU is idle, the CPU is …", *(device.label for device, _ in devices)]
    return ["## Idle time, of the span", "", *table(head, rows)]


def _gaps(findings: Findings) -> list[str]:
    if not findings.devices:
        return []
    lines = ["## Gaps", ""]
    bins = [
        [
            f"{edge(each.from_s)} to {edge(each.to_s)}" if each.to_s else f"{edge(each.from_s)} on",
            *(
                f"{whole(device.gap_bins[index].count)} ({time(device.gap_bins[index].total_s)})"
                for device in findings.devices
            ),
        ]
        for index, each in enumerate(findings.devices[0].gap_bins)
    ]
    lines += table(["gap", *(device.label for device in findings.devices)], bins)
    device = max(findings.devices, key=lambda each: each.idle_frac)
    rows = [
        [
            time(gap.start_s),
            time(gap.length_s),
            shortened(gap.before, 40),
            shortened(gap.after, 40),
            f"{'opens ' if gap.opens_step else ''}{gap.step_kind}"
            + (f" of {gap.step_requests}" if gap.step_requests is not None else ""),
            time(gap.cpu_s),
            gap.doing or "–",
        ]
        for gap in device.longest_gaps
    ]
    head = [f"at, on {device.label}", "length", "after", "before", "step", "CPU's part", "CPU is …"]
    return [*lines, *table(head, rows, 0)]


def _classes(findings: Findings) -> list[str]:
    names: dict[str, None] = {}
    for device in findings.devices:
        names |= dict.fromkeys(each.name for each in device.classes)
    by_device = [{each.name: each for each in device.classes} for device in findings.devices]
    rows = [
        [
            name,
            *(
                f"{time(uses[name].time_s)} ({percent(uses[name].frac)}, {whole(uses[name].count)})"
                if name in uses
                else "–"
                for uses in by_device
            ),
        ]
        for name in names
    ]
    head = ["class: time (share, count)", *(device.label for device in findings.devices)]
    return ["## Kernels by class", "", *table(head, rows)]


def _kernels(findings: Findings) -> list[str]:
    """The kernels of the first device that take most time; the JSON has all."""
    if not findings.devices:
        return []
    device = findings.devices[0]
    uses: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for each in device.kernels:
        uses[each.name, each.class_name][0] += each.time_s
        uses[each.name, each.class_name][1] += each.count
    whole_s = sum(time_s for time_s, _ in uses.values()) or 1.0
    most = sorted(uses.items(), key=lambda item: -item[1][0])[:TOP_KERNELS]
    rows = [
        [
            shortened(name),
            klass,
            time(time_s),
            percent(time_s / whole_s),
            whole(count),
            time(time_s / count),
        ]
        for (name, klass), (time_s, count) in most
    ]
    head = [f"on {device.label}", "class", "time", "share", "count", "mean"]
    return ["## Kernels", "", *table(head, rows, 2)]


def _ranks(findings: Findings) -> list[str]:
    if not findings.skews:
        return []
    rows = [
        [
            joined(list(each.devices)),
            whole(each.collectives),
            time(each.skew_p50_s),
            time(each.skew_p99_s),
            time(each.skew_max_s),
            ", ".join(time(waiting) for waiting in each.waiting_s),
        ]
        for each in findings.skews
    ]
    head = ["ranks", "collectives", "skew p50", "p99", "max", "waited, each"]
    return ["## Ranks: how far apart they begin a collective", "", *table(head, rows)]


def _launches(findings: Findings) -> list[str]:
    rows: Sequence[list[str]] = [
        [
            device.label,
            "nodes of graphs" if each.in_graphs else "one by one",
            whole(each.activities),
            whole(each.calls),
            time(each.call_s),
            time(each.call_s_per_activity),
            time(each.idle_s),
            time(each.idle_s / each.activities),
        ]
        for device in findings.devices
        for each in device.launches
    ]
    if not rows:
        return []
    head = ["device", "launched", "activities", "calls", "CPU in calls", "CPU each"]
    head += ["idle before them", "idle each"]
    return ["## Launches", "", *table(head, rows, 2)]
