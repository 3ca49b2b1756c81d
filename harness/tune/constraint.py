"""One constraint of a tuning: METRIC < NUMBER, or METRIC < NUMBER x defaults; also with >."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Real
from typing import Any, Self

from harness.guard.limit import METRICS, Limit
from harness.units import scale_of, told

RELATIVE = re.compile(r"(.*\S)\s*[x×]\s*defaults\s*")
# Columns that the objective derives (harness/tune/objective.py); they can be limited too.
DERIVED = {
    "output_tok_per_s_per_gpu": "output_tok_per_s over num_gpus",
    "output_tok_per_s_per_user": "1 / tpot_p50_s: how fast a user's reply is written",
    "usd_per_mtok_output": "what the GPUs cost while they make a million output tokens",
}
COLUMNS = (*METRICS, *DERIVED)
FAR = 3.0  # margins are clipped at a factor of e³; also stands in where a count of 0 has no log


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A limit, in the column's unit or in multiples of the defaults' value."""

    limit: Limit
    relative: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """The constraint in a text. Raises ValueError saying what is wrong with the text."""
        match = RELATIVE.fullmatch(text)
        limit = Limit.parse(match[1] if match else text, COLUMNS)
        if match is None and limit.value > 1 and _is_share(limit.metric):
            raise ValueError(f"'{text}': {limit.metric} is a share, between 0 and 1")
        return cls(limit=limit, relative=match is not None)

    def __str__(self) -> str:
        return f"{self.limit}{' x defaults' if self.relative else ''}"

    def told(self) -> str:
        """The text with its value in display units, too: "ttft_p99_s < 0.5 (500 ms)"."""
        if self.relative or scale_of(self.limit.metric) == 1:
            return str(self)
        return f"{self} ({told(self.limit.metric, self.limit.value)})"

    def margin(self, row: Mapping[str, Any], defaults: Mapping[str, Any]) -> float | None:
        """log(value / limit) for a ceiling, log(limit / value) for a floor, clipped to ±FAR.

        It is at most 0 if the constraint is kept. None if the row lacks the column, or if the limit
        is relative and the defaults' row lacks it.
        """
        value = row.get(self.limit.metric)
        base = defaults.get(self.limit.metric) if self.relative else 1.0
        if not isinstance(value, Real) or not isinstance(base, Real):
            return None
        value, base = float(value), float(base)
        if math.isnan(value) or math.isnan(base):
            return None
        allowed = self.limit.value * base
        if value <= 0 or allowed <= 0:  # e.g. no failure at all
            is_over = value > allowed if not self.limit.is_floor else value < allowed
            return FAR if is_over else -FAR
        log = math.log(value / allowed)
        return max(-FAR, min(FAR, -log if self.limit.is_floor else log))


def _is_share(metric: str) -> bool:
    """Whether a column is at most 1. CPU use counts cores, and demand may exceed capacity."""
    return metric.endswith("_frac") and not metric.endswith(("_cpu_frac", "_demand_frac"))


def contradiction(constraints: Sequence[Constraint]) -> str | None:
    """A sentence about the first two constraints that exclude each other, or None."""
    floors = [one for one in constraints if one.limit.is_floor]
    ceilings = [one for one in constraints if not one.limit.is_floor]
    for low, high in product(floors, ceilings):
        alike = low.limit.metric == high.limit.metric and low.relative == high.relative
        if alike and low.limit.value >= high.limit.value:
            return f"'{high}' and '{low}' contradict each other: nothing can keep both"
    return None
