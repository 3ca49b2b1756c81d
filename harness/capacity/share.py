"""How sure runs are of the share of requests that keep the limits. Pure.

A limit on a 99th percentile, and a share of requests that must keep the limits, are one question:
p99 <= x says that at least 99 % of the requests took no longer than x. It is answered with an
interval for that share: met if all of it is at or above what is asked for, missed if all of it is
below, unresolved if it holds both.

Requests of one run are not independent: those that wait in one queue break a limit together. So
the interval is not that of n requests but of fewer, n / D. D, the design effect, is by how much the
shares of successive batches of requests differ more than those of independent requests would. It is
estimated over all runs of a search, because a run in which nothing broke cannot show it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.9  # of the interval: each side is wrong in one case of twenty
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
BATCHES = 3  # of a run: few, so that a queue's ups and downs fall into one
EFFECT = 10.0  # the design effect that is assumed, as if seen in …
EFFECT_BATCHES = 3  # … so many batches


class Verdict(StrEnum):
    """Whether limits hold."""

    MET = "met"
    MISSED = "missed"
    UNRESOLVED = "unresolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Requests that kept the limits, of how many, batch by batch in the order of time."""

    kept: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()

    def __add__(self, other: "Share") -> "Share":
        return Share(kept=self.kept + other.kept, counts=self.counts + other.counts)

    @property
    def count(self) -> float:
        """Requests."""
        return sum(self.counts)

    @property
    def frac(self) -> float | None:
        """None of no request."""
        return sum(self.kept) / self.count if self.count else None

    def interval(self, effect: float) -> tuple[float, float]:
        """Wilson's for a binomial share of n / `effect`: sound where few or none broke a limit."""
        n, p = self.count / effect, self.frac
        if p is None:
            return 0.0, 1.0
        center = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        return max(0.0, center - half), min(1.0, center + half)

    def verdict(self, share_frac: float, effect: float) -> Verdict:
        """Whether at least this share keeps the limits."""
        low, high = self.interval(effect)
        if low >= share_frac:
            return Verdict.MET
        return Verdict.MISSED if high < share_frac else Verdict.UNRESOLVED


def share_of(kept: npt.NDArray[np.bool_]) -> Share:
    """Of the requests of one run, in the order of time; (num_requests,)."""
    parts = [part for part in np.array_split(kept, BATCHES) if len(part)]
    return Share(
        kept=tuple(float(part.sum()) for part in parts),
        counts=tuple(float(len(part)) for part in parts),
    )


def design_effect(shares: Iterable[Share]) -> float:
    """D of all these, one for each rate; at least 1.

    Sum over batches of (k - n p)^2 over that of n p (1 - p), which independent requests would have;
    p is the share of the rate. With few batches it is pulled towards `EFFECT`.
    """
    ratios = [ratio for share in shares for ratio in _ratios(share)]
    return max(1.0, (EFFECT * EFFECT_BATCHES + sum(ratios)) / (EFFECT_BATCHES + len(ratios)))


def _ratios(share: Share) -> Sequence[float]:
    """Of each batch; none where all or no requests kept the limits."""
    p, batches = share.frac, len(share.counts)
    if p in (None, 0.0, 1.0) or batches < 2:
        return ()
    assert p is not None
    lost = batches / (batches - 1)  # p is of the same batches
    counted = zip(share.kept, share.counts, strict=True)
    return [lost * (k - n * p) ** 2 / (n * p * (1 - p)) for k, n in counted]


def is_hopeless(broken: int, planned: float, share_frac: float) -> bool:
    """Whether a run is missed already, even if all the rest of its planned requests keep the
    limits."""
    kept = max(0.0, planned - broken)
    share = Share(kept=(kept,), counts=(max(planned, broken),))
    return share.verdict(share_frac, EFFECT) == Verdict.MISSED
