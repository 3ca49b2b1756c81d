"""How near the search comes to the best setting, in how few launches: against the whole grid.

The truth is `benchmarks/data/tune_truth.parquet` (tune_truth.py makes it): 432 settings, three
models under two loads. Every answer that a search gets has 3 % noise on it. Printed is Markdown:
the median, and the lowest tenth, over 20 seeds of the true value of the setting that was chosen, as
a share of the true optimum: after an eighth of the grid's launches (or where the search ended
before) and after 12; and the median of the launches after which it was, and stayed, at 97 %. Beside
the search stand random search and the grid cut at the budget.

The prior rests on the very constants that the truth was made with, which a real server does not.
So the search is shown three times: with it, with every constant wrong by a factor drawn
log-uniformly from 1/2 to 2 (others for each seed), and without any prior.

    python benchmarks/tune_search.py            # ten minutes on two cores
"""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.tune_truth import CASES, SPACE, TRUTH, Case, settings  # noqa: E402
from harness.engines.config import SimEngine  # noqa: E402
from harness.model import Model  # noqa: E402
from harness.sim import roofline  # noqa: E402
from harness.tune.config import Tune  # noqa: E402
from harness.tune.objective import Objective  # noqa: E402
from harness.tune.prior import forecast  # noqa: E402
from harness.tune.space import Space  # noqa: E402
from harness.tune.strategy import Forecast, Strategy  # noqa: E402
from harness.tune.trial import Outcome, Setting, Trial  # noqa: E402
from loadgen.config import Load, Uniform  # noqa: E402

NOISE = 0.03
SEEDS = range(100, 120)  # not those by which the strategy was chosen, 0 to 11
GOAL = 0.97
FEW = 12
COLUMN = "output_tok_per_s"
CONSTANTS = (
    *("COMPUTE_EFFICIENCY", "MEMORY_EFFICIENCY", "KERNEL_FLOOR_S", "LAUNCH_LAYER_S"),
    *("CPU_STEP_S", "CPU_SEQUENCE_S", "API_CHUNK_S", "API_REQUEST_S", "API_LATENCY_S"),
)
OBJECTIVE = Objective.of(
    Tune(maximise=[COLUMN], space={"max_num_seqs": [1]}, cost_per_gpu_hour=None)
)


class Truth:
    """The grid of one case."""

    def __init__(self, case: Case) -> None:
        rows = pd.read_parquet(TRUTH)
        rows = rows[rows["case"] == case.name]
        names = list(SPACE)
        keys = rows[names].astype(object).where(rows[names].notna(), None).to_numpy()
        values = rows[COLUMN].to_numpy(float)
        self.value = {
            tuple(zip(names, key, strict=True)): value
            for key, value in zip(keys, values, strict=True)
        }
        self.best = float(values.max())
        space = {name: list(values) for name, values in SPACE.items()}
        tune = Tune(maximise=[COLUMN], space=space, cost_per_gpu_hour=None)
        self.space = Space.of(tune, SimEngine(gpu=case.gpu))
        assert set(self.space.settings()) == set(self.value)

    @property
    def launches(self) -> int:
        """An eighth of the grid."""
        return len(self.value) // 8

    def measured(self, setting: Setting, random: np.random.Generator) -> float:
        """One launch."""
        return self.value[setting] * float(np.exp(NOISE * random.standard_normal()))


@cache
def truth_of(case: Case) -> Truth:
    return Truth(case)


def prior_of(case: Case, seed: int, wrong_by: float) -> Forecast:
    """The forecast, with constants that are each wrong by up to a factor."""
    random = np.random.default_rng((seed, 1))
    factors = np.exp(np.log(wrong_by) * random.uniform(-1, 1, len(CONSTANTS)))
    now = {name: getattr(roofline, name) for name in CONSTANTS}
    wrong = {name: value * f for (name, value), f in zip(now.items(), factors, strict=True)}
    low, high = case.output_tokens
    load = Load(
        arrival="closed",
        concurrency=case.concurrency,
        input_tokens=case.input_tokens,
        output_tokens=Uniform(min=low, max=high),
    )
    model = Model(**yaml.safe_load((ROOT / f"conf/model/{case.model}.yaml").read_text()))
    with patch.multiple(roofline, **wrong):
        found = forecast(truth_of(case).space, model, [load], None, 0)
    assert found is not None
    return found


def searched(case: Case, seed: int, prior: Forecast | None, launches: int) -> list[Trial]:
    """The trials of one search; the choice after each is the strategy's `best` of those so far."""
    truth, random = truth_of(case), np.random.default_rng((seed, 2))
    strategy = Strategy(truth.space, OBJECTIVE, prior, seed)
    trials: list[Trial] = []
    defaults: Outcome | None = None
    while len(trials) < launches:
        setting = truth.space.default
        if trials:
            proposal = strategy.propose(trials)
            if proposal.setting is None:
                break
            setting = proposal.setting
        outcome = Outcome.measured([{COLUMN: truth.measured(setting, random)}])
        defaults = defaults or outcome
        trials.append(OBJECTIVE.judge(len(trials), setting, outcome, defaults))
    return trials


def shares_of_search(case: Case, seed: int, prior: Forecast | None) -> list[float]:
    """After each launch: the true value of what would be chosen, as a share of the optimum."""
    truth = truth_of(case)
    strategy = Strategy(truth.space, OBJECTIVE, prior, seed)
    trials = searched(case, seed, prior, truth.launches)
    chosen = [strategy.best(trials[:end]) for end in range(1, len(trials) + 1)]
    return [truth.value[trial.setting] / truth.best for trial in chosen if trial is not None]


def shares_in_order(case: Case, seed: int, order: Sequence[Setting]) -> list[float]:
    """The same where settings are tried in this order and the highest measurement is chosen."""
    truth, random = truth_of(case), np.random.default_rng((seed, 2))
    measured = [truth.measured(setting, random) for setting in order]
    chosen = [int(np.argmax(measured[:end])) for end in range(1, len(order) + 1)]
    return [truth.value[order[index]] / truth.best for index in chosen]


def of_prior(case: Case, seed: int) -> list[float]:
    return shares_of_search(case, seed, prior_of(case, seed, 1.0))


def of_wrong_prior(case: Case, seed: int) -> list[float]:
    return shares_of_search(case, seed, prior_of(case, seed, 2.0))


def of_no_prior(case: Case, seed: int) -> list[float]:
    return shares_of_search(case, seed, None)


def of_random(case: Case, seed: int) -> list[float]:
    truth = truth_of(case)
    others = truth.space.settings()[1:]
    drawn = np.random.default_rng((seed, 3)).permutation(len(others))[: truth.launches - 1]
    return shares_in_order(case, seed, [truth.space.default, *(others[i] for i in drawn)])


def of_cut_grid(case: Case, seed: int) -> list[float]:
    """As a sweep goes through it, its last axis fastest, until the budget is spent."""
    order = [tuple(setting.items()) for setting in settings()][: truth_of(case).launches]
    return shares_in_order(case, seed, order)


WAYS: dict[str, Callable[[Case, int], list[float]]] = {
    "search": of_prior,
    "search, constants off by up to 2": of_wrong_prior,
    "search without prior": of_no_prior,
    "random": of_random,
    "grid, cut": of_cut_grid,
}


def launches_needed(shares: Sequence[float]) -> int | None:
    """The first launch from which on the choice stays at the goal."""
    below = [place for place, share in enumerate(shares) if share < GOAL]
    first = below[-1] + 1 if below else 0
    return first + 1 if first < len(shares) else None


def cell(found: list[list[float]]) -> str:
    last = [shares[-1] for shares in found]
    needed = [launches_needed(shares) or np.inf for shares in found]
    median = np.median(needed)
    told = f"{median:.0f}" if np.isfinite(median) else "–"
    used = np.median([len(shares) for shares in found])
    early = np.median([shares[:FEW][-1] for shares in found])
    final = f"{np.median(last):.1%} ({np.quantile(last, 0.1):.1%})"
    return f"{final} | {used:.0f} | {early:.1%} | {told}"


def main() -> None:
    budget, size = truth_of(CASES[0]).launches, len(truth_of(CASES[0]).value)
    print(f"{size} settings, at most {budget} launches, {len(SEEDS)} seeds, noise {NOISE:.0%}.\n")
    print(
        "| case | way | share of the optimum: median (lowest tenth) | launches used"
        f" | share after {FEW} | launches to {GOAL:.0%} |"
    )
    print("| :--- | :--- | ---: | ---: | ---: | ---: |")
    with ProcessPoolExecutor() as workers:
        jobs = {
            key: [workers.submit(WAYS[key[1]], key[0], seed) for seed in SEEDS]
            for key in product(CASES, WAYS)
        }
        for (case, way), futures in jobs.items():
            found = [future.result() for future in futures]
            print(f"| {case.name} | {way} | {cell(found)} |", flush=True)


if __name__ == "__main__":
    main()
