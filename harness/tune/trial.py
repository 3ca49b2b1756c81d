"""A trial of the search: its setting and its outcome."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from harness.engines.failure import FailureKind
from harness.units import named_values
from harness.validity import fatal_codes

Setting = tuple[tuple[str, Any], ...]  # (name, value) in the space's order; None: left to vLLM
Rows = Sequence[Mapping[str, Any]]  # of the points table
State = Literal["running", "ok", "screened", "failed"]
# Kinds of failure that say nothing about the setting: it may be tried again.
NOT_OF_THE_SETTING = (FailureKind.PORT_TAKEN, FailureKind.HARNESS, FailureKind.NO_ANSWER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a launch measured, or the kind of its failure.

    `rows` are those of the points table, one per load in the loads' order; for a screened launch,
    an estimate of its full run at the first load.
    """

    rows: tuple[dict[str, Any], ...] = ()
    failure: str | None = None  # a FailureKind's value
    is_screened: bool = False

    @classmethod
    def measured(cls, rows: Iterable[Mapping[str, Any]]) -> Self:
        """The full measurement."""
        return cls(rows=tuple(map(dict, rows)))

    @classmethod
    def screened(cls, rows: Iterable[Mapping[str, Any]]) -> Self:
        """The outcome of a clear loser, from its short run."""
        return cls(rows=tuple(map(dict, rows)), is_screened=True)

    @classmethod
    def failed(cls, kind: str) -> Self:
        """A failure, without numbers."""
        return cls(failure=str(kind))

    def to_json(self) -> dict[str, Any]:
        """The outcome as the storage keeps it."""
        return dict(plain(asdict(self)))

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """The outcome that `to_json` wrote."""
        return cls(**{**tree, "rows": tuple(tree["rows"])})

    @property
    def state(self) -> State:
        """The state of a trial with this outcome."""
        if self.failure is not None:
            return "failed"
        return "screened" if self.is_screened else "ok"

    @property
    def is_of_the_setting(self) -> bool:
        """Whether the outcome was due to the setting, not to the machine or the harness."""
        return self.failure not in NOT_OF_THE_SETTING


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One setting, tried in one launch."""

    number: int  # from 0, which is the defaults
    setting: Setting
    outcome: Outcome | None = None  # None: running, or killed while it ran
    score: float | None = None  # times as good as the defaults; above 1 is better
    gains: tuple[float, ...] = ()  # for each goal: log(times as good as the defaults)
    margins: tuple[float | None, ...] = ()  # for each constraint: at most 0 if it is kept
    violations: tuple[str, ...] = ()  # the constraints that it breaks, in words
    values: tuple[tuple[str, float], ...] = ()  # goals and limited columns, over all loads

    @property
    def state(self) -> State:
        """The outcome's state; "running" while there is none."""
        return "running" if self.outcome is None else self.outcome.state

    @property
    def failure(self) -> str | None:
        """The kind of its failure, if it failed."""
        return None if self.outcome is None else self.outcome.failure

    @property
    def fatal_codes(self) -> tuple[str, ...]:
        """The codes that make its numbers unbelievable; the search uses them all the same."""
        rows = self.outcome.rows if self.outcome else ()
        codes = (code for row in rows for code in fatal_codes(row.get("validity")))
        return tuple(dict.fromkeys(codes))

    @property
    def is_feasible(self) -> bool:
        """Measured in full, and within all constraints."""
        return feasible(self.state, self.score, self.violations)


def feasible(state: str, score: float | None, violations: Sequence[str]) -> bool:
    """Whether a trial with these properties was measured in full and kept all constraints."""
    return state == "ok" and score is not None and not violations


def plain(value: Any) -> Any:
    """A value fit for JSON: Python's numbers instead of pandas', and None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def chosen(setting: Setting) -> dict[str, Any]:
    """The values of a setting that are not left to vLLM."""
    return {name: value for name, value in setting if value is not None}


def setting_text(values: Mapping[str, Any] | None) -> str:
    """A setting for people, e.g. "max_num_seqs=256 stream_interval=8"; "defaults" if empty."""
    return named_values(values or {}, separator=" ") or "defaults"
