"""A comparison in a sentence, and in a paragraph for a pull request. Pure."""

from collections.abc import Sequence
from typing import Any

from harness.columns import metric
from harness.direction import better
from harness.guard.outcome import Comparison, Judgement, Outcome, Verdict
from harness.tables import SIMULATED
from harness.units import named_values, plural

NAMED = 3  # regressions that a paragraph names
KINDS = {Verdict.REGRESSED: "limit broken", Verdict.UNCHANGED: "limit kept"}


def headline(comparison: Comparison) -> str:
    """The verdict in a word."""
    bad = comparison.of(Verdict.REGRESSED)
    if comparison.verdict is Outcome.REGRESSED and all(judgement.limit for judgement in bad):
        return "Limits broken"
    return comparison.verdict.value.capitalize()


def sentence(comparison: Comparison) -> str:
    """The verdict and its basis in a sentence or two, beginning with a warning if simulated."""
    text = _refused(comparison) if comparison.verdict is Outcome.REFUSED else _counted(comparison)
    return f"{SIMULATED} {text}" if comparison.simulated else text


def paragraph(comparison: Comparison) -> str:
    """The comparison as one paragraph of Markdown."""
    mine, theirs = comparison.baseline, comparison.candidate
    parts = [f"**{headline(comparison)}.**", sentence(comparison)]
    if comparison.changes:
        listed = [f"`{c.what}`: {c.baseline} → {c.candidate}" for c in comparison.changes[:NAMED]]
        more = len(comparison.changes) - NAMED
        parts.append(f"Changed: {'; '.join(listed)}{f'; and {more} more' if more > 0 else ''}.")
    if allowed := [refusal.what for refusal in comparison.refusals if refusal.allowed]:
        parts.append(f"Allowed to differ: {', '.join(f'`{what}`' for what in allowed)}.")
    if worst := _worst_first(comparison):
        more = len(worst) - NAMED
        listed = [told(judgement) for judgement in worst[:NAMED]]
        parts.append(f"Worst: {'; '.join(listed)}{f'; and {more} more' if more > 0 else ''}.")
    parts += [f"{note[0].upper()}{note[1:]}." for note in comparison.notes]
    if mine.launches:
        between = f"`{theirs.study}` against `{mine.study}`"
        launches = f"{theirs.launches} and {plural(mine.launches, 'launch')}"
    else:
        between = f"{mine.study}, `{theirs.study}`"
        launches = plural(theirs.launches, "launch")
    parts.append(f"({between}, {launches}, {theirs.engine}.)")
    return " ".join(parts) + "\n"


def told(judgement: Judgement) -> str:
    """One judgement in words: metric, point, change and interval."""
    if judgement.limit:
        value = shown(judgement.metric, judgement.candidate)
        return f"{value} ({span(judgement)}) for {limit(judgement)}{place(judgement.point)}"
    text = f"{metric(judgement.metric)[0]} {change(judgement.ratio)}"
    return f"{text} ({span(judgement)}){place(judgement.point)}"


def place(point: dict[str, Any]) -> str:
    """` at name=value`, or nothing."""
    return f" at {named_values(point)}" if point else ""


def limit(judgement: Judgement) -> str:
    """A policy's limit in the unit of the metric's title (TTFT p99 ms < 200), or nothing."""
    sign = (judgement.limit or "").split()[1:2]
    value = shown(judgement.metric, judgement.baseline)
    return f"{metric(judgement.metric)[0]} {sign[0]} {value}" if sign else ""


def shown(name: str, value: float | None) -> str:
    """A metric's value in the unit of its title."""
    return "–" if value is None else metric(name)[1](value)


def change(ratio: float | None) -> str:
    """A ratio as a change: −12.3 %."""
    return "–" if ratio is None else f"{number(ratio)} %"


def span(judgement: Judgement) -> str:
    """The interval as changes, e.g. "−14.1 to −10.2 %"; for a limit as values of the metric."""
    if judgement.low is None or judgement.high is None:
        return "–"
    if judgement.limit and judgement.baseline:
        ends = (judgement.low * judgement.baseline, judgement.high * judgement.baseline)
        return " to ".join(shown(judgement.metric, end) for end in ends)
    return f"{number(judgement.low)} to {number(judgement.high)} %"


def number(ratio: float) -> str:
    """A ratio's change in percent, without the percent sign; beyond +999 it is "> +999".

    A change that rounds to zero gets no sign.
    """
    percent = (ratio - 1) * 100
    if percent > 999:
        return "> +999"
    return "0.0" if abs(percent) < 0.05 else f"{percent:+.1f}".replace("-", "−")


def _refused(comparison: Comparison) -> str:
    refused = [refusal for refusal in comparison.refusals if not refusal.allowed]
    listed = "; ".join(
        f"{one.what} ({one.baseline} / {one.candidate})"
        if one.baseline
        else f"{one.what} ({one.candidate})"
        for one in refused
    )
    return f"Not comparable: {listed}."


def _counted(comparison: Comparison) -> str:
    if not comparison.points:
        return "There was nothing to compare."
    kinds = phrases(comparison)
    points = len({str(judgement.point) for judgement in comparison.points})
    metrics = len({judgement.metric for judgement in comparison.points})
    looks = f" in {comparison.looks} looks" if comparison.looks > 1 else ""
    text = (
        f"{', '.join(kinds)} of {len(comparison.points)} ({plural(points, 'point')} ×"
        f" {plural(metrics, 'metric')}), at {comparison.confidence * 100:g} % confidence{looks}."
    )
    waiting = comparison.of(Verdict.INCONCLUSIVE)
    wanted = [judgement.more_launches for judgement in waiting if judgement.more_launches]
    if wanted:
        sides = " of each side" if any(not one.limit for one in waiting) else ""
        text += f" {plural(max(wanted), 'more launch')}{sides} would settle"
        text += f" {_which(wanted, waiting)}."
    return text


def phrases(comparison: Comparison) -> list[str]:
    """The number of judgements of each kind, e.g. "3 regressed", "1 limit broken"."""
    counts: dict[str, int] = {}
    for verdict in Verdict:
        for judgement in comparison.of(verdict):
            kind = KINDS.get(verdict) if judgement.limit else None
            counts[kind or verdict] = counts.get(kind or verdict, 0) + 1
    return [
        f"{plural(count, 'limit')} {kind.partition(' ')[2]}" if " " in kind else f"{count} {kind}"
        for kind, count in counts.items()
    ]


def _which(wanted: Sequence[int], waiting: Sequence[Judgement]) -> str:
    if len(wanted) == len(waiting):
        return "it" if len(waiting) == 1 else f"all {len(waiting)}, if noise stays as it is"
    return f"{len(wanted)} of {len(waiting)} inconclusive"


def regressed_points(comparison: Comparison) -> list[tuple[Judgement, ...]]:
    """The regressions of each point, beginning with the point that has the worst."""
    points: dict[str, list[Judgement]] = {}
    for judgement in _worst_first(comparison):
        points.setdefault(str(judgement.point), []).append(judgement)
    return [tuple(judgements) for judgements in points.values()]


def _worst_first(comparison: Comparison) -> list[Judgement]:
    return sorted(comparison.of(Verdict.REGRESSED), key=_badness, reverse=True)


def _badness(judgement: Judgement) -> float:
    ratio = judgement.ratio or 1.0
    return 1 / ratio if better(judgement.metric) == "high" else ratio
