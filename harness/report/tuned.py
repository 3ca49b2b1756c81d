"""A tuning's section, at the top of its study's report: the answer, the proof, and all trials."""

import json
from collections.abc import Iterator
from pathlib import Path

from harness.columns import metric
from harness.guard.summary import number as change_of
from harness.report.blocks import (
    Banner,
    Block,
    Cell,
    Fold,
    Gallery,
    Head,
    Interval,
    Items,
    Log,
    Part,
    Picture,
    Section,
    Table,
    Text,
    Tone,
    number,
)
from harness.report.verdict import TONES
from harness.tune.answer import Answer, Outcome, Tried
from harness.tune.deployment import Deployment
from harness.tune.finding import Finding
from harness.tune.plots import PREFIX
from harness.tune.proof import Proof
from harness.tune.summary import interval_text, price_text
from harness.tune.trial import setting_text
from harness.units import plural, significant, span, unit_of

BANNERS: dict[Outcome, tuple[str, Tone]] = {
    Outcome.PROVEN: ("Proven", "good"),
    Outcome.DEFAULTS: ("Keep the defaults", "plain"),
    Outcome.BROKEN: ("Not proven", "bad"),
    Outcome.INCONCLUSIVE: ("Inconclusive", "doubt"),
    Outcome.NOTHING: ("Nothing found", "bad"),
    Outcome.UNFINISHED: ("Unfinished", "doubt"),
}
KEPT: dict[str, Tone] = {"kept": "good", "broken": "bad", "open": "doubt"}
SCALE_FRAC = 0.05  # change that corresponds to one unit of an interval's picture


def tuned(answer: Answer, folder: Path) -> Section:
    """The section, beginning with the answer."""
    word, tone = BANNERS[answer.outcome]
    blocks: list[Block] = [Banner(word=word, text=f"{answer.sentence()}.", tone=tone)]
    blocks.append(Items(items=tuple(_in_short(answer))))
    if answer.offered is not None:
        blocks.append(_deployment(answer, answer.offered))
    if answer.proof is not None:
        blocks.append(_proof(answer, answer.proof))
    if answer.walls:
        blocks.append(Part(title="What holds it back", blocks=(Items(items=answer.walls),)))
    blocks.append(Part(title="What was tried", blocks=(_tried(answer), *_left_out(answer))))
    pictures = tuple(
        Picture(file=path, caption=path.stem.removeprefix(PREFIX))
        for name in ("history", "importance", "slices", "pareto")
        if (path := folder / "plots" / f"{PREFIX}{name}.png").is_file()
    )
    if pictures:
        blocks.append(Gallery(pictures=pictures))
    return Section(id="tuned", title="Answer", blocks=tuple(blocks))


def _in_short(answer: Answer) -> Iterator[str]:
    kept = f", while {' and '.join(answer.constraints)}" if answer.constraints else ""
    promise = f" ({answer.promise})" if answer.promise else ""
    yield f"Asked: {answer.goals_text}{promise}{kept}."
    spent = answer.spent
    limit = f" of {span(spent.budget_s)}" if spent.budget_s is not None else ""
    yield (
        f"Spent: {plural(spent.search_launches, 'launch')} of the search and"
        f" {spent.proof_launches} of the proof, of {spent.budget_launches} allowed;"
        f" {span(spent.seconds)}{limit}."
    )
    yield f"Searched: {plural(answer.space_size, 'setting')} of {', '.join(answer.names)}."
    if answer.host:
        yield f"Learnt: {answer.host}."


def _deployment(answer: Answer, told: Deployment) -> Part:
    blocks: list[Block] = []
    if told.replicas > 1:
        blocks.append(Text(text=f"{told.replicas} of this server, each on its own GPUs:"))
    blocks.append(Log(text=told.command))
    if answer.next_command is not None:
        blocks += [Text(text="As an engine of the next sweep:"), Log(text=answer.next_command)]
    blocks.append(Text(text=f"As the arguments of a container of {told.image}:"))
    blocks.append(Log(text=json.dumps(told.arguments)))
    is_open = answer.outcome is Outcome.INCONCLUSIVE
    title = "How to run the candidate, which is unproven" if is_open else "How to run it"
    return Part(title=title, blocks=tuple(blocks))


def _proof(answer: Answer, proof: Proof) -> Part:
    blocks: list[Block] = [
        Text(
            text=f"The winner and the defaults, measured again after the search:"
            f" {plural(proof.launches, 'launch')} of each side, interleaved; each interval at"
            f" {proof.confidence * 100:g} % for itself. Study: {answer.proof_study}."
        ),
        _findings("goal", proof.gains),
    ]
    if proof.let_through:
        blocks.append(Text(text=f"Let through although fatal: {proof.let_through}.", tone="bad"))
    if proof.constraints:
        blocks.append(_constraints(proof.constraints))
    if proof.contributions:
        blocks.append(
            Part(
                title="What each setting contributes",
                blocks=(
                    Text(text="The winner against the winner with that one left to vLLM."),
                    _contributions(answer, proof),
                ),
            )
        )
    if answer.not_ablated:
        blocks.append(Items(items=answer.not_ablated))
    if price := price_text(proof):
        blocks.append(Text(text=f"At the price of {price}.", tone="bad"))
    if proof.comparison.points:
        blocks.append(Fold(title="What else changed", blocks=(_beside(proof),)))
    return Part(title="Proof", blocks=tuple(blocks))


def _findings(title: str, found: tuple[Finding, ...]) -> Table:
    heads = _heads(title, "defaults", "tuned")
    return Table(heads=heads, rows=tuple(_row(Cell(text=metric(f.metric)[0]), f) for f in found))


def _contributions(answer: Answer, proof: Proof) -> Table:
    heads = _heads("setting", "without", "with")
    rows = tuple(
        _row(Cell(text=setting_text({name: (answer.setting or {}).get(name)}), is_code=True), found)
        for name, found in proof.contributions.items()
    )
    return Table(heads=heads, rows=rows)


def _heads(first: str, before: str, after: str) -> tuple[Head, ...]:
    return (
        Head(title=first, is_text=True),
        Head(title=before),
        Head(title=after),
        Head(title="change %"),
        Head(title="interval %"),
        Head(title="", meaning=f"the interval; shaded: within ±{SCALE_FRAC:.0%}", is_text=True),
        Head(title="", is_text=True),
    )


def _row(first: Cell, found: Finding) -> tuple[Cell, ...]:
    _, form = metric(found.metric)
    tone = TONES[found.word]
    interval = Interval.of(found.ratio, found.low, found.high, SCALE_FRAC)
    return (
        first,
        number(found.before, form),
        number(found.after, form),
        number(found.ratio, change_of),
        Cell(text=interval_text(found).removesuffix(" %"), value=found.low),
        Cell(text="", interval=interval, tone=tone),
        Cell(
            text=found.word if found.reason is None else f"{found.word}: {found.reason}", tone=tone
        ),
    )


def _constraints(found: tuple[Finding, ...]) -> Table:
    heads = ("constraint", "limit", "tuned", "interval", "")
    rows = tuple(_constraint(one) for one in found)
    return Table(
        heads=tuple(Head(title=h, is_text=i in (0, 4)) for i, h in enumerate(heads)), rows=rows
    )


def _constraint(found: Finding) -> tuple[Cell, ...]:
    _, form = metric(found.metric)
    unit = f" {unit_of(found.metric)}".rstrip()
    interval = "–"
    if found.low is not None and found.high is not None and found.before is not None:
        interval = " to ".join(form(end * found.before) for end in (found.low, found.high))
    word = found.word if found.reason is None else f"{found.word} ({found.reason})"
    return (
        Cell(text=found.what, is_code=True),
        number(found.before, lambda value: f"{form(value)}{unit}"),
        number(found.after, lambda value: f"{form(value)}{unit}"),
        Cell(text=interval),
        Cell(text=word, tone=KEPT[found.word]),
    )


def _beside(proof: Proof) -> Table:
    rows = []
    for each in proof.comparison.points:
        name, form = metric(each.metric)
        rows.append(
            (
                Cell(text=name),
                number(each.baseline, form),
                number(each.candidate, form),
                number(each.ratio, change_of),
                Cell(text=each.verdict, tone=TONES[each.verdict]),
            )
        )
    heads = ("metric", "defaults", "tuned", "change %", "by the guard, all together")
    return Table(
        heads=tuple(Head(title=h, is_text=i in (0, 4)) for i, h in enumerate(heads)),
        rows=tuple(rows),
    )


def _tried(answer: Answer) -> Table:
    """One row per trial, in order, with the columns of goals and constraints."""
    columns = list(dict.fromkeys(name for one in answer.tried for name in one.values))
    heads = (
        Head(title="trial"),
        Head(title="setting", is_text=True),
        Head(title="x defaults", meaning="the score: 1 is like the defaults, more is better"),
        *(Head(title=metric(name)[0]) for name in columns),
        Head(title="", is_text=True),
    )
    return Table(heads=heads, rows=tuple(_trial(answer, one, columns) for one in answer.tried))


def _trial(answer: Answer, one: Tried, columns: list[str]) -> tuple[Cell, ...]:
    return (
        Cell(text=str(one.number), value=one.number),
        Cell(text=setting_text(one.setting), is_code=True),
        number(one.score, significant(1.0)),
        *(number(one.values.get(name), metric(name)[1]) for name in columns),
        _fate(answer, one),
    )


def _fate(answer: Answer, one: Tried) -> Cell:
    if one.state == "failed":
        return Cell(text=f"failed: {one.failure}", tone="bad")
    if one.state == "screened":
        return Cell(text="clear loser, short run only", tone="muted")
    if one.violations:
        return Cell(text=f"breaks {'; '.join(one.violations)}", tone="bad")
    if one.void:
        winner = f"{_as_winner(answer).text}, " if one.number == answer.winner else ""
        return Cell(text=f"{winner}to be doubted: {' '.join(one.void)}", tone="doubt")
    if one.number == answer.winner:
        return _as_winner(answer)
    return Cell(text="on the front" if one.number in answer.front else one.state, tone="muted")


def _as_winner(answer: Answer) -> Cell:
    """What became of the search's winner in the proof."""
    match answer.outcome:
        case Outcome.INCONCLUSIVE:
            return Cell(text="the candidate, unproven", tone="doubt")
        case Outcome.BROKEN:
            return Cell(text="did not stand the proof", tone="bad")
        case Outcome.DEFAULTS if answer.winner:
            return Cell(text="no better in the proof", tone="muted")
    return Cell(text="the winner", tone="good")


def _left_out(answer: Answer) -> tuple[Block, ...]:
    return (Items(items=answer.dropped),) if answer.dropped else ()
