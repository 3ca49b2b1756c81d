"""Whether the gain that a tuning reports is true: 200 searches, each with its proof.

Each search runs as in tune_search.py, on one of its six cases, with 3 % of noise on every launch
and a budget of 16 launches: 10 for the search, and a proof of 3 launches each of the winner and of
the defaults, interleaved, whose gain and 95 % interval are what is reported
(harness/guard/verdict.py, paired by round; Welch's beside it). Below stands what the search itself
would claim: the highest score that it has seen, which is the luckiest of many.

    python benchmarks/tune_gain.py            # two minutes on two cores
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.tune_search import (  # noqa: E402
    CASES,
    COLUMN,
    prior_of,
    searched,
    strategy_of,
    truth_of,
    wrong_by,
)
from harness.guard.verdict import interval  # noqa: E402

SEARCHES = 200
LAUNCHES = 10
ROUNDS = 3
CONFIDENCE = 0.95
FIRST_SEED = 1000


def reported(number: int) -> tuple[float, ...]:
    """As logarithms over the true gain: the proof's estimate, the limits of its paired interval and
    of Welch's, and the search's maximum."""
    case, seed = CASES[number % len(CASES)], FIRST_SEED + number
    truth, prior = truth_of(case), prior_of(case, wrong_by(2.0, seed))
    trials = searched(case, seed, prior, LAUNCHES)
    best = strategy_of(case, seed, prior, dict(trials[0].values)[COLUMN]).best(trials)
    assert best is not None
    gain = np.log(truth.value[best.setting] / truth.value[truth.space.default])
    random = np.random.default_rng((seed, 4))
    sides = {
        setting: np.log([truth.measured(setting, random) for _ in range(ROUNDS)])
        for setting in (truth.space.default, best.setting)
    }
    baseline, candidate = sides[truth.space.default], sides[best.setting]
    paired, welch = (
        interval(baseline, candidate, confidence=CONFIDENCE, paired=paired)
        for paired in (True, False)
    )
    highest = max(trials, key=lambda trial: trial.score or 0.0)
    true_of_highest = np.log(truth.value[highest.setting] / truth.value[truth.space.default])
    claimed = float(np.log(highest.score or 1.0) - true_of_highest)
    return (
        float(paired.estimate - gain),
        *(float(end - gain) for end in (paired.low, paired.high, welch.low, welch.high)),
        claimed,
    )


def main() -> None:
    with ProcessPoolExecutor() as workers:
        found = np.array(list(workers.map(reported, range(SEARCHES), chunksize=5)))
    estimate, *ends, claimed = found.T
    print(f"{SEARCHES} searches of {LAUNCHES} launches, constants of the prior off by up to 2.\n")
    print("| reported gain | too high by: mean | median | half-width | true gain within |")
    print("| :--- | ---: | ---: | ---: | ---: |")
    for test, low, high in (("paired", *ends[:2]), ("Welch", *ends[2:])):
        covered = np.mean((low <= 0) & (high >= 0))
        width = np.expm1(np.median(high - low) / 2)
        way = f"proof: {ROUNDS} launches each, {CONFIDENCE:.0%} interval, {test}"
        print(f"| {way} | {_over(estimate)} | {width:.1%} | {covered:.1%} |")
    print(f"| the search's highest score | {_over(claimed)} | | |")


def _over(logs: npt.NDArray[np.float64]) -> str:
    return " | ".join(f"{np.expm1(value):+.1%}" for value in (logs.mean(), np.median(logs)))


if __name__ == "__main__":
    main()
