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
# What the objective makes of other columns (harness/tune/objective.py), and so can be limited too.
DERIVED = {
    "output_tok_per_s_per_gpu": "output_tok_per_s over num_gpus",
    "output_tok_per_s_per_user": "1 / tpot_p50_s: how fast a user's reply is written",
    "usd_per_mtok_output": "what the GPUs cost while they make a million output tokens",
}
COLUMNS = (*METRICS, *DERIVED)
FAR = 3.0  # a margin of e³ is as good as any larger one; of a count of 0 there is no logarithm


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A limit, in the column's unit or in multiples of what the defaults have."""

    limit: Limit
    relative: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError saying what is wrong with the text."""
        match = RELATIVE.fullmatch(text)
        limit = Limit.parse(match[1] if match else text, COLUMNS)
        if match is None and limit.value > 1 and _is_share(limit.metric):
            raise ValueError(f"'{text}': {limit.metric} is a share, between 0 and 1")
        return cls(limit=limit, relative=match is not None)

    def __str__(self) -> str:
        return f"{self.limit}{' x defaults' if self.relative else ''}"

    def told(self) -> str:
        """Beside the column's unit in the one that people are shown: ttft_p99_s < 0.5 (500 ms)."""
        if self.relative or scale_of(self.limit.metric) == 1:
            return str(self)
        return f"{self} ({told(self.limit.metric, self.limit.value)})"

    def margin(self, row: Mapping[str, Any], defaults: Mapping[str, Any]) -> float | None:
        """log(value / limit) of a ceiling, log(limit / value) of a floor: at most 0 where it is
        kept, clipped to ±FAR. None where the row, or the defaults' that it is a multiple of, does
        not have the column.
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
    """Of a whole; CPUs are counted in cores, and demand may be above what there is."""
    return metric.endswith("_frac") and not metric.endswith(("_cpu_frac", "_demand_frac"))


def contradiction(constraints: Sequence[Constraint]) -> str | None:
    """A sentence on the first two constraints that nothing can keep together."""
    floors = [one for one in constraints if one.limit.is_floor]
    ceilings = [one for one in constraints if not one.limit.is_floor]
    for low, high in product(floors, ceilings):
        alike = low.limit.metric == high.limit.metric and low.relative == high.relative
        if alike and low.limit.value >= high.limit.value:
            return f"'{high}' and '{low}' contradict each other: nothing can keep both"
    return None
