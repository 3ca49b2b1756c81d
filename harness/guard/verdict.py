"""From launches to a verdict: intervals, thresholds, and how many more launches are needed. Pure.

The test is Student's t on the logarithms of the launches. For two studies measured apart it is
Welch's (B. L. Welch, Biometrika 34, 1947). If their launches alternated in blocks it is the paired
test, so that whatever both share, drift above all, cancels. It assumes that launches are
independent and that their mean is close enough to normal. Both are SciPy's.

Why not a rank or permutation test, or a bootstrap? With as few launches as anybody can afford, the
first two cannot reach the level that a family of points x metrics needs (five launches against five
have 252 arrangements, so p >= 0.008, while 30 comparisons need 0.0017), and bootstrap intervals of
three to five values are far too short. The t distribution accounts for the unknown noise.

The rule is `regressed` or `improved` only if the whole interval is past the threshold, `unchanged`
only if it lies within. The confidence of an interval depends on where its estimate lies:

- Past the threshold, each interval is one of many that could indicate a change by chance. They hold
  jointly: each has confidence 1 - alpha / (points x metrics), by Bonferroni, which assumes nothing
  about how the metrics of a launch are correlated. The chance of any wrong `regressed` or
  `improved` is at most alpha.
- Within, the confidence is 1 - alpha. A comparison passes only if all are unchanged, so a real
  change must slip through its own interval, whatever the others do: the chance of a wrong pass is
  at most alpha / 2 without any correction (intersection-union test, R. L. Berger, Technometrics 24,
  1982; two one-sided tests, D. J. Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987).

If data are looked at several times until the verdict is settled, both error rates are divided by
the number of looks.

Between studies measured apart, drift continues from one to the next. If a metric has a trend over
the launches, an interval past the threshold is widened by what the trend can explain.

`benchmarks/verdict_errors.py` measures all this, also under noise that violates the assumptions;
docs/verdict.md has its tables.
"""

import warnings
from dataclasses import dataclass
from math import inf, log

import numpy as np
import numpy.typing as npt
from scipy import stats

from harness.guard.noise import Floats
from harness.guard.outcome import Verdict

MIN_LAUNCHES = 2  # of each side; one launch says nothing about how much launches vary
DRIFT_ALPHA = 0.05  # per trend; a needless doubt costs less than drift mistaken for a change
MAX_MORE = 100  # a verdict that needs more launches than this is not worth a number
NO_NOISE = 1e-12  # launches closer together than this are copies, not measurements


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Estimate and limits of log(candidate / baseline), shape (...) for samples (..., launches)."""

    estimate: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The log ratios, from `low` to `high`, that count as no change or that keep a limit."""

    low: float
    high: float

    @classmethod
    def around_one(cls, threshold_frac: float) -> "Region":
        """Changes of less than a share of the baseline's value, in either direction."""
        return cls(low=log(1 - threshold_frac), high=log(1 + threshold_frac))

    @classmethod
    def kept(cls, *, is_floor: bool) -> "Region":
        """The good side of a limit, for ratios value / limit."""
        return cls(low=0.0, high=inf) if is_floor else cls(low=-inf, high=0.0)

    def holds(self, estimate: Floats) -> npt.NDArray[np.bool_]:
        """Whether log ratios lie within."""
        return np.asarray((estimate >= self.low) & (estimate <= self.high))


def level(alpha: float, family: int, looks: int = 1) -> float:
    """The confidence of each of `family` intervals that must hold jointly, at each of the looks."""
    return 1 - alpha / (max(1, family) * looks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sureness:
    """The confidence of intervals: individually, to show no change; jointly, to show one."""

    within: float
    past: float

    @classmethod
    def of(cls, alpha: float, family: int, looks: int = 1) -> "Sureness":
        """The confidences for a family of questions."""
        return cls(within=level(alpha, 1, looks), past=level(alpha, family, looks))


def deciding(
    baseline: Floats | None,
    candidate: Floats,
    region: Region,
    sure: Sureness,
    *,
    paired: bool,
    reach: Floats | float = 0.0,
) -> Interval:
    """The interval that decides, at the confidence needed by the verdict its estimate suggests.

    An interval past the threshold is widened on either side by `reach`, the possible effect of
    drift.
    """
    near = interval(baseline, candidate, confidence=sure.within, paired=paired)
    far = interval(baseline, candidate, confidence=sure.past, paired=paired)
    is_within = region.holds(near.estimate)
    return Interval(
        estimate=near.estimate,
        low=np.where(is_within, near.low, far.low - reach),
        high=np.where(is_within, near.high, far.high + reach),
    )


def interval(
    baseline: Floats | None, candidate: Floats, *, confidence: float, paired: bool
) -> Interval:
    """The interval of log(candidate / baseline), launches along the last axis.

    Without a baseline it is that of the candidate's mean. Paired samples have their blocks in the
    same order. Raises ValueError for fewer than MIN_LAUNCHES.
    """
    sides = [candidate] if baseline is None else [baseline, candidate]
    if min(side.shape[-1] for side in sides) < MIN_LAUNCHES:
        raise ValueError(f"an interval needs {MIN_LAUNCHES} launches of each side")
    estimate = candidate.mean(axis=-1) - (0.0 if baseline is None else baseline.mean(axis=-1))
    with warnings.catch_warnings():
        # SciPy warns if launches are nearly equal; `is_copy` has refused that for both sides.
        warnings.simplefilter("ignore", RuntimeWarning)
        if baseline is None:
            result = stats.ttest_1samp(candidate, 0.0, axis=-1)
        elif paired:
            result = stats.ttest_rel(candidate, baseline, axis=-1)
        else:
            result = stats.ttest_ind(candidate, baseline, axis=-1, equal_var=False)
        limits = result.confidence_interval(confidence)
    return Interval(estimate=estimate, low=limits.low, high=limits.high)


def is_copy(baseline: Floats | None, candidate: Floats, *, paired: bool) -> bool:
    """Whether the launches are all equal, so that there is no noise to judge by."""
    if paired and baseline is not None:
        return bool(np.ptp(candidate - baseline) < NO_NOISE)
    return bool(max(np.ptp(s) for s in (baseline, candidate) if s is not None) < NO_NOISE)


def drift_reach(baseline: Floats, candidate: Floats) -> Floats:
    """How far drift alone can have moved the candidate, as a logarithm; 0 without drift.

    If both sides share a trend over their launches (last axis, in order of time; Student's t of the
    slope about each side's mean, at DRIFT_ALPHA), it is assumed to continue from one study to the
    next. The result is the slope's far confidence limit times the number of launches between the
    middles of the studies.
    """
    freedom = baseline.shape[-1] + candidate.shape[-1] - 3
    if freedom < 1:
        return np.zeros(baseline.shape[:-1])
    products = squares = times = 0.0
    for side in (baseline, candidate):
        deviation = side - side.mean(axis=-1, keepdims=True)
        time = np.arange(side.shape[-1]) - (side.shape[-1] - 1) / 2
        products = products + (deviation * time).sum(axis=-1)
        squares = squares + (deviation**2).sum(axis=-1)
        times += float((time**2).sum())
    slope = np.abs(products / times)
    rest = np.maximum(squares - products**2 / times, NO_NOISE**2)
    margin = stats.t.ppf(1 - DRIFT_ALPHA / 2, freedom) * np.sqrt(rest / freedom / times)
    between = (baseline.shape[-1] + candidate.shape[-1]) / 2
    return np.where(slope > margin, (slope + margin) * between, 0.0)


def judge(found: Interval, region: Region, *, higher_is_better: bool) -> npt.NDArray[np.object_]:
    """The Verdict's value for each interval, in the intervals' shape."""
    below, above = found.high < region.low, found.low > region.high
    worse, better = (below, above) if higher_is_better else (above, below)
    within = (found.low >= region.low) & (found.high <= region.high)
    verdicts = np.full(np.shape(within), Verdict.INCONCLUSIVE.value, dtype=object)
    verdicts[within] = Verdict.UNCHANGED.value
    verdicts[worse] = Verdict.REGRESSED.value
    verdicts[better] = Verdict.IMPROVED.value
    return verdicts


def more_launches(
    baseline: Floats | None, candidate: Floats, region: Region, sure: Sureness, *, paired: bool
) -> int | None:
    """How many more launches of each side would settle it, if estimate and noise stay as they are.

    This is the least k for which the half-width of the deciding interval falls below the distance g
    of the estimate from the nearer end of the region: t(confidence, nu_k) · s_k < g, with

        s_k² = sd_b² / (n_b + k) + sd_c² / (n_c + k),  nu_k = Welch's          (measured apart)
        s_k² = sd_d² / (n + k), sd_d of the pairs' differences, nu_k = n + k - 1      (paired)

    None if MAX_MORE would not suffice, as when the estimate lies on the threshold.
    """
    if paired and baseline is not None:
        candidate, baseline = candidate - baseline, None
    sides = [candidate] if baseline is None else [baseline, candidate]
    estimate = candidate.mean() - (0.0 if baseline is None else baseline.mean())
    confidence = sure.within if region.holds(estimate) else sure.past
    distance = min(abs(estimate - region.low), abs(estimate - region.high))
    variances = np.array([side.var(ddof=1) for side in sides])
    sizes = np.array([len(side) for side in sides])
    for more in range(1, MAX_MORE + 1):
        shares = variances / (sizes + more)
        freedom = shares.sum() ** 2 / (shares**2 / (sizes + more - 1)).sum()
        if stats.t.ppf((1 + confidence) / 2, freedom) * shares.sum() ** 0.5 < distance:
            return more
    return None
