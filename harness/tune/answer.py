"""What a tuning found, with its reasons: answer.json in the study, from which all else is made."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.columns import metric
from harness.errors import UserError
from harness.guard.likeness import FATAL
from harness.guard.outcome import Outcome as Compared
from harness.guard.summary import number
from harness.tables import SIMULATED, value_text
from harness.tune.deployment import Deployment
from harness.tune.finding import Finding
from harness.tune.proof import Proof, Result
from harness.tune.trial import Trial, chosen
from harness.units import plural, span

JSON, MARKDOWN = "answer.json", "answer.md"
ENGINE = "tuned"  # engine=tuned, of the folder CONF
CONF = "conf"


class Outcome(StrEnum):
    """How a tuning ended."""

    PROVEN = "proven"
    DEFAULTS = "defaults"  # nothing is better: by the search, or by the proof
    BROKEN = "broken"  # the winner broke a constraint, or did not start, in the proof
    INCONCLUSIVE = "inconclusive"
    NOTHING = "nothing"  # that could be compared: the defaults failed, or nothing keeps the limits
    UNFINISHED = "unfinished"

    @property
    def exit_code(self) -> int:
        """0 where it is settled, 1 where it is not."""
        return 0 if self in (Outcome.PROVEN, Outcome.DEFAULTS) else 1


OUTCOMES = {
    Result.PROVEN: Outcome.PROVEN,
    Result.NO_GAIN: Outcome.DEFAULTS,
    Result.BROKEN: Outcome.BROKEN,
    Result.INCONCLUSIVE: Outcome.INCONCLUSIVE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One trial, for the table of what was tried."""

    number: int
    setting: dict[str, Any]  # what is not left to vLLM
    state: str
    score: float | None  # times as good as the defaults
    gains: tuple[float, ...]  # of each goal, as logarithms
    values: dict[str, float]
    violations: tuple[str, ...]
    failure: str | None
    void: tuple[str, ...] = ()  # fatal codes of its rows

    @classmethod
    def of(cls, trial: Trial) -> "Tried":
        """A trial without what it measured in full."""
        return cls(
            number=trial.number,
            setting=chosen(trial.setting),
            state=trial.state,
            score=trial.score,
            gains=trial.gains,
            values={name: value for name, value in trial.values if math.isfinite(value)},
            violations=trial.violations,
            failure=trial.failure,
            void=fatal_codes(trial),
        )

    @property
    def is_feasible(self) -> bool:
        """Measured in full, and within all constraints."""
        return self.state == "ok" and self.score is not None and not self.violations


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Launches and time, of search and proof, and what they were allowed."""

    search_launches: int
    proof_launches: int
    budget_launches: int
    seconds: float
    budget_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Everything that people are told of a tuning."""

    name: str
    outcome: Outcome
    reason: str  # in a sentence without its full stop; may be empty
    simulated: bool
    engine: str
    model: str
    load: str
    goals: tuple[tuple[str, bool], ...]  # column, whether it is maximised
    constraints: tuple[str, ...]
    space_size: int
    dropped: tuple[str, ...]
    names: tuple[str, ...]
    tried: tuple[Tried, ...]
    front: tuple[int, ...]  # numbers of the trials on the Pareto front, of two goals
    importances: dict[str, float]
    spent: Spent
    winner: int | None = None  # its number; 0 is the defaults
    setting: dict[str, Any] | None = None
    deployment: Deployment | None = None
    conf: str | None = None  # the folder for --config-dir
    python: str | None = None  # that serves, if it is not this one
    proof_study: str | None = None  # below the study
    proof: Proof | None = None
    not_ablated: tuple[str, ...] = ()
    walls: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0: a proven gain, or the defaults are best; 1: neither."""
        return self.outcome.exit_code

    def headline(self) -> str:
        """The answer in a sentence; simulated numbers say so first."""
        return f"{SIMULATED} {self.sentence()}." if self.simulated else f"{self.sentence()}."

    def sentence(self) -> str:
        """The same without its full stop, where it is said elsewhere that it is simulated."""
        why = f": {self.reason}" if self.reason else ""
        match self.outcome:
            case Outcome.PROVEN:
                assert self.proof is not None
                gains = " and ".join(gain_text(gain) for gain in self.proof.gains)
                return f"{setting_text(self.setting)} gives {gains} against the defaults{why}"
            case Outcome.DEFAULTS:
                return f"The defaults are best{why or self._no_gain()}"
            case Outcome.BROKEN:
                return f"Not proven: {setting_text(self.setting)} did not stand the proof{why}"
            case Outcome.INCONCLUSIVE:
                return f"Not proven for {setting_text(self.setting)}{why}{self._more()}"
            case Outcome.NOTHING:
                return f"Nothing was found{why}"
            case Outcome.UNFINISHED:
                return f"Unfinished{why}; the same command continues"

    def _no_gain(self) -> str:
        if self.proof is None:
            return ""
        gains = " and ".join(gain_text(gain) for gain in self.proof.gains)
        return f": in the proof {setting_text(self.setting)} gave {gains}"

    def _more(self) -> str:
        is_void = self.proof is None or self.proof.comparison.verdict is Compared.REFUSED
        gains = () if is_void or self.proof is None else self.proof.gains
        more = max((gain.more_launches or 0 for gain in gains), default=0)
        if not more:
            return ""
        each = more + max(gain.launches for gain in gains)
        launches = self.spent.search_launches + self.spent.proof_launches + 2 * each
        return (
            f"; tune.proof.launches={each} tune.budget.launches={launches} would settle it, if"
            " noise stays as it is"
        )

    @property
    def next_command(self) -> str | None:
        """A sweep on the tuned engine."""
        if self.conf is None:
            return None
        python = f" engine.python={self.python}" if self.python else ""
        return f"python -m harness --config-dir {self.conf} sweep=NAME engine={ENGINE}{python}"

    def to_json(self) -> str:
        """One JSON document, without NaN or Infinity."""
        return json.dumps(_finite(asdict(self)), indent=1, allow_nan=False, default=str) + "\n"

    def text(self) -> str:
        """For a terminal: the answer, and where its reasons are."""
        return "\n".join(_lines(self))


def read(folder: Path) -> Answer | None:
    """The answer in a study's folder; None where there is none. Raises UserError."""
    from pydantic import TypeAdapter

    try:
        text = (folder / JSON).read_text()
    except FileNotFoundError:
        return None
    try:
        answer: Answer = TypeAdapter(Answer).validate_json(text)
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{folder / JSON} is damaged ({first}): delete it.") from None
    return answer


def fatal_codes(trial: Trial) -> tuple[str, ...]:
    """Why the numbers of a trial must not be believed; it is in the search all the same."""
    rows = trial.outcome.rows if trial.outcome else ()
    codes = dict.fromkeys(code for row in rows for code in (row.get("validity") or "").split())
    return tuple(code for code in codes if code in FATAL)


def setting_text(setting: Mapping[str, Any] | None) -> str:
    """max_num_seqs=256 stream_interval=8, or 'the defaults'."""
    told = " ".join(f"{name}={value_text(value)}" for name, value in (setting or {}).items())
    return told or "the defaults"


def gain_text(gain: Finding) -> str:
    """Output tok/s +81.2 % [73.0 to 88.4]."""
    title, _ = metric(gain.metric)
    if gain.ratio is None:
        return f"{title}: {gain.reason}"
    return f"{number(gain.ratio)} % {title} [{interval_text(gain)}]"


def interval_text(found: Finding) -> str:
    """+73.0 to +88.4 %."""
    if found.low is None or found.high is None:
        return "no interval"
    return f"{number(found.low)} to {number(found.high)} %"


def constraint_text(found: Finding) -> str:
    """tpot_p99_s < 0.03: kept, 22.9 ms of 30.0 (22.1 to 23.8)."""
    _, form = metric(found.metric)
    if found.after is None or found.before is None:
        return f"{found.what}: {found.word} ({found.reason})"
    text = f"{found.what}: {found.word}, {form(found.after)} of {form(found.before)}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{form(found.low * found.before)} to {form(found.high * found.before)}]"


def _lines(answer: Answer) -> Iterator[str]:
    yield answer.headline()
    if answer.proof is not None:
        yield from _proof_lines(answer.proof, answer.not_ablated)
    yield from answer.walls
    if answer.front:
        yield "front, by the search's own measurements:"
        yield from (f"  {_on_front(answer, answer.tried[number])}" for number in answer.front)
    yield _spent(answer.spent)
    if answer.deployment is not None and answer.outcome is not Outcome.BROKEN:
        yield from _deployment_lines(answer, answer.deployment)


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
    if deployment.replicas > 1:
        yield f"{deployment.replicas} of this server, each on its own GPUs:"
    yield from ("", f"  {deployment.command}", "")
    if answer.next_command is not None:
        yield f"as an engine: {answer.next_command}"
    arguments = json.dumps(deployment.arguments)
    yield f"as a container: {deployment.image} with the arguments {arguments}"


def _finite(value: Any) -> Any:
    """None for what JSON has no number for."""
    match value:
        case dict():
            return {str(name): _finite(one) for name, one in value.items()}
        case list() | tuple():
            return [_finite(one) for one in value]
        case float() if not math.isfinite(value):
            return None
    return value
