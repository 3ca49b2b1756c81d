"""What can be written under `tune:`: the space, the objective, the budget. `conf/tune/NAME.yaml`.

    tune:
      maximise: output_tok_per_s
      constraints: [tpot_p99_s < 1.1 x defaults, requests_failed < 1]
      space:
        max_num_seqs: [256, 512, 1024]
        max_num_batched_tokens: {from: 1024, to: 32768, times: 2}
        extra.max_cudagraph_capture_size: {values: [1024, 2048], when: {enforce_eager: null}}
      forbidden:
        - {max_num_batched_tokens: < max_num_seqs}

Names are those of `engine.` without the prefix, including `extra.NAME` and `env.NAME`. Null, which
leaves the choice to vLLM, is a value of every axis, written or not.
"""

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from harness.overrides import did_you_mean
from harness.presentation import Names
from harness.tune.column import wrong_way
from harness.tune.constraint import COLUMNS, Constraint, contradiction
from loadgen.config import STRICT

Value = bool | int | float | str | None
MOST_VALUES = 1000  # of an axis; a longer range is surely a mistake


def _axis(value: Any) -> Any:
    """A list is an axis of its values; a single value is an axis of it and the default."""
    if value is None or isinstance(value, dict):
        return value
    return {"values": value if isinstance(value, list) else [value]}


def _scalars(values: Any) -> Any:
    for value in values if isinstance(values, list) else ():
        if isinstance(value, dict | list):
            raise ValueError(
                f"{value} is no single value: name the key that differs, e.g."
                " extra.compilation_config.cudagraph_mode: [FULL, PIECEWISE]"
            )
    return values


@dataclass(kw_only=True, config=STRICT)
class Axis:
    """The values of one setting, as a list or a range, and the condition under which it applies."""

    values: Annotated[list[Any] | None, BeforeValidator(_scalars)] = Field(
        None, description="the values"
    )
    from_: float | None = Field(None, alias="from", description="the first value of a range")
    to: float | None = Field(None, description="its last value, if a step ends there")
    times: float | None = Field(None, gt=1, description="from one value to the next: a factor")
    step: float | None = Field(None, gt=0, description="or a distance")
    when: dict[str, Any] = Field(
        default_factory=dict, description="else it is left to vLLM: {NAME: value, list or '< 8'}"
    )

    @model_validator(mode="after")
    def _is_one_of_two(self) -> "Axis":
        ends, strides = (self.from_, self.to), (self.times, self.step)
        if self.values is not None:
            if any(part is not None for part in (*ends, *strides)):
                raise ValueError("an axis has values, or a range (from, to, times or step)")
            if not any(value is not None for value in self.values):
                raise ValueError("an axis needs a value beside the default (null)")
            return self
        if None in ends or (self.times is None) == (self.step is None):
            raise ValueError("an axis is a list of values, or has from, to, and times or step")
        self._check_range()
        return self

    def _check_range(self) -> None:
        assert self.from_ is not None
        assert self.to is not None
        if self.from_ > self.to:
            raise ValueError(f"the range from {self.from_:g} to {self.to:g} is empty")
        if self.times is not None and self.from_ <= 0:
            raise ValueError(f"from={self.from_:g}: a range by a factor begins above 0")
        if len(self._range()) > MOST_VALUES:
            raise ValueError(f"a range of more than {MOST_VALUES} values: take a longer stride")

    @property
    def choices(self) -> tuple[Any, ...]:
        """None (the default), then each value once, in order."""
        listed = self._range() if self.values is None else self.values
        unlike = {(type(value), value): value for value in listed if value is not None}
        return (None, *unlike.values())

    def _range(self) -> list[float]:
        assert self.from_ is not None
        assert self.to is not None
        values: list[float] = []
        value = self.from_
        while value <= self.to * (1 + 1e-9) and len(values) <= MOST_VALUES:
            rounded = float(f"{value:.12g}")
            values.append(int(rounded) if rounded.is_integer() else rounded)
            index = len(values)
            value = (
                self.from_ + index * self.step
                if self.step is not None
                else self.from_ * (self.times or math.inf) ** index
            )
        return values


@dataclass(kw_only=True, config=STRICT)
class Budget:
    """The budget of search and proof together."""

    launches: int = Field(16, ge=1, description="maximum server starts")
    minutes: float | None = Field(30.0, gt=0, description="maximum minutes; null: no limit")


@dataclass(kw_only=True, config=STRICT)
class Proof:
    """How the winner and the defaults are measured again."""

    launches: int = Field(3, ge=2, description="launches of each side, interleaved")
    ablation: bool = Field(True, description="also measure the winner without each of its settings")
    allow: Names = Field(default_factory=list, description="fatal validity codes to accept")

    @property
    def least_launches(self) -> int:
        """Launches needed without any ablation."""
        return 2 * self.launches


@dataclass(kw_only=True, config=STRICT)
class Screen:
    """A short first run in each launch that spares a clear loser the full measurement."""

    duration_s: float = Field(3.0, gt=0, description="window of the short run")
    below_frac: float = Field(
        0.8,
        gt=0,
        lt=1,
        description="share of the best trial's short run below which a trial is a clear loser",
    )


@dataclass(kw_only=True, config=STRICT)
class Tune:
    """A search for the best engine setting."""

    maximise: Names = Field(default_factory=list, description="columns to maximise")
    minimise: Names = Field(
        default_factory=list, description="columns to minimise; two columns in all: a Pareto front"
    )
    constraints: Names = Field(
        default_factory=list,
        description="limits: METRIC < NUMBER, or METRIC < NUMBER x defaults; also >",
    )
    space: dict[str, Annotated[Axis | None, BeforeValidator(_axis)]] = Field(
        description="engine settings: NAME: [values], or {from, to, times or step}; with when"
    )
    forbidden: list[dict[str, Any]] = Field(
        default_factory=list,
        description="combinations never tried: {NAME: value, list or '< NAME', …}",
    )
    budget: Budget = Field(default_factory=lambda: Budget(launches=16, minutes=30.0))
    proof: Proof = Field(default_factory=lambda: Proof(launches=3, ablation=True))
    screen: Screen | None = Field(
        default_factory=lambda: Screen(duration_s=3.0, below_frac=0.8),
        description="short first run; null: none",
    )
    cost_per_gpu_hour: float | None = Field(
        None, gt=0, description="dollars; adds the column usd_per_mtok_output"
    )

    @model_validator(mode="after")
    def _can_be_searched(self) -> "Tune":
        for check in (self._goals, self._constraints, self._space, self._budget):
            if problem := check():
                raise ValueError(problem)
        return self

    def parsed_constraints(self) -> tuple[Constraint, ...]:
        """The constraints, parsed. Raises ValueError for the first that cannot be parsed."""
        return tuple(map(Constraint.parse, self.constraints))

    def _goals(self) -> str | None:
        goals = [*self.maximise, *self.minimise]
        for name in goals:
            if name not in COLUMNS:
                return (
                    f"there is no column '{name}' to tune for.{did_you_mean(name, COLUMNS)}"
                    " All columns: python -m harness --help columns"
                )
        if not 1 <= len(goals) <= 2:
            return "name one column to maximise or minimise, or two for a Pareto front"
        if len(set(goals)) < len(goals):
            return f"'{goals[0]}' is named twice: two goals are two columns"
        if problem := wrong_way(self.maximise, self.minimise):
            return problem
        priced = [*goals, *(one.limit.metric for one in self.parsed_constraints())]
        if "usd_per_mtok_output" in priced and self.cost_per_gpu_hour is None:
            return "usd_per_mtok_output needs a price: set tune.cost_per_gpu_hour"
        return None

    def _constraints(self) -> str | None:
        return contradiction(self.parsed_constraints())

    def _space(self) -> str | None:
        if not any(self.space.values()):
            return "the space is empty: name at least one setting with a value under tune.space"
        if any(not entry for entry in self.forbidden):
            return "an entry of forbidden is empty: it would forbid everything"
        return None

    def _budget(self) -> str | None:
        needed = 2 + self.proof.least_launches
        if self.budget.launches < needed:
            return (
                f"budget.launches={self.budget.launches} is too small: the defaults, one trial and"
                f" {self.proof.launches} launches of each side for the proof are {needed}"
            )
        return None
