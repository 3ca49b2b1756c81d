"""What a tuning found and why: answer.json in the study, from which page and plots are made."""

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.config import TUNED
from harness.errors import UserError
from harness.guard.outcome import Outcome as Compared
from harness.tables import SIMULATED
from harness.tune.allowance import SIDES
from harness.tune.deployment import Deployment
from harness.tune.finding import Finding
from harness.tune.objective import Goal
from harness.tune.proof import Proof, Result
from harness.tune.summary import gain_text
from harness.tune.trial import Trial, chosen, feasible, plain, setting_text

JSON, MARKDOWN = "answer.json", "answer.md"
CONF = "conf"


class Outcome(StrEnum):
    """How a tuning ended."""

    PROVEN = "proven"
    DEFAULTS = "defaults"  # nothing is better, according to the search or the proof
    BROKEN = "broken"  # in the proof, the winner broke a constraint or one of its runs failed
    INCONCLUSIVE = "inconclusive"
    NOTHING = "nothing"  # nothing to compare: the defaults failed, or no trial keeps the limits
    UNFINISHED = "unfinished"

    @property
    def exit_code(self) -> int:
        """0 if the question is settled, else 1."""
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
    setting: dict[str, Any]  # without the names left to vLLM
    state: str
    score: float | None  # 1 is as good as the defaults, 2 twice as good
    gains: tuple[float, ...]  # log ratio for each goal
    values: dict[str, float]
    violations: tuple[str, ...]
    failure: str | None
    void: tuple[str, ...] = ()  # fatal validity codes of its rows

    @classmethod
    def of(cls, trial: Trial) -> "Tried":
        """The trial without its full rows."""
        return cls(
            number=trial.number,
            setting=chosen(trial.setting),
            state=trial.state,
            score=trial.score,
            gains=trial.gains,
            values={name: value for name, value in trial.values if math.isfinite(value)},
            violations=trial.violations,
            failure=trial.failure,
            void=trial.fatal_codes,
        )

    @property
    def is_feasible(self) -> bool:
        """Measured in full, and within all constraints."""
        return feasible(self.state, self.score, self.violations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Launches and time that search and proof used, and their budget."""

    search_launches: int
    proof_launches: int
    budget_launches: int
    seconds: float
    budget_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Everything that is reported about a tuning."""

    name: str
    outcome: Outcome
    reason: str  # a clause for the sentence, without full stop; may be empty
    simulated: bool
    engine: str
    model: str
    load: str
    goals: tuple[tuple[str, bool], ...]  # (column, whether it is maximised)
    constraints: tuple[str, ...]
    space_size: int
    dropped: tuple[str, ...]
    names: tuple[str, ...]
    tried: tuple[Tried, ...]
    front: tuple[int, ...]  # numbers of the trials on the Pareto front; empty with one goal
    importances: dict[str, float]
    spent: Spent
    promise: str = ""  # the latency limits, if a goal or constraint depends on them
    host: str = ""  # what the defaults' launch showed of it, a sentence without full stop
    winner: int | None = None  # its number; 0 is the defaults
    setting: dict[str, Any] | None = None
    deployment: Deployment | None = None
    conf: str | None = None  # the folder for --config-dir
    python: str | None = None  # the interpreter that serves, if it is not this one
    model_choice: str | None = None  # what model= takes: a folder, a hub id, a shape's name
    proof_study: str | None = None  # folder, relative to the study
    proof: Proof | None = None
    not_ablated: tuple[str, ...] = ()
    walls: tuple[str, ...] = ()

    @property
    def goals_text(self) -> str:
        """E.g. "maximise output_tok_per_s and minimise ttft_p99_s"."""
        return " and ".join(str(Goal(column=name, maximise=up)) for name, up in self.goals)

    @property
    def exit_code(self) -> int:
        """0 for a proven gain or if the defaults are best, else 1."""
        return self.outcome.exit_code

    @property
    def offered(self) -> Deployment | None:
        """What may be deployed: the proven winner, or a candidate whose proof is inconclusive."""
        is_open = self.outcome in (Outcome.PROVEN, Outcome.INCONCLUSIVE)
        return self.deployment if is_open else None

    def headline(self) -> str:
        """The answer in one sentence; for simulated numbers it begins by saying so."""
        return f"{SIMULATED} {self.sentence()}." if self.simulated else f"{self.sentence()}."

    def sentence(self) -> str:
        """The headline without full stop and without saying that numbers are simulated."""
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
                return f"Nothing is proven: the best candidate is {self._unproven()}"
            case Outcome.NOTHING:
                return f"Nothing was found{why}"
            case Outcome.UNFINISHED:
                return f"Unfinished{why}; the same command continues"

    def _no_gain(self) -> str:
        if self.proof is None:
            return ""
        gains = " and ".join(gain_text(gain) for gain in self.proof.gains)
        return f": in the proof {setting_text(self.setting)} gave {gains}"

    def _unproven(self) -> str:
        """The candidate, why it is not proven, and what would settle it."""
        proof = self.proof
        if proof is None or proof.comparison.verdict is Compared.REFUSED:
            return f"{setting_text(self.setting)}, but {self.reason}"
        gains = [gain_text(gain) for gain in proof.gains if gain.ratio is not None]
        gave = f" with {' and '.join(gains)}" if gains else ""
        open_ = [*proof.gains, *(one for one in proof.constraints if one.is_on_the_bad_side)]
        return f"{setting_text(self.setting)}{gave}, but {self.reason}; {self._settled_by(open_)}"

    def _settled_by(self, findings: Sequence[Finding]) -> str:
        if remedy := next((one.remedy for one in findings if one.remedy), None):
            return remedy
        more = max((one.more_launches or 0 for one in findings), default=0)
        if not more:
            return "a longer proof (tune.proof.launches) may settle it"
        each = more + max(one.launches for one in findings)
        sides = SIDES + (len(self.proof.contributions) if self.proof else 0)
        launches = self.spent.search_launches + self.spent.proof_launches + sides * more
        return (
            f"the same command with tune.proof.launches={each} tune.budget.launches={launches}"
            " would settle it, if noise stays as it is"
        )

    @property
    def next_command(self) -> str | None:
        """The command for a sweep of the same model on the tuned engine."""
        if self.conf is None:
            return None
        chosen = {"engine": TUNED, "engine.python": self.python, "model": self.model_choice}
        words = [f"{name}={shlex.quote(word)}" for name, word in chosen.items() if word]
        return f"python -m harness --config-dir {self.conf} sweep=NAME {' '.join(words)}"

    def to_json(self) -> str:
        """The answer as one JSON document, without NaN or Infinity."""
        return json.dumps(plain(asdict(self)), indent=1, allow_nan=False, default=str) + "\n"


def read(folder: Path) -> Answer | None:
    """The answer in a study's folder; None if there is none. Raises UserError if it is damaged."""
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
