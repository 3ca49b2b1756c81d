"""Quantiles of a Prometheus histogram, which keeps counts by bucket and no values.

What is estimated cannot be better than the buckets: values are taken to lie evenly inside theirs,
so an estimate is right to the width of its bucket, as PromQL's histogram_quantile is.
"""

from collections.abc import Mapping


def quantile(counts: Mapping[float, float], total: float, q: float) -> float | None:
    """The q-quantile, linear inside its bucket; None if nothing was counted.

    `counts`: upper bound -> how many values were at most that. Above the last bound nothing is
    known, and that bound is returned: the quantile is at least so large.
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
