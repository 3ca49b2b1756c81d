"""A comparison on a terminal: what was compared, every judgement, the noise, then the verdict."""

from collections.abc import Iterable
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.columns import metric
from harness.guard.likeness import UNSET
from harness.guard.outcome import Comparison, Judgement, Outcome, Variance, Verdict
from harness.guard.summary import change, headline, limit, place, shown, span
from harness.guard.verdict import MAX_MORE
from harness.tables import SIMULATED
from harness.terminal_table import Shown, fitted, terminal_table, width_of
from harness.units import named_values, plural, value_text

STYLES = {
    Verdict.REGRESSED: "bold red",
    Verdict.IMPROVED: "green",
    Verdict.UNCHANGED: "",
    Verdict.INCONCLUSIVE: "yellow",
}
UNSETTLED = f"that {MAX_MORE} more launches would not settle, or for which none can be told"
COLOURS = {Outcome.PASS: "bold green", Outcome.REGRESSED: "bold red"}


COLUMNS: tuple[Shown[Judgement], ...] = (
    Shown(title="metric", text=lambda j: limit(j) or metric(j.metric)[0], is_text=True),
    Shown(title="baseline", text=lambda j: shown(j.metric, j.baseline), rank=3),
    Shown(title="candidate", text=lambda j: shown(j.metric, j.candidate), rank=4),
    Shown(title="change", text=lambda j: "" if j.limit else change(j.ratio)),
    Shown(title="interval", text=span),
    Shown(
        title="matters", text=lambda j: "" if j.limit else f"±{j.threshold_frac * 100:g} %", rank=1
    ),
    Shown(title="launches", text=lambda j: _launches(j), rank=2),
    Shown(title="verdict", text=lambda j: _verdict(j), is_text=True),
    Shown(title="more", text=lambda j: f"+{j.more_launches}" if j.more_launches else "", rank=5),
)
OF_LIMITS: tuple[Shown[Judgement], ...] = (
    Shown(title="limit", text=limit, is_text=True),
    Shown(title="value", text=lambda j: shown(j.metric, j.candidate)),
    *(column for column in COLUMNS if column.title in ("interval", "launches", "verdict", "more")),
)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print the comparison, as wide as the terminal allows."""
    if comparison.simulated:
        console.print(SIMULATED, style="bold", markup=False)
    for name, side in (("baseline", comparison.baseline), ("candidate", comparison.candidate)):
        told = f"{side.engine}, {plural(side.launches, 'launch')}" if side.launches else ""
        _line(console, name, f"{side.study}  {told}".rstrip())
    for one in comparison.changes:
        _line(console, "changed", f"{one.what}: {one.baseline} → {one.candidate}")
    for refusal in comparison.refusals:
        values = [value for value in (refusal.baseline, refusal.candidate) if value]
        word = "allowed" if refusal.allowed else "refused"
        _line(console, word, f"{refusal.what}: {' / '.join(values)}")
    for note in comparison.notes:
        _line(console, "note", note)
    if comparison.points:
        if same := _common(comparison.points):
            _line(console, "at", place(same).removeprefix(" at "))
        console.print()
        console.print(_table(console.width, comparison.points), markup=False)
        reasons = [j.reason for j in comparison.of(Verdict.INCONCLUSIVE) if j.reason]
        for reason in dict.fromkeys(reasons):
            console.print(f"{reasons.count(reason)} inconclusive: {reason}", markup=False)
        if left := [j for j in comparison.of(Verdict.INCONCLUSIVE) if not j.more_launches]:
            console.print(f"{len(left)} inconclusive {UNSETTLED}", markup=False)
        console.print()
        console.print(_noise_table(comparison.variance), markup=False)
    console.print()
    style = COLOURS.get(comparison.verdict, "bold yellow")
    told = f"{headline(comparison).upper()}. {comparison.summary}"
    console.print(told, style=style, markup=False)


def _common(points: Iterable[Judgement]) -> dict[str, Any]:
    """The settings that all points share, which the table need not repeat."""
    first, *others = points
    return {n: v for n, v in first.point.items() if all(j.point.get(n) == v for j in others)}


def _line(console: Console, word: str, text: str) -> None:
    console.print(f"{word:<10} {text}", markup=False, soft_wrap=True)


def _table(width: int, points: Iterable[Judgement]) -> Table:
    judgements = list(points)
    names = dict.fromkeys(name for judgement in judgements for name in judgement.point)
    axes = [n for n in names if len({value_text(j.point.get(n)) for j in judgements}) > 1]
    first = tuple(
        Shown(title=name, text=lambda j, name=name: value_text(j.point.get(name)))  # type: ignore[misc]
        for name in axes
    )
    columns = [*first, *(OF_LIMITS if all(j.limit for j in judgements) else COLUMNS)]
    columns = fitted(columns, judgements, width)
    if first and width_of(columns, judgements) > width:
        columns = [_at(axes), *columns[len(first) :]]
    return terminal_table(columns, judgements, style=lambda j: STYLES[j.verdict])


def _at(axes: Iterable[str]) -> Shown[Judgement]:
    """One column for all axes, which may wrap: the settings not left to the server, by name."""
    return Shown(
        title="at",
        text=lambda j: (
            named_values({n: v for n in axes if (v := j.point.get(n)) is not None}, separator=" ")
            or UNSET
        ),
        is_text=True,
        wraps_at=len(UNSET),
    )


def _noise_table(variance: Iterable[Variance]) -> Table:
    """The median noise over the points, with the largest in brackets; the JSON has all values."""
    groups: dict[str, dict[str, list[Variance]]] = {}
    for one in variance:
        groups.setdefault(one.metric, {}).setdefault(one.study, []).append(one)
    studies = list(dict.fromkeys(study for sides in groups.values() for study in sides))
    table = Table(box=None, pad_edge=False, title="noise, median over points (largest), %")
    table.title_justify, table.title_style = "left", ""
    table.add_column("metric")
    for study in studies:
        for level in ("between launches", "within"):
            table.add_column(f"{study}\n{level}", justify="right")
    for name, sides in groups.items():
        cells = []
        for study in studies:
            found = sides.get(study, [])
            cells.append(_spread([one.between_frac for one in found]))
            cells.append(_spread([one.within_frac for one in found]))
        table.add_row(metric(name)[0], *cells)
    return table


def _spread(fracs: Iterable[float | None]) -> str:
    known = [frac * 100 for frac in fracs if frac is not None]
    if not known:
        return "–"
    largest = f" ({max(known):.1f})" if len(known) > 1 else ""
    return f"{median(known):.1f}{largest}"


def _launches(judgement: Judgement) -> str:
    mine, theirs = judgement.launches
    if judgement.limit:
        return str(theirs)
    return f"{mine}+{theirs}{' paired' if judgement.paired else ''}"


def _verdict(judgement: Judgement) -> str:
    words = {Verdict.UNCHANGED: "kept", Verdict.REGRESSED: "broken"} if judgement.limit else {}
    return words.get(judgement.verdict, judgement.verdict.value)
