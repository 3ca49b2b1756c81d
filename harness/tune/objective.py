"""What a tuning optimises: turns measured rows into a score and violated constraints. Pure.

Everything is relative to the defaults at the same load. With several loads,

    gain of a goal   mean over the loads of log(value / defaults' value), negated if the goal is
                     minimised: a geometric mean of ratios, so that no load outweighs another
    score            exp(mean of the gains): 1 is like the defaults, 2 is twice as good
    a constraint     must hold at each load; its margin is that of the worst load

Two goals make a Pareto front; their score is the geometric mean of both.

Columns derived from others are output_tok_per_s_per_gpu, output_tok_per_s_per_user (the speed at
which the median user's reply is written), and, in dollars,

    usd_per_mtok_output = cost_per_gpu_hour · num_gpus / 3600 / output_tok_per_s · 10⁶
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from statistics import fmean, geometric_mean
from typing import Any, Self

from harness.tune.column import ACCURACY, NUMERICS
from harness.tune.config import Tune
from harness.tune.constraint import Constraint
from harness.tune.trial import Outcome, Setting, Trial

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A column, and which direction is better."""

    column: str
    maximise: bool

    def __str__(self) -> str:
        return f"{'maximise' if self.maximise else 'minimise'} {self.column}"

    def gain(self, row: Row, defaults: Row) -> float | None:
        """log(times as good as the defaults); None unless both values are positive numbers."""
        value, base = row.get(self.column), defaults.get(self.column)
        if not isinstance(value, Real) or not isinstance(base, Real):
            return None
        value, base = float(value), float(base)
        if not value > 0 or not base > 0:
            return None
        gain = math.log(value / base)
        return gain if self.maximise else -gain


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One goal or two, and the constraints that must hold."""

    goals: tuple[Goal, ...]
    constraints: tuple[Constraint, ...] = ()
    cost_per_gpu_hour: float | None = None

    @classmethod
    def of(cls, tune: Tune) -> Self:
        """The objective that a configuration describes."""
        return cls(
            goals=(
                *(Goal(column=name, maximise=True) for name in tune.maximise),
                *(Goal(column=name, maximise=False) for name in tune.minimise),
            ),
            constraints=tune.parsed_constraints(),
            cost_per_gpu_hour=tune.cost_per_gpu_hour,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the goals, then those of the constraints."""
        limited = (one.limit.metric for one in self.constraints)
        return (*(goal.column for goal in self.goals), *limited)

    def complete(self, row: Row) -> dict[str, Any]:
        """The row with the derived columns added."""
        rate, gpus, tpot_s = (row.get(n) for n in ("output_tok_per_s", "num_gpus", "tpot_p50_s"))
        found: dict[str, Any] = {}
        if tpot_s:
            found["output_tok_per_s_per_user"] = 1 / tpot_s
        if rate and gpus:
            found["output_tok_per_s_per_gpu"] = rate / gpus
            if self.cost_per_gpu_hour is not None:
                usd_per_s = self.cost_per_gpu_hour * gpus / 3600
                found["usd_per_mtok_output"] = usd_per_s / rate * 1e6
        return {**row, **found}

    def judge(
        self, number: int, setting: Setting, outcome: Outcome | None, defaults: Outcome | None
    ) -> Trial:
        """The trial with its outcome judged against that of the defaults.

        If a goal was not measured there is no score. A constraint that cannot be judged counts as
        violated: what was not measured is not promised.
        """
        if outcome is None or outcome.failure or defaults is None or not defaults.rows:
            return Trial(number=number, setting=setting, outcome=outcome)
        rows = [self.complete(row) for row in outcome.rows]
        bases = [self.complete(row) for row in defaults.rows]
        gains = self.gains(rows, bases)
        margins = self.margins(rows, bases, setting)
        return Trial(
            number=number,
            setting=setting,
            outcome=outcome,
            score=None if gains is None else math.exp(fmean(gains)),
            gains=gains or (),
            margins=margins,
            violations=() if outcome.is_screened else tuple(self._violations(rows, margins)),
            values=() if outcome.is_screened else tuple(self._values(rows)),
        )

    def gains(self, rows: Sequence[Row], defaults: Sequence[Row]) -> tuple[float, ...] | None:
        """Each goal's gain over all loads, or None if one was not measured. Rows are complete."""
        found = []
        for goal in self.goals:
            each = [goal.gain(r, d) for r, d in zip(rows, defaults, strict=False)]
            if not each or None in each:
                return None
            found.append(fmean(gain for gain in each if gain is not None))
        return tuple(found)

    def margins(
        self, rows: Sequence[Row], defaults: Sequence[Row], setting: Setting
    ) -> tuple[float | None, ...]:
        """Each constraint's margin at its worst load: nearest to breaking, or furthest beyond."""
        return tuple(self._margin(one, rows, defaults, setting) for one in self.constraints)

    def _margin(
        self, one: Constraint, rows: Sequence[Row], defaults: Sequence[Row], setting: Setting
    ) -> float | None:
        if one.limit.metric.startswith(ACCURACY) and not any(
            value is not None for name, value in setting if name in NUMERICS
        ):
            return -1.0  # well kept: what is computed is what the defaults compute
        each = [one.margin(r, d) for r, d in zip(rows, defaults, strict=False)]
        return None if not each or None in each else max(m for m in each if m is not None)

    def _violations(self, rows: Sequence[Row], margins: Sequence[float | None]) -> list[str]:
        told = []
        for one, margin in zip(self.constraints, margins, strict=True):
            if margin is None:
                told.append(f"{one}: {one.limit.metric} was not measured")
            elif margin > 0:
                worst = max if not one.limit.is_floor else min
                value = worst(row[one.limit.metric] for row in rows)
                told.append(f"{one}: {one.limit.metric} is {value:.4g}")
        return told

    def _values(self, rows: Sequence[Row]) -> list[tuple[str, float]]:
        """The geometric mean over the loads for goals, the worst load for limited columns."""
        over: dict[str, Callable[[list[float]], float]] = {}
        over |= {c.limit.metric: min if c.limit.is_floor else max for c in self.constraints}
        over |= {goal.column: geometric_mean for goal in self.goals}
        found = []
        for column, combine in over.items():
            values = [float(row[column]) for row in rows if isinstance(row.get(column), Real)]
            if values and (combine is not geometric_mean or min(values) > 0):
                found.append((column, combine(values)))
        return found
