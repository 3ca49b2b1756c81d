"""A policy: the limits that a service promises, in place of a baseline. `conf/policy/NAME.yaml`.

    objectives:
      - at: {concurrency: 64}        # settings by name; without `at`, every point
        limits: [ttft_p99_s < 0.2, tpot_p99_s < 0.05, output_tok_per_s > 1000]

A limit is kept if the metric's whole interval is on its good side, and broken if none of it is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as schema

from harness.errors import UserError
from harness.guard.config import checked, read_yaml
from harness.guard.limit import Limit
from harness.guard.pairing import Pair, by_setting
from loadgen.config import STRICT


@schema(kw_only=True, config=STRICT)
class Objective:
    """Limits, and the points at which they must hold."""

    limits: list[str] = Field(min_length=1)
    at: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _limits_can_be_read(self) -> Self:
        self.parsed()
        return self

    def parsed(self) -> tuple[Limit, ...]:
        """The limits. Raises ValueError for the first that cannot be parsed."""
        return tuple(map(Limit.parse, self.limits))

    def covers(self, pair: Pair) -> bool:
        """Whether a point has the settings of `at`, named by heading or by dotted name."""
        return all(_value(pair, name) == value for name, value in self.at.items())


@schema(kw_only=True, config=STRICT)
class Policy:
    """Objectives, all of which must be met."""

    objectives: list[Objective] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One limit at one point."""

    limit: Limit
    pair: Pair


def read_policy(name: str, extra_conf_dir: Path | None = None) -> Policy:
    """A file of policy/ by its name, or any file by its path. Raises UserError."""
    path, tree = read_yaml("policy", name, extra_conf_dir)
    policy: Policy = checked(Policy, tree, path)
    return policy


def limits(policy: Policy, points: tuple[Pair, ...]) -> list[Held]:
    """Every limit at every point it applies to. Raises UserError if one applies to none."""
    found = []
    for objective in policy.objectives:
        covered = [pair for pair in points if objective.covers(pair)]
        if not covered:
            asked = ", ".join(f"{name}={value}" for name, value in objective.at.items())
            raise UserError(f"the policy asks for {asked}, and the study has no such point.")
        found += [Held(limit=one, pair=pair) for pair in covered for one in objective.parsed()]
    return found


def _value(pair: Pair, name: str) -> Any:
    if name in pair.point:
        return pair.point[name]
    settings = by_setting(pair.runs[0])
    for full in (name, f"load.{name}", f"engine.{name}"):
        if full in settings:
            return settings[full]
    return None
