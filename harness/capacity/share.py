"""The share of requests that keep the limits, with its confidence interval. Pure.

A limit on a 99th percentile and a share of requests that must keep the limit are one question: p99
<= x says that at least 99 % of the requests took no longer than x. The answer is an interval for
that share: met if all of it is at or above the share asked for, missed if all of it is below,
unresolved otherwise.

Requests of one run are not independent: those waiting in one queue break a limit together. So the
interval is that of fewer requests, n / D instead of n. The design effect D is how much more the
shares of successive batches vary than those of independent requests would. It is estimated over all
runs of a search, because a run in which nothing broke cannot show it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.9  # two-sided: each end of the interval is wrong in one case of twenty
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
BATCHES = 3  # per run; few, so that the ups and downs of a queue fall within one
EFFECT = 10.0  # prior value of the design effect, which counts as much as …
EFFECT_BATCHES = 3  # … this many observed batches


class Verdict(StrEnum):
    """Whether the limits hold."""

    MET = "met"
    MISSED = "missed"
    UNRESOLVED = "unresolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Requests that kept the limits, and all requests, for each batch in order of time."""

    kept: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()

    def __add__(self, other: "Share") -> "Share":
        return Share(kept=self.kept + other.kept, counts=self.counts + other.counts)

    @property
    def count(self) -> float:
        """Number of requests."""
        return sum(self.counts)

    @property
    def frac(self) -> float | None:
        """Share of requests that kept the limits; None without requests."""
        return sum(self.kept) / self.count if self.count else None

    def interval(self, effect: float) -> tuple[float, float]:
        """The Wilson interval of a binomial share of n / `effect` requests.

        It is sound even where few or no requests broke a limit.
        """
        n, p = self.count / effect, self.frac
        if p is None:
            return 0.0, 1.0
        center = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        return max(0.0, center - half), min(1.0, center + half)

    def verdict(self, share_frac: float, effect: float) -> Verdict:
        """Whether at least `share_frac` of the requests keep the limits."""
        low, high = self.interval(effect)
        if low >= share_frac:
            return Verdict.MET
        return Verdict.MISSED if high < share_frac else Verdict.UNRESOLVED


def share_of(kept: npt.NDArray[np.bool_]) -> Share:
    """The share of one run; `kept` has shape (num_requests,), in order of time."""
    parts = [part for part in np.array_split(kept, BATCHES) if len(part)]
    return Share(
        kept=tuple(float(part.sum()) for part in parts),
        counts=tuple(float(len(part)) for part in parts),
    )


def design_effect(shares: Iterable[Share]) -> float:
    """The design effect D over all rates' shares; at least 1.

    It is the mean over batches of (k - n p)^2 / (n p (1 - p)), the squared deviation over that of
    independent requests, where p is the share of the rate. It is shrunk towards `EFFECT`, whose
    weight is `EFFECT_BATCHES` batches.
    """
    ratios = [ratio for share in shares for ratio in _ratios(share)]
    return max(1.0, (EFFECT * EFFECT_BATCHES + sum(ratios)) / (EFFECT_BATCHES + len(ratios)))


def _ratios(share: Share) -> Sequence[float]:
    """The variance ratio of each batch; none if all or no requests kept the limits."""
    p, batches = share.frac, len(share.counts)
    if p in (None, 0.0, 1.0) or batches < 2:
        return ()
    assert p is not None
    lost = batches / (batches - 1)  # Bessel's correction, as p is estimated from the same batches
    counted = zip(share.kept, share.counts, strict=True)
    return [lost * (k - n * p) ** 2 / (n * p * (1 - p)) for k, n in counted]


def is_hopeless(broken: int, planned: float, share_frac: float) -> bool:
    """Whether a run would miss the limits even if all its remaining requests kept them."""
    kept = max(0.0, planned - broken)
    share = Share(kept=(kept,), counts=(max(planned, broken),))
    return share.verdict(share_frac, EFFECT) == Verdict.MISSED
