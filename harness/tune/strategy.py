"""Which setting to try next. Pure: the same trials and the same seed give the same answer.

After the defaults comes the setting with the highest

    expected improvement of the score · P(all constraints hold) · P(it starts)

where the improvement is over the trial that the model rates best so far. Each goal, and each
constraint's margin, is modelled by a Gaussian process around the prior (harness/tune/surrogate.py).
At first the prior decides the order, and a setting that it cannot tell from one already tried
promises less than one that it can; measurements come to outweigh it. Settings that should not fit
according to the prior are not tried. A setting that failed is never tried again, and the more a
setting resembles it, the less likely it is to start.

A clear loser enters the models with the estimate of its full run, at the first load only. If it
were left out, settings like it would be tried next.

Two goals are searched as a front. Each trial weights them anew, and minimises the largest weighted
distance from the best of each goal (J. Knowles, ParEGO, IEEE Trans. Evol. Comput. 10, 2006).

The search ends when, after at least LEAST trials, the best product is below ENOUGH times the noise
and so not worth a launch. With two goals there is no such end. The best trial is chosen by the
model's mean, not by the highest measurement, which among many was mostly lucky.

Trials whose means lie within EQUAL times the noise count as equal, and the best of them is the one
that changes the fewest settings: a winner should carry nothing that does nothing. Proposals do not
prefer simple settings: where the prior was wrong, searches that tried simple ones first missed what
only others show (benchmarks/tune_search.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.tune.objective import Objective
from harness.tune.space import Space
from harness.tune.surrogate import (
    Floats,
    Grid,
    Surrogate,
    chance_below_zero,
    expected_improvement,
)
from harness.tune.trial import Rows, Setting, Trial, chosen

ENOUGH = 0.02
LEAST = 12
FAILURE_WEIGHT = 0.7  # of each name in the similarity to a failed setting
FAILURE_NOISE = 0.3
TIE = 1e-3  # relative jitter by which the seed breaks ties
EQUAL = 0.5
AUGMENTED = 0.05
Forecast = Mapping[Setting, Rows | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What to try, or the reason why nothing is worth trying."""

    setting: Setting | None = None
    reason: str | None = None


class Strategy:
    """Proposes the next setting, and picks the best trial.

    `forecast` holds the rows that the prior expects of each setting, one per load; None for a
    setting that should not fit. Without a forecast the search relies on measurements alone.
    """

    def __init__(
        self, space: Space, objective: Objective, forecast: Forecast | None, seed: int
    ) -> None:
        self._space = space
        self._seed = seed
        self._settings = space.settings()
        self._index = {setting: index for index, setting in enumerate(self._settings)}
        self._grid = Grid.of([[s[n][1] for s in self._settings] for n in range(len(space.names))])
        self._num_goals = len(objective.goals)
        self._num_constraints = len(objective.constraints)
        self._changes = np.array([len(chosen(setting)) for setting in self._settings])
        self._fits = np.ones(len(self._settings), dtype=bool)
        self._prior_gains = np.zeros((len(self._settings), self._num_goals))
        self._prior_margins = np.zeros((len(self._settings), self._num_constraints))
        if forecast is not None:
            self._read(objective, forecast)

    def propose(self, trials: Sequence[Trial]) -> Proposal:
        """The next setting. `trials` must begin with the defaults."""
        left = self._fits.copy()
        left[[self._index[t.setting] for t in trials if self._is_settled(t, trials)]] = False
        if not left.any():
            return Proposal(reason="every setting of the space that should fit was tried")
        random = np.random.default_rng((self._seed, len(trials)))
        weights = random.dirichlet(np.ones(self._num_goals))
        model, promise = self._promise(trials, weights)
        promise = promise * self._chances(trials)
        wanted = np.where(left, promise * (1 + TIE * random.random(len(left))), -1.0)
        best = int(np.argmax(wanted))
        if len(trials) >= LEAST and wanted[best] < ENOUGH * model.noise and self._num_goals == 1:
            if not any(trial.is_feasible for trial in trials):
                return Proposal(reason="no setting that is left is likely to keep the constraints")
            return Proposal(
                reason=f"no setting that is left promises more than {wanted[best]:.1%} beyond the"
                f" best, and measurements scatter by {model.noise:.0%}"
            )
        return Proposal(setting=self._settings[best])

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """The simplest of the best trials; None if no trial kept all constraints.

        The best are those that kept all constraints and whose mean is equal to the highest.
        """
        feasible = {self._index[trial.setting]: trial for trial in trials if trial.is_feasible}
        if not feasible:
            return None
        model = self._model(trials, np.full(self._num_goals, 1 / self._num_goals))
        mean, _ = model.predict()
        least = max(mean[list(feasible)]) - EQUAL * model.noise
        equal = [index for index in feasible if mean[index] >= least]
        return feasible[min(equal, key=lambda index: (self._changes[index], -mean[index]))]

    def importances(self, trials: Sequence[Trial]) -> dict[str, float]:
        """The share of the variance of the model's mean that each name explains alone.

        This is a first-order Sobol index over the allowed settings.
        """
        if not any(trial.gains for trial in trials):
            return {}
        mean, _ = self._model(trials, np.full(self._num_goals, 1 / self._num_goals)).predict()
        whole = float(mean.var())
        shares = {}
        for name, codes in zip(self._space.names, self._grid.codes.T, strict=True):
            counts = np.bincount(codes)
            means = np.bincount(codes, weights=mean) / counts
            between = float((counts * (means - mean.mean()) ** 2).sum() / len(mean))
            shares[name] = between / whole if whole > 0 else 0.0
        return shares

    def _read(self, objective: Objective, forecast: Forecast) -> None:
        """Read the prior's gains and margins, relative to its own defaults."""
        bases = forecast.get(self._space.default)
        if not bases:
            return
        bases = [objective.complete(row) for row in bases]
        for index, setting in enumerate(self._settings):
            found = forecast.get(setting)
            if found is None:
                self._fits[index] = False
                continue
            rows = [objective.complete(row) for row in found]
            gains = objective.gains(rows, bases)
            margins = objective.margins(rows, bases, setting)
            self._prior_gains[index] = gains or 0.0
            self._prior_margins[index] = [0.0 if m is None else m for m in margins]

    def _is_settled(self, trial: Trial, trials: Sequence[Trial]) -> bool:
        """Whether nothing is to be learnt from trying the setting again."""
        if trial.outcome is None or trial.outcome.is_of_the_setting:
            return True
        return sum(other.setting == trial.setting for other in trials) > 1

    def _promise(self, trials: Sequence[Trial], weights: Floats) -> tuple[Surrogate, Floats]:
        """The model and the expected improvement over the best trial that keeps the constraints.

        While no trial keeps them, the improvement is 1 everywhere, so that the constraints decide.
        """
        model = self._model(trials, weights)
        mean, deviation = model.predict()
        feasible = [self._index[trial.setting] for trial in trials if trial.is_feasible]
        if not feasible:
            return model, np.ones(len(mean))
        return model, expected_improvement(mean, deviation, float(mean[feasible].max()))

    def _model(self, trials: Sequence[Trial], weights: Floats) -> Surrogate:
        told = [trial for trial in trials if trial.gains]
        gains = np.array([trial.gains for trial in told])
        ideal = gains.max(axis=0)
        return self._fitted(
            told, _joined(self._prior_gains, weights, ideal), _joined(gains, weights, ideal)
        )

    def _chances(self, trials: Sequence[Trial]) -> Floats:
        """The probability that each setting starts and keeps every constraint."""
        chance = self._starts(trials)
        for place in range(self._num_constraints):
            told = [t for t in trials if len(t.margins) > place and t.margins[place] is not None]
            margins = np.array([trial.margins[place] for trial in told], dtype=float)
            prior = self._prior_margins[:, place]
            if len(told) and (margins.max() > 0 or prior.max() > 0):  # else nothing threatens it
                clipped = np.clip(margins, -1, 1)
                model = self._fitted(told, np.clip(prior, -1, 1), clipped)
                chance = chance * chance_below_zero(*model.predict())
        return chance

    def _starts(self, trials: Sequence[Trial]) -> Floats:
        ended = [t for t in trials if t.outcome is not None and t.outcome.is_of_the_setting]
        failed = np.array([trial.failure is not None for trial in ended], dtype=float)
        if not failed.any():
            return np.ones(len(self._settings))
        seen = np.array([self._index[trial.setting] for trial in ended])
        weights = (FAILURE_WEIGHT,) * len(self._space.names)
        between = self._grid.correlation(seen, seen, weights) + FAILURE_NOISE**2 * np.eye(len(seen))
        across = self._grid.correlation(np.arange(len(self._settings)), seen, weights)
        share: Floats = np.clip(across @ np.linalg.solve(between, failed), 0.0, 0.95)
        return 1 - share

    def _fitted(self, told: Sequence[Trial], prior: Floats, values: Floats) -> Surrogate:
        seen = np.array([self._index[trial.setting] for trial in told])
        return Surrogate.fitted(self._grid, prior, seen, values)


def _joined(gains: Floats, weights: Floats, ideal: Floats) -> Floats:
    """The goals' gains joined into one score, shape (settings,); one goal is its own score."""
    if gains.shape[1] == 1:
        return gains[:, 0]
    behind = weights * (ideal - gains)
    joined: Floats = -behind.max(axis=1) - AUGMENTED * behind.sum(axis=1)
    return joined
