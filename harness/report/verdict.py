"""The verdict of a comparison at the top of the report, and what would settle open questions."""

import math
from collections.abc import Mapping
from typing import Any

from harness.columns import metric
from harness.guard.outcome import Comparison, Judgement, Side, Variance, Verdict
from harness.guard.summary import number as change_of
from harness.report.blocks import (
    Banner,
    Block,
    Cell,
    Fold,
    Head,
    Interval,
    Items,
    Log,
    Part,
    Section,
    Table,
    Text,
    Tone,
    number,
    text_table,
)
from harness.report.contents import Contents
from harness.units import Format, percent, value_text, whole

WORDS: Mapping[str, tuple[str, Tone]] = {
    "pass": ("Pass", "good"),
    "regressed": ("Regressed", "bad"),
    "inconclusive": ("Inconclusive", "doubt"),
    "refused": ("Refused", "bad"),
}
TONES: Mapping[str, Tone] = {
    "regressed": "bad",
    "improved": "good",
    "unchanged": "plain",
    "inconclusive": "doubt",
}
ORDER = ("regressed", "inconclusive", "improved", "unchanged")


def verdict(told: Comparison) -> Section:
    word, tone = WORDS[told.verdict]
    blocks: list[Block] = [
        Banner(word=word, text=told.summary, tone=tone),
        _sides(told.baseline, told.candidate),
    ]
    if told.refusals:
        blocks.append(_refusals(told))
    if told.changes:
        rows = tuple((each.what, each.baseline, each.candidate) for each in told.changes)
        differs = text_table(("what", "baseline", "candidate"), rows)
        blocks.append(Part(title="What differs", blocks=(differs,)))
    if told.points:
        blocks += [_points(told), Text(text=_method(told), tone="muted")]
    if told.notes:
        blocks.append(Items(items=told.notes))
    if told.variance:
        blocks.append(Fold(title="Noise, between launches and within", blocks=(_noise(told),)))
    return Section(id="verdict", title="Verdict", blocks=tuple(blocks))


def _sides(baseline: Side, candidate: Side) -> Table:
    rows = tuple(
        (
            name,
            side.study,
            f"{'SIMULATED: ' if side.simulated else ''}{side.engine}",
            whole(side.launches),
        )
        for name, side in (("baseline", baseline), ("candidate", candidate))
    )
    return text_table(("", "study", "engine", "launches"), rows)


def _refusals(told: Comparison) -> Part:
    heads = ("what differs", "baseline", "candidate", "")
    rows = tuple(
        (r.what, r.baseline, r.candidate, "let through" if r.allowed else "refused")
        for r in told.refusals
    )
    refused = any(not r.allowed for r in told.refusals)
    title = "Why these two may not be compared" if refused else "Let through although it differs"
    return Part(title=title, blocks=(text_table(heads, rows),))


def _points(told: Comparison) -> Table:
    heads = (
        Head(title="point", is_text=True),
        Head(title="metric", is_text=True),
        Head(title="baseline"),
        Head(title="candidate"),
        Head(title="change %", meaning="candidate / baseline − 1"),
        Head(title="interval %", meaning="of the change, at the confidence told below"),
        Head(title="threshold %", meaning="a change within it is none in practice"),
        Head(title="", meaning="the interval; shaded: within the threshold", is_text=True),
        Head(title="verdict", is_text=True),
        Head(title="launches", meaning="of the baseline + of the candidate"),
    )
    ordered = sorted(told.points, key=lambda each: ORDER.index(each.verdict))
    return Table(heads=heads, rows=tuple(_row(each) for each in ordered))


def _row(told: Judgement) -> tuple[Cell, ...]:
    name, form = metric(told.metric)
    paired = ", paired" if told.paired else ""
    interval = Interval.of(told.ratio, told.low, told.high, told.threshold_frac)
    return (
        Cell(text=point_label(told.point)),
        Cell(text=name),
        _value(told.baseline, form),
        _value(told.candidate, form),
        number(told.ratio, change_of),
        Cell(text=_interval(told), value=told.low),
        Cell(text=told.limit or f"±{percent(told.threshold_frac)}", value=told.threshold_frac),
        Cell(text="", interval=interval, tone=TONES[told.verdict]),
        Cell(text=told.verdict, tone=TONES[told.verdict]),
        Cell(text=f"{told.launches[0]} + {told.launches[1]}{paired}", value=sum(told.launches)),
    )


def point_label(point: Mapping[str, Any]) -> str:
    """A point's label, without axes that do not apply to it, unless nothing else identifies it."""
    told = {name: value for name, value in point.items() if value is not None} or point
    return ", ".join(f"{n.rpartition('.')[2]}={value_text(v)}" for n, v in told.items()) or "–"


def _value(value: float | None, form: Format) -> Cell:
    if value is not None and math.isinf(value):
        return Cell(text="> run", value=value)
    return number(value, form)


def _interval(told: Judgement) -> str:
    if told.low is None or told.high is None:
        return "–"
    return f"{change_of(told.low)} to {change_of(told.high)}"


def _method(told: Comparison) -> str:
    parts = [f"Intervals at {told.confidence * 100:.4g} % confidence"]
    if told.family:
        parts.append(f"corrected for a family of {told.family} comparisons")
    if told.thresholds:
        each = [f"{metric(n)[0]} {percent(frac)} %" for n, frac in told.thresholds.items()]
        parts.append(f"thresholds: {', '.join(each)}")
    parts.append("a point has changed if its whole interval is past the threshold")
    return "; ".join(parts) + "."


def _noise(told: Comparison) -> Table:
    heads = ("study", "point", "metric", "between launches %", "within one %", "launches", "runs")
    rows = tuple(_noise_row(each) for each in told.variance)
    return Table(heads=tuple(Head(title=h, is_text=i < 3) for i, h in enumerate(heads)), rows=rows)


def _noise_row(told: Variance) -> tuple[Cell, ...]:
    return (
        Cell(text=told.study),
        Cell(text=point_label(told.point)),
        Cell(text=metric(told.metric)[0]),
        number(told.between_frac, percent),
        number(told.within_frac, percent),
        Cell(text=whole(told.launches), value=told.launches),
        Cell(text=whole(told.runs), value=told.runs),
    )


def settling(told: Comparison, contents: Contents) -> Section | None:
    """What would turn each inconclusive point into a verdict."""
    open_points = told.of(Verdict.INCONCLUSIVE)
    if not open_points:
        return None
    rows = tuple(
        (
            Cell(text=point_label(each.point)),
            Cell(text=metric(each.metric)[0]),
            Cell(text=_interval(each), value=each.low),
            Cell(text=f"±{percent(each.threshold_frac)}", value=each.threshold_frac),
            number(each.more_launches, ("{:.0f}" if each.limit else "{:.0f} of each").format),
            Cell(text=each.reason or ""),
        )
        for each in open_points
    )
    heads = ("point", "metric", "interval %", "threshold %", "more launches", "why it is open")
    told_heads = tuple(Head(title=h, is_text=h in (heads[0], heads[1], heads[5])) for h in heads)
    blocks: list[Block] = [Table(heads=told_heads, rows=rows)]
    known = [each for each in open_points if each.more_launches is not None]
    if known:
        most = max(_launches(each) + (each.more_launches or 0) for each in known)
        changes = {"repeats.launches": str(most)}
        if told.baseline.launches:
            changes["against"] = told.baseline.study
        sides = " of each, in turns" if told.baseline.launches else ""
        text = f"With {most} launches{sides}, all that can be settled:"
        blocks += [Text(text=text), Log(text=contents.command_with(changes))]
    if len(known) < len(open_points):
        left = len(open_points) - len(known)
        text = f"For {left} of them, it cannot be said how many launches would do."
        blocks.append(Items(items=(text,)))
    return Section(id="settling", title="What would settle the inconclusive", blocks=tuple(blocks))


def _launches(told: Judgement) -> int:
    """Launches of the side that has fewer; a policy's limit has only one side."""
    return told.launches[1] if told.limit else min(told.launches)
