"""A Gaussian process over a finite space: what is not measured yet, with how sure that is. Pure.

    y(x) = prior(x) + r(x) + noise
    cov(r(x), r(x')) = amplitude² · near(x, x') · Π over the names ((1 − w) + w · likeness(x, x'))
                       + SLOPE_SD² · prior(x) · prior(x')

`likeness` of two numbers is exp(−d²/2), d in LENGTH of the axis' range (of logarithms); of anything
else, and of the default beside a number, 1 if they are the same and 0 if not. The weight w of a
name says how much it matters: at 0 settings that differ in it alone are alike. `near` does the same
for the prior, at the weight APART and with d in NEAR: where the prior says that two settings
differ, it may be wrong about each in its own way. The last term lets it be wrong by a factor in the
exponent: its order may be right and its effects too large.

Amplitude, noise and weights are those of a grid with the highest likelihood (times a preference for
small weights), found one after the other: C. E. Rasmussen and C. K. I. Williams, Gaussian Processes
for Machine Learning, 2006, algorithm 2.1 and section 5.4. The least amplitude is that by which the
prior was wrong where it was compared (harness/sim/roofline.py). NEAR, APART and the grid were
chosen by benchmarks/tune_search.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LENGTH = 0.5
SLOPE_SD = 0.3
AMPLITUDES = (0.1, 0.2, 0.4, 0.8)
NOISES = (0.01, 0.03, 0.08)
WEIGHTS = (0.03, 0.1, 0.3, 0.6, 0.9)
FIRST = 0.3
NEAR, APART = 0.03, 0.9
SPARSITY = 1.0  # log of the preference for a weight of 0 over one of 1
ROUNDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The settings of a space as codes, and how alike two values of a name are."""

    codes: npt.NDArray[np.int64]  # (settings, names): which of the name's values
    likeness: tuple[Floats, ...]  # of each name: (values, values)

    @classmethod
    def of(cls, columns: Sequence[Sequence[Any]]) -> Self:
        """`columns` are the values of each name, over all settings."""
        codes, tables = [], []
        for column in columns:
            values = list(dict.fromkeys(column))
            index = {value: code for code, value in enumerate(values)}
            codes.append([index[value] for value in column])
            tables.append(_likeness(values))
        return cls(codes=np.array(codes, dtype=np.int64).T, likeness=tuple(tables))

    def correlation(
        self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], weights: Sequence[float]
    ) -> Floats:
        """Of settings by their index, shape (rows, columns)."""
        alike = np.ones((len(rows), len(columns)))
        for name, (table, weight) in enumerate(zip(self.likeness, weights, strict=True)):
            at = table[self.codes[rows, name][:, None], self.codes[columns, name]]
            alike *= (1 - weight) + weight * at
        return alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """A process that has seen `values` at the settings `seen`."""

    grid: Grid
    prior: Floats  # of every setting
    seen: npt.NDArray[np.int64]
    values: Floats
    amplitude: float = 0.2
    noise: float = 0.03
    weights: tuple[float, ...] = ()

    @classmethod
    def fitted(cls, grid: Grid, prior: Floats, seen: npt.NDArray[np.int64], values: Floats) -> Self:
        """With the amplitude, noise and weights that explain the values best."""
        weights = (FIRST,) * len(grid.likeness)
        model = cls(grid=grid, prior=prior, seen=seen, values=values, weights=weights)
        for _ in range(ROUNDS):
            model = model._best(
                replace(model, amplitude=a, noise=n) for a, n in product(AMPLITUDES, NOISES)
            )

            for name in range(len(model.weights)):
                model = model._best(model._weighed(name, weight) for weight in WEIGHTS)
        return model

    def predict(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation at every setting, without the noise."""
        every = np.arange(len(self.prior))
        lower = np.linalg.cholesky(self._covariance(self.seen))
        across = self._between(self.seen, every)
        left = np.linalg.solve(lower, across)
        residual = np.linalg.solve(lower, self.values - self.prior[self.seen])
        variance = self.amplitude**2 + (SLOPE_SD * self.prior) ** 2 - (left**2).sum(axis=0)
        return self.prior + left.T @ residual, np.sqrt(np.maximum(variance, 0.0))

    def _best(self, candidates: Any) -> Self:
        best: Self = max(candidates, key=lambda model: model._log_likelihood())
        return best

    def _weighed(self, name: int, weight: float) -> Self:
        weights = (*self.weights[:name], weight, *self.weights[name + 1 :])
        return replace(self, weights=weights)

    def _log_likelihood(self) -> float:
        lower = np.linalg.cholesky(self._covariance(self.seen))
        white = np.linalg.solve(lower, self.values - self.prior[self.seen])
        fit = -0.5 * float(white @ white) - float(np.log(np.diag(lower)).sum())
        return fit - SPARSITY * sum(self.weights)

    def _covariance(self, seen: npt.NDArray[np.int64]) -> Floats:
        return self._between(seen, seen) + self.noise**2 * np.eye(len(seen))

    def _between(self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Floats:
        alike = self.grid.correlation(rows, columns, self.weights)
        apart = (self.prior[rows][:, None] - self.prior[columns]) / NEAR
        alike = alike * ((1 - APART) + APART * np.exp(-0.5 * apart**2))
        slopes = SLOPE_SD**2 * np.outer(self.prior[rows], self.prior[columns])
        covariance: Floats = self.amplitude**2 * alike + slopes
        return covariance


def _likeness(values: Sequence[Any]) -> Floats:
    table = np.eye(len(values))
    numbers = [i for i, v in enumerate(values) if isinstance(v, int | float) and v is not True]
    numbers = [i for i in numbers if values[i] is not False]
    if len(numbers) < 2:
        return table
    listed = np.array([float(values[i]) for i in numbers])
    places = np.log(listed) if listed.min() > 0 else listed
    places = (places - places.min()) / (places.max() - places.min()) / LENGTH
    table[np.ix_(numbers, numbers)] = np.exp(-0.5 * (places[:, None] - places) ** 2)
    return table


def expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """Of a maximum: J. Mockus, 1975; D. R. Jones et al., J. Global Optimization 13, 1998."""
    spread = np.maximum(deviation, 1e-9)
    z = (mean - best) / spread
    improvement: Floats = spread * (z * _phi(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))
    return np.maximum(improvement, 0.0)


def chance_below_zero(mean: Floats, deviation: Floats) -> Floats:
    """Of a normal variable."""
    return _phi(-mean / np.maximum(deviation, 1e-9))


def _phi(z: Floats) -> Floats:
    from scipy.special import ndtr

    share: Floats = ndtr(z)
    return share
