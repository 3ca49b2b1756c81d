"""What was tried, and what came of it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from harness.engines.failure import FailureKind
from harness.units import named_values
from harness.validity import fatal_codes

Setting = tuple[tuple[str, Any], ...]  # (name, value) in the space's order; None: left to vLLM
State = Literal["running", "ok", "screened", "failed"]
# Kinds that say nothing of the setting: it may be tried again.
NOT_OF_THE_SETTING = (FailureKind.PORT_TAKEN, FailureKind.HARNESS, FailureKind.NO_ANSWER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The rows of the points table that a launch gave, one for each load in the loads' order; of a
    screened one, what a full run might have given at the first. Or the kind of its failure."""

    rows: tuple[dict[str, Any], ...] = ()
    failure: str | None = None  # a FailureKind's value
    is_screened: bool = False

    @classmethod
    def measured(cls, rows: Iterable[Mapping[str, Any]]) -> Self:
        """The full measurement."""
        return cls(rows=tuple(map(dict, rows)))

    @classmethod
    def screened(cls, rows: Iterable[Mapping[str, Any]]) -> Self:
        """A clear loser: what its short run said."""
        return cls(rows=tuple(map(dict, rows)), is_screened=True)

    @classmethod
    def failed(cls, kind: str) -> Self:
        """No numbers."""
        return cls(failure=str(kind))

    def to_json(self) -> dict[str, Any]:
        """As the storage keeps it."""
        return dict(plain(asdict(self)))

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(**{**tree, "rows": tuple(tree["rows"])})

    @property
    def state(self) -> State:
        """Of the trial that it ends."""
        if self.failure is not None:
            return "failed"
        return "screened" if self.is_screened else "ok"

    @property
    def is_of_the_setting(self) -> bool:
        """False for a failure of the machine, or of the harness."""
        return self.failure not in NOT_OF_THE_SETTING


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One setting, tried in one launch."""

    number: int  # from 0, which is the defaults
    setting: Setting
    outcome: Outcome | None = None  # None: running, or killed while it ran
    score: float | None = None  # times as good as the defaults; above 1 is better
    gains: tuple[float, ...] = ()  # of each goal, as log(times as good as the defaults)
    margins: tuple[float | None, ...] = ()  # of each constraint: at most 0 where it is kept
    violations: tuple[str, ...] = ()  # the constraints that it breaks, in words
    values: tuple[tuple[str, float], ...] = ()  # as measured: goals, limited columns; of all loads

    @property
    def state(self) -> State:
        """What is known of it."""
        return "running" if self.outcome is None else self.outcome.state

    @property
    def failure(self) -> str | None:
        """The kind, where it failed."""
        return None if self.outcome is None else self.outcome.failure

    @property
    def fatal_codes(self) -> tuple[str, ...]:
        """Why its numbers must not be believed; it is in the search all the same."""
        rows = self.outcome.rows if self.outcome else ()
        codes = (code for row in rows for code in fatal_codes(row.get("validity")))
        return tuple(dict.fromkeys(codes))

    @property
    def is_feasible(self) -> bool:
        """Measured in full, and within all constraints."""
        return feasible(self.state, self.score, self.violations)


def feasible(state: str, score: float | None, violations: Sequence[str]) -> bool:
    """Whether a trial that is known by these was measured in full, and kept all constraints."""
    return state == "ok" and score is not None and not violations


def plain(value: Any) -> Any:
    """As JSON has it: with Python's numbers, and null for what has none. Rows come from pandas."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def chosen(setting: Setting) -> dict[str, Any]:
    """What a setting does not leave to vLLM."""
    return {name: value for name, value in setting if value is not None}


def setting_text(values: Mapping[str, Any] | None) -> str:
    """What is chosen of a setting, for people: max_num_seqs=256 stream_interval=8, or defaults."""
    return named_values(values or {}, separator=" ") or "defaults"
