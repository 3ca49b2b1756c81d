"""How well the sampling itself went: how late samples began, and where some are missing."""

from collections.abc import Sequence

import numpy as np

from monitors.sampler import Samples

SOURCES = ("gpu", "server", "host")


def jitters_s(samples: Samples, opened_at_s: float, closed_at_s: float) -> dict[str, float]:
    """How late each source's samples began: the 99th percentile of actual minus due start."""
    jitters = {}
    for name in SOURCES:
        columns = getattr(samples, name)
        inside = (columns["at_s"] >= opened_at_s) & (columns["at_s"] <= closed_at_s)
        late_s = columns["late_s"][inside & ~np.isnan(columns["late_s"])]
        if late_s.size:
            jitters[name] = float(np.quantile(late_s, 0.99))
    return jitters


def missed(
    samples: Samples, opened_at_s: float, closed_at_s: float, sources: Sequence[str] = SOURCES
) -> float | None:
    """How many deadlines in the window had no sample; None if no sample can say.

    A sample counts the deadlines missed before it, so the samples in the window and the first one
    after it are asked. A source that hangs to the end of the recording has no such sample; its gap
    (`gap_max_s`) shows that.
    """
    found = []
    for columns in (getattr(samples, name) for name in sources):
        told = ~np.isnan(columns["missed"]) & (columns["at_s"] > opened_at_s)
        inside = columns["missed"][told & (columns["at_s"] <= closed_at_s)]
        after = columns["missed"][told & (columns["at_s"] > closed_at_s)]
        found += [inside, after[:1]]
    counts = np.concatenate(found)
    return float(counts.sum()) if counts.size else None


def gap_max_s(samples: Samples, opened_at_s: float, closed_at_s: float) -> float | None:
    """The longest time in the window without a sample, of any GPU, the server or the host.

    A source without any sample in the whole recording is in its notes, not in this number.
    """
    series = [samples.gpu["at_s"][samples.gpu["gpu"] == i] for i in np.unique(samples.gpu["gpu"])]
    series += [samples.server["at_s"], samples.host["at_s"]]
    gaps_s = []
    for at_s in series:
        if at_s.size:
            inside = at_s[(at_s > opened_at_s) & (at_s < closed_at_s)]
            edges = np.concatenate([[opened_at_s], inside, [closed_at_s]])
            gaps_s.append(float(np.diff(edges).max()))
    return max(gaps_s, default=None)
