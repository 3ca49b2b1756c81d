"""The result of a comparison, also as JSON for programs.

The fields are the keys of the JSON; those with a default may be absent from a file. Ratios are
candidate / baseline. What could not be computed is None, never 0 or 1.
"""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """The verdict on one metric at one point."""

    REGRESSED = "regressed"
    IMPROVED = "improved"
    UNCHANGED = "unchanged"
    INCONCLUSIVE = "inconclusive"


class Outcome(StrEnum):
    """The verdict on all of them together."""

    PASS = "pass"
    REGRESSED = "regressed"
    INCONCLUSIVE = "inconclusive"
    REFUSED = "refused"

    @property
    def exit_code(self) -> int:
        """0 for a pass, 1 for a regression, 2 for neither: no basis for a release."""
        return {Outcome.PASS: 0, Outcome.REGRESSED: 1}.get(self, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two sides compared. A policy takes the baseline's side, without launches."""

    study: str
    engine: str
    simulated: bool
    launches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A difference that makes numbers incomparable, unless it is allowed by name."""

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
    """One metric at one point. `low` to `high` is the interval on which the verdict rests.

    `baseline` and `candidate` are geometric means over launches. If `limit`, a policy's, is set,
    `baseline` is its value, `regressed` means broken and `unchanged` means kept.
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
    more_launches: int | None  # of each side; None: none needed, or the number is unknown
    reason: str | None  # why it is inconclusive
    limit: str | None = None
    baseline_runs: tuple[str, ...] = ()
    candidate_runs: tuple[str, ...] = ()
    validity: tuple[str, ...] = ()  # codes that any of these runs carries


@dataclass(frozen=True, slots=True, kw_only=True)
class Variance:
    """The noise of one metric at one point, as standard deviations of its logarithm.

    With one run per launch, `within_frac` is None and `between_frac` contains both levels.
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
    """Everything that `compare` found. A refused comparison holds no numbers."""

    verdict: Outcome
    summary: str
    baseline: Side
    candidate: Side
    confidence: float  # of all verdicts of a change jointly, and of each verdict of no change
    family: int  # number of questions that share it
    refusals: tuple[Refusal, ...] = ()
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)
    looks: int = 1  # planned looks at the data; more than one if launches are added until settled
    points: tuple[Judgement, ...] = ()
    variance: tuple[Variance, ...] = ()

    @property
    def simulated(self) -> bool:
        """Whether either side was simulated."""
        return self.baseline.simulated or self.candidate.simulated

    def of(self, verdict: Verdict) -> list[Judgement]:
        """The judgements with this verdict."""
        return [judgement for judgement in self.points if judgement.verdict is verdict]

    def to_json(self) -> str:
        """The comparison as one JSON document, without NaN or Infinity."""
        return json.dumps(asdict(self), indent=1, allow_nan=False, default=str) + "\n"
