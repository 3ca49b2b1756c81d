"""A limit on one column, as people write it: METRIC < NUMBER, or METRIC > NUMBER."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from harness.columns import COUNTS, MEASURES
from harness.overrides import did_you_mean

LIMIT = re.compile(r"\s*(\w+)\s*([<>])=?\s*([-+.\deE]+)\s*")
METRICS = tuple(column.name for column in (*MEASURES, *COUNTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """`metric < value`, or `metric > value`."""

    metric: str
    value: float
    is_floor: bool

    @classmethod
    def parse(cls, text: str, metrics: Collection[str] = METRICS) -> Self:
        """The limit in a text. Raises ValueError saying what is wrong with it."""
        match = LIMIT.fullmatch(text)
        if match is None:
            raise ValueError(f"'{text}' is not of the form METRIC < NUMBER or METRIC > NUMBER")
        metric, sign, number = match.groups()
        if metric not in metrics:
            raise ValueError(f"there is no metric '{metric}'.{did_you_mean(metric, metrics)}")
        try:
            value = float(number)
        except ValueError:
            raise ValueError(f"'{text}': {number} is no number") from None
        if not value > 0:
            raise ValueError(f"'{text}': a limit must be above 0")
        return cls(metric=metric, value=value, is_floor=sign == ">")

    def __str__(self) -> str:
        return f"{self.metric} {'>' if self.is_floor else '<'} {self.value:g}"
