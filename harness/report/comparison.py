"""A verdict on two studies as `compare` writes it in JSON, and the points it is about."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness.errors import UserError

Setting = str | float | int | bool | None
Verdict = Literal["regressed", "improved", "unchanged", "inconclusive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two studies; a policy in the baseline's place has no launches."""

    study: str
    engine: str
    simulated: bool
    launches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Something in which the two differ and must not; `allowed`: let through by the user."""

    what: str
    baseline: str
    candidate: str
    allowed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something in which they differ that may be what the comparison is about."""

    what: str
    baseline: str
    candidate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PointVerdict:
    """One metric at one point: candidate / baseline, its interval and what follows."""

    point: Mapping[str, Setting]
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
    more_launches: int | None
    reason: str | None
    limit: str | None = None  # of a policy, which then is the baseline
    baseline_runs: tuple[str, ...] = ()
    candidate_runs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Variance:
    """How far a metric's values lie apart between launches and within one."""

    study: Literal["baseline", "candidate"]
    metric: str
    point: Mapping[str, Setting]
    between_frac: float | None
    within_frac: float | None
    launches: int
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    verdict: Literal["pass", "regressed", "inconclusive", "refused"]
    summary: str
    baseline: Side
    candidate: Side
    refusals: tuple[Refusal, ...] = ()
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    confidence: float | None = None
    family: int | None = None
    points: tuple[PointVerdict, ...] = ()
    variance: tuple[Variance, ...] = ()

    def of(self, verdict: Verdict) -> tuple[PointVerdict, ...]:
        return tuple(each for each in self.points if each.verdict == verdict)


def from_json(text: str) -> Comparison:
    """Raises ValueError for what is no comparison."""
    from pydantic import TypeAdapter

    comparison: Comparison = TypeAdapter(Comparison).validate_json(text)
    return comparison


def read(path: Path) -> Comparison:
    """A comparison's file. Raises UserError."""
    try:
        return from_json(path.read_text())
    except OSError as error:
        raise UserError(f"comparison={path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise UserError(f"comparison={path}: is no comparison: {_why(error)}") from None


def _why(error: ValueError) -> str:
    """The first of the rules that it breaks: what is no comparison breaks many."""
    from pydantic import ValidationError

    from harness.guard.config import broken

    return broken(error)[0] if isinstance(error, ValidationError) else "it is no text."
