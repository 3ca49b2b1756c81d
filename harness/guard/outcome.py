"""What a comparison says, and the JSON that says it to programs.

The fields are the JSON's keys; those with a default may be absent from a file. Ratios are candidate
over baseline; what could not be computed is None, never 0 or 1.
"""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What can be said of one metric at one point."""

    REGRESSED = "regressed"
    IMPROVED = "improved"
    UNCHANGED = "unchanged"
    INCONCLUSIVE = "inconclusive"


class Outcome(StrEnum):
    """What can be said of all of them together."""

    PASS = "pass"
    REGRESSED = "regressed"
    INCONCLUSIVE = "inconclusive"
    REFUSED = "refused"

    @property
    def exit_code(self) -> int:
        """0 pass, 1 regressed, 2 nothing that a release could rest on."""
        return {Outcome.PASS: 0, Outcome.REGRESSED: 1}.get(self, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two that are compared. A policy stands on the baseline's side: no launches."""

    study: str
    engine: str
    simulated: bool
    launches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A difference that makes numbers incomparable, unless somebody allows it by its name."""

    what: str
    baseline: str
    candidate: str
    allowed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A difference that may be what the comparison is about."""

    what: str
    baseline: str
    candidate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One metric at one point. `low` to `high` is the interval that the verdict was made by.

    `baseline` and `candidate` are geometric means over launches. `limit` is the policy's, in which
    case `baseline` is its value, `regressed` means broken and `unchanged` means kept.
    """

    point: dict[str, Any]
    metric: str
    baseline: float | None
    candidate: float | None
    ratio: float | None
    low: float | None
    high: float | None
    threshold_frac: float
    verdict: Verdict
    launches: tuple[int, int]
    paired: bool
    more_launches: int | None  # of each side; None: none needed, or it cannot be told
    reason: str | None  # why it is inconclusive
    limit: str | None = None
    baseline_runs: tuple[str, ...] = ()
    candidate_runs: tuple[str, ...] = ()
    validity: tuple[str, ...] = ()  # codes of any of these runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Variance:
    """The noise of one metric at one point, as standard deviations of its logarithm.

    With one run a launch `within_frac` is None and `between_frac` holds both levels.
    """

    study: str  # baseline or candidate
    metric: str
    point: dict[str, Any]
    between_frac: float | None
    within_frac: float | None
    launches: int
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything that `compare` found. A refused one holds no numbers."""

    verdict: Outcome
    summary: str
    baseline: Side
    candidate: Side
    confidence: float  # of all verdicts of a change together, and of each of no change
    family: int  # how many questions share it
    refusals: tuple[Refusal, ...] = ()
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)
    looks: int = 1  # how often the data were to be looked at; more where launches are added
    points: tuple[Judgement, ...] = ()
    variance: tuple[Variance, ...] = ()

    @property
    def simulated(self) -> bool:
        """Whether no hardware was measured."""
        return self.baseline.simulated or self.candidate.simulated

    def of(self, verdict: Verdict) -> list[Judgement]:
        """The judgements with this verdict."""
        return [judgement for judgement in self.points if judgement.verdict is verdict]

    def to_json(self) -> str:
        """One JSON document, without NaN or Infinity."""
        return json.dumps(asdict(self), indent=1, allow_nan=False, default=str) + "\n"
