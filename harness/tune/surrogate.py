"""A Gaussian process over a finite space: predicts unmeasured settings, with uncertainty. Pure.

    y(x) = prior(x) + r(x) + noise
    cov(r(x), r(x')) = amplitude² · near(x, x') · Π over the names ((1 − w) + w · likeness(x, x'))
                       + SLOPE_SD² · prior(x) · prior(x')

`likeness` of two numbers is exp(−d²/2), where d is their distance on the axis (log scale if all are
positive) in units of LENGTH times its range. For anything else, including the default against a
number, it is 1 if they are equal, else 0. The weight w of a name says how much it matters: at 0,
settings that differ in it alone are alike. `near` does the same with the prior's values, at weight
APART and with d in units of NEAR: where the prior says that two settings differ, it may be wrong
about each in its own way. The last term lets the prior be wrong by a factor in the exponent: it may
order settings correctly but exaggerate their effects.

Amplitude, noise and weights are chosen from a grid by coordinate ascent, for the highest likelihood
times a preference for small weights: C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for
Machine Learning, 2006, algorithm 2.1 and section 5.4. The smallest amplitude is the error of the
prior where it was checked (harness/sim/roofline.py). NEAR, APART and the grid were chosen with
benchmarks/tune_search.py.
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
SPARSITY = 1.0  # log of the prior odds of a weight of 0 over a weight of 1
ROUNDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The settings of a space as codes, and the likeness of each name's values."""

    codes: npt.NDArray[np.int64]  # (settings, names): index of the name's value
    likeness: tuple[Floats, ...]  # for each name: (values, values)

    @classmethod
    def of(cls, columns: Sequence[Sequence[Any]]) -> Self:
        """The grid of `columns`, which hold each name's value in every setting."""
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
        """The correlation of settings, given by index; shape (rows, columns)."""
        alike = np.ones((len(rows), len(columns)))
        for name, (table, weight) in enumerate(zip(self.likeness, weights, strict=True)):
            at = table[self.codes[rows, name][:, None], self.codes[columns, name]]
            alike *= (1 - weight) + weight * at
        return alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """A Gaussian process conditioned on `values` at the settings `seen`."""

    grid: Grid
    prior: Floats  # of every setting
    seen: npt.NDArray[np.int64]
    values: Floats
    amplitude: float = 0.2
    noise: float = 0.03
    weights: tuple[float, ...] = ()

    @classmethod
    def fitted(cls, grid: Grid, prior: Floats, seen: npt.NDArray[np.int64], values: Floats) -> Self:
        """The process with the amplitude, noise and weights that explain the values best."""
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
    """Expected improvement of a maximum over `best`.

    J. Mockus, 1975; D. R. Jones et al., J. Global Optimization 13, 1998.
    """
    spread = np.maximum(deviation, 1e-9)
    z = (mean - best) / spread
    improvement: Floats = spread * (z * _phi(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))
    return np.maximum(improvement, 0.0)


def chance_below_zero(mean: Floats, deviation: Floats) -> Floats:
    """The probability that a normal variable is below zero."""
    return _phi(-mean / np.maximum(deviation, 1e-9))


def _phi(z: Floats) -> Floats:
    from scipy.special import ndtr

    share: Floats = ndtr(z)
    return share
