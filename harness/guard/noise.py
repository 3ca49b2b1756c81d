"""Two levels of noise: between launches, and between runs within a launch. Pure.

A server draws its luck once per launch (memory layout, autotuned kernels, placement of processes,
order of NCCL's rings) and keeps it, so runs of one launch are not independent. The unit is
therefore the launch, its value the mean of its runs. All computations use logarithms, where a ratio
is a difference and noise of some percent has the same size at any level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """Standard deviations of the logarithm: 0.02 is 2 % noise. None without repetitions."""

    between: float | None
    within: float | None


def launch_means(runs: Mapping[str, Sequence[float]]) -> Floats:
    """Mean over the runs of each launch, shape (launches,); values are logarithms."""
    return np.array([np.mean(values) for values in runs.values()], dtype=float)


def components(runs: Mapping[str, Sequence[float]]) -> Components:
    """One-way random effects, y_ij = mu + launch_i + run_ij, by the method of moments.

        within²  = MSW = sum_ij (y_ij - mean_i)² / (N - k)
        between² = (MSB - MSW) / r0, at least 0;  MSB = sum_i r_i (mean_i - mean)² / (k - 1)
        r0 = (N - sum_i r_i² / N) / (k - 1)

    with k launches of r_i runs, N runs in all (Searle, Casella, McCulloch, Variance Components,
    1992, section 3.6). If no launch has two runs, the levels cannot be separated: `within` is None,
    and `between` is the standard deviation over launches, which contains both.
    """
    groups = [np.asarray(values, dtype=float) for values in runs.values()]
    sizes = np.array([len(group) for group in groups])
    launches, total = len(groups), int(sizes.sum())
    means = launch_means(runs)
    if total == launches:
        return Components(between=float(means.std(ddof=1)) if launches > 1 else None, within=None)
    squares = sum(float(((g - m) ** 2).sum()) for g, m in zip(groups, means, strict=True))
    within_square = squares / (total - launches)
    if launches < 2:
        return Components(between=None, within=within_square**0.5)
    grand = float((sizes * means).sum() / total)
    between_mean_square = float((sizes * (means - grand) ** 2).sum()) / (launches - 1)
    typical_size = (total - float((sizes**2).sum()) / total) / (launches - 1)
    between_square = max(0.0, (between_mean_square - within_square) / typical_size)
    return Components(between=between_square**0.5, within=within_square**0.5)
