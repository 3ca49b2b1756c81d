"""What a server's counters and histograms say about a window: differences between two scrapes."""

import numpy as np

from monitors.histogram import quantile
from monitors.sampler import Columns
from monitors.vllm_metrics import TTFT_BUCKETS


def _around(
    server: Columns, name: str, opened_at_s: float, closed_at_s: float
) -> tuple[float, float] | None:
    """How much a counter grew, and in how many seconds.

    From the last sample before the window to the first one after it; where there is none outside,
    the outermost one inside is used. None if the counter fell: then it is another server's.
    """
    known = ~np.isnan(server[name])
    at_s, total = server["at_s"][known], server[name][known]
    if total.size < 2:
        return None
    first = max(int(np.searchsorted(at_s, opened_at_s, side="right")) - 1, 0)
    last = min(int(np.searchsorted(at_s, closed_at_s, side="left")), total.size - 1)
    within = total[first : last + 1]
    if within.size < 2 or (np.diff(within) < 0).any():
        return None
    return float(within[-1] - within[0]), float(at_s[last] - at_s[first])


def increase(server: Columns, name: str, opened_at_s: float, closed_at_s: float) -> float | None:
    """How much a counter grew over the window; None if unknown."""
    around = _around(server, name, opened_at_s, closed_at_s)
    return around[0] if around else None


def rate(server: Columns, name: str, opened_at_s: float, closed_at_s: float) -> float | None:
    """A counter's growth per second; None if unknown."""
    around = _around(server, name, opened_at_s, closed_at_s)
    return around[0] / around[1] if around else None


def mean_s(server: Columns, name: str, opened_at_s: float, closed_at_s: float) -> float | None:
    """A histogram's mean: increase of its sum / increase of its count; None if that is 0."""
    total_s = increase(server, f"{name}_sum_s", opened_at_s, closed_at_s)
    count = increase(server, f"{name}_total", opened_at_s, closed_at_s)
    return total_s / count if total_s is not None and count else None


def ttft_quantile_s(
    server: Columns, q: float, opened_at_s: float, closed_at_s: float
) -> float | None:
    """A quantile of the histogram's increase, linear inside a bucket and so exact to its width."""
    counts = {
        bound_s: increase(server, column, opened_at_s, closed_at_s)
        for bound_s, column in TTFT_BUCKETS.items()
    }
    known = {bound_s: count for bound_s, count in counts.items() if count is not None}
    total = increase(server, "ttft_total", opened_at_s, closed_at_s)
    return quantile(known, total, q) if total else None
