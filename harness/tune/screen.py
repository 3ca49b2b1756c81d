"""An answer on a terminal: its sentence, its reasons, and what to run."""

import json
from collections.abc import Iterator, Sequence
from textwrap import fill

from harness.columns import metric
from harness.tune.answer import Answer, Outcome, Spent, Tried
from harness.tune.deployment import Deployment
from harness.tune.proof import Proof
from harness.tune.summary import constraint_text, gain_text, price_text
from harness.tune.trial import setting_text
from harness.units import plural, span


def screen(answer: Answer, width: int | None = None) -> str:
    """The answer's sentences, then the commands.

    Sentences are wrapped to `width` if it is given; commands are not, so that they can be copied.
    """
    commands = () if answer.offered is None else _deployment_lines(answer, answer.offered)
    return "\n".join([*(_broken(line, width) for line in _sentences(answer)), *commands])


def _broken(line: str, width: int | None) -> str:
    if width is None:
        return line
    indent = " " * (len(line) - len(line.lstrip()))
    return fill(
        line,
        width,
        subsequent_indent=f"{indent}  " if indent else "",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _sentences(answer: Answer) -> Iterator[str]:
    yield answer.headline()
    if answer.proof is not None:
        yield from _proof_lines(answer.proof, answer.not_ablated)
    yield from answer.walls
    if answer.host:
        yield answer.host
    if answer.front:
        yield "front, by the search's own measurements:"
        yield from (f"  {_on_front(answer, answer.tried[number])}" for number in answer.front)
    yield _spent(answer.spent)


def _proof_lines(proof: Proof, not_ablated: Sequence[str]) -> Iterator[str]:
    yield (
        f"proof: {plural(proof.launches, 'launch')} of each side, interleaved;"
        f" intervals at {proof.confidence * 100:g} %"
    )
    if proof.let_through:
        yield f"  let through although fatal: {proof.let_through}"
    for one in proof.constraints:
        yield f"  {constraint_text(one)}"
    for name, found in proof.contributions.items():
        told = gain_text(found) if found.ratio is not None else f"unknown ({found.reason})"
        yield f"  {name} contributes {told}: {found.word}"
    if price := price_text(proof):
        yield f"  at the price of {price}"
    yield from (f"  {text}" for text in not_ablated)


def _on_front(answer: Answer, one: Tried) -> str:
    values = []
    for column, _ in answer.goals:
        title, form = metric(column)
        values.append(f"{title} {form(one.values[column]) if column in one.values else '–'}")
    return f"trial {one.number}, {setting_text(one.setting)}: {', '.join(values)}"


def _spent(spent: Spent) -> str:
    time = f" of {span(spent.budget_s)}" if spent.budget_s is not None else ""
    return (
        f"spent: {spent.search_launches} + {spent.proof_launches} of {spent.budget_launches}"
        f" launches (search + proof), {span(spent.seconds)}{time}"
    )


def _deployment_lines(answer: Answer, deployment: Deployment) -> Iterator[str]:
    if answer.outcome is Outcome.INCONCLUSIVE:
        yield "how to run the candidate, which is unproven:"
    if deployment.replicas > 1:
        yield f"{deployment.replicas} of this server, each on its own GPUs:"
    yield from ("", f"  {deployment.command}", "")
    if answer.next_command is not None:
        yield f"as an engine: {answer.next_command}"
    arguments = json.dumps(deployment.arguments)
    yield f"as a container: {deployment.image} with the arguments {arguments}"
