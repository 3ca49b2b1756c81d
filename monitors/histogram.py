"""Quantiles of a Prometheus histogram, which has counts per bucket but no values.

Values are assumed to lie evenly inside their bucket, so an estimate is only as exact as its bucket
is narrow, like that of PromQL's histogram_quantile.
"""

from collections.abc import Mapping


def quantile(counts: Mapping[float, float], total: float, q: float) -> float | None:
    """The q-quantile, linear inside its bucket; None if nothing was counted.

    `counts`: upper bound -> how many values were at most that. A quantile above the last bound is
    not known; that bound is returned, as a lower limit.
    """
    if total <= 0 or not counts:
        return None
    rank = q * total
    lower, below = 0.0, 0.0
    for upper, count in sorted(counts.items()):
        if count >= rank and count > below:
            return lower + (upper - lower) * max(0.0, rank - below) / (count - below)
        lower, below = upper, max(below, count)
    return lower
