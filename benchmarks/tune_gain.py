"""Whether the gain that a tuning reports is true: 200 searches, each with its proof.

Each search runs as in tune_search.py, on one of its six cases, with 3 % of noise on every launch
and a budget of 16 launches: 10 for the search, and a proof of 3 launches each of the winner and of
the defaults, interleaved, whose gain and 95 % interval are what is reported
(harness/guard/verdict.py, paired by round). Beside it stands what the search itself would claim:
the highest score that it has seen, which is the luckiest of many, and the same ratio where the
winner's trial alone counts.

    python benchmarks/tune_gain.py            # two minutes on two cores
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.tune_search import (  # noqa: E402
    CASES,
    COLUMN,
    OBJECTIVE,
    prior_of,
    searched,
    truth_of,
)
from harness.guard.verdict import interval  # noqa: E402
from harness.tune.strategy import Strategy  # noqa: E402

SEARCHES = 200
LAUNCHES = 10
ROUNDS = 3
CONFIDENCE = 0.95
FIRST_SEED = 1000


def reported(number: int) -> tuple[float, float, float, float]:
    """As logarithms over the true gain: the proof's estimate, its limits, the search's maximum."""
    case, seed = CASES[number % len(CASES)], FIRST_SEED + number
    truth, prior = truth_of(case), prior_of(case, seed, 2.0)
    trials = searched(case, seed, prior, LAUNCHES)
    best = Strategy(truth.space, OBJECTIVE, prior, seed).best(trials)
    assert best is not None
    gain = np.log(truth.value[best.setting] / truth.value[truth.space.default])
    random = np.random.default_rng((seed, 4))
    sides = {
        setting: np.log([truth.measured(setting, random) for _ in range(ROUNDS)])
        for setting in (truth.space.default, best.setting)
    }
    baseline, candidate = sides[truth.space.default], sides[best.setting]
    found = interval(baseline, candidate, confidence=CONFIDENCE, paired=True)
    highest = max(trials, key=lambda trial: trial.score or 0.0)
    true_of_highest = np.log(truth.value[highest.setting] / truth.value[truth.space.default])
    claimed = float(np.log(highest.score or 1.0) - true_of_highest)
    return (
        float(found.estimate - gain),
        float(found.low - gain),
        float(found.high - gain),
        claimed,
    )


def main() -> None:
    with ProcessPoolExecutor() as workers:
        found = np.array(list(workers.map(reported, range(SEARCHES), chunksize=5)))
    estimate, low, high, claimed = found.T
    covered = np.mean((low <= 0) & (high >= 0))
    print(f"{SEARCHES} searches of {LAUNCHES} launches, constants of the prior off by up to 2.\n")
    print(
        f"| {COLUMN}, gain over the defaults | too high by: mean | median | within its interval |"
    )
    print("| :--- | ---: | ---: | ---: |")
    told = [f"{np.expm1(v):+.1%}" for v in (np.mean(estimate), np.median(estimate))]
    way = f"proof: {ROUNDS} launches each, {CONFIDENCE:.0%} interval"
    print(f"| {way} |", " | ".join(told), f"| {covered:.1%} |")
    told = [f"{np.expm1(v):+.1%}" for v in (np.mean(claimed), np.median(claimed))]
    print("| the search's highest score |", " | ".join(told), "| has none |")
    width = np.median(high - low) / 2
    print(f"\nThe interval's half-width is {np.expm1(width):.1%} in the median.")


if __name__ == "__main__":
    main()
