"""How near the search comes to the best setting, in how few launches: against the whole grid.

The truth is `benchmarks/data/tune_truth.parquet` (tune_truth.py makes it): 432 settings, three
models under two loads. Every answer that a search gets has 3 % noise on it. Printed is Markdown:
the median, and the lowest tenth, over 20 seeds of the true value of the setting that was chosen, as
a share of the true optimum: after an eighth of the grid's launches (or where the search ended
before) and after 12; the median of the launches after which it was, and stayed, at 97 %; and of how
many settings the choice leaves the default, in the mean, and of how many of them in vain: left to
vLLM it would lose less than 1 %. Beside the search stand random search and the grid cut at the
budget.

The prior rests on the very constants that the truth was made with, which a real server does not.
So the search is shown also with every constant wrong by a factor drawn log-uniformly from 1/2 to 2
(others for each seed), on a host twice as slow as the one whose constants it has (with and without
learning that from the defaults), and without any prior.

    python benchmarks/tune_search.py            # ten minutes on two cores
"""

import sys
from collections.abc import Callable, Mapping, Sequence
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
from harness.engines.config import SIM_NUM_GPUS, SimEngine  # noqa: E402
from harness.model import Model  # noqa: E402
from harness.sim import roofline  # noqa: E402
from harness.tune.config import Tune  # noqa: E402
from harness.tune.objective import Objective  # noqa: E402
from harness.tune.prior import Prior  # noqa: E402
from harness.tune.space import Space, without  # noqa: E402
from harness.tune.strategy import Forecast, Strategy  # noqa: E402
from harness.tune.trial import Outcome, Setting, Trial, chosen  # noqa: E402
from loadgen.config import Load, Slo, Uniform  # noqa: E402

NOISE = 0.03
SEEDS = range(100, 120)  # not those by which the strategy was chosen, 0 to 11
GOAL = 0.97
FEW = 12
IDLE = 0.99  # of the true value: what is left without a setting that does nothing
COLUMN = "output_tok_per_s"
CONSTANTS = (
    *(
        "COMPUTE_EFFICIENCY",
        "MEMORY_EFFICIENCY",
        "KERNEL_FLOOR_S",
        "LAUNCH_LAYER_S",
        "PIECE_LAYER_S",
    ),
    *("CPU_STEP_S", "CPU_SEQUENCE_S", "API_CHUNK_S", "API_REQUEST_S", "API_LATENCY_S"),
)
OF_HOST = (
    *("LAUNCH_LAYER_S", "PIECE_LAYER_S", "CPU_SEQUENCE_S"),
    *("API_CHUNK_S", "API_REQUEST_S"),
)
FASTER = {name: getattr(roofline, name) / 2 for name in OF_HOST}  # than the truth's host
ForecastFor = Callable[[float], Forecast | None]  # given what the defaults were measured to have
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

    def share(self, setting: Setting) -> float:
        """Its true value over the optimum."""
        return self.value[setting] / self.best

    def idle(self, setting: Setting) -> list[str]:
        """What it changes of the defaults in vain."""
        least = IDLE * self.value[setting]
        return [n for n in chosen(setting) if self.value[without(setting, n)] >= least]

    def measured(self, setting: Setting, random: np.random.Generator) -> float:
        """One launch."""
        return self.value[setting] * float(np.exp(NOISE * random.standard_normal()))


@cache
def truth_of(case: Case) -> Truth:
    return Truth(case)


def wrong_by(factor: float, seed: int) -> dict[str, float]:
    """Constants that are each wrong by up to a factor."""
    random = np.random.default_rng((seed, 1))
    factors = np.exp(np.log(factor) * random.uniform(-1, 1, len(CONSTANTS)))
    now = {name: getattr(roofline, name) for name in CONSTANTS}
    return {name: value * f for (name, value), f in zip(now.items(), factors, strict=True)}


def prior_of(case: Case, constants: Mapping[str, float], *, is_fitted: bool = True) -> ForecastFor:
    """The prior with these constants, fitted to the defaults as in a tuning, or not."""
    low, high = case.output_tokens
    load = Load(
        arrival="closed",
        concurrency=case.concurrency,
        input_tokens=case.input_tokens,
        output_tokens=Uniform(min=low, max=high),
    )
    model = Model(**yaml.safe_load((ROOT / f"conf/model/{case.model}.yaml").read_text()))
    space = truth_of(case).space
    assert isinstance(space.pinned, SimEngine)
    prior = Prior(model=model, loads=[load], gpu=space.pinned.gpu, num_gpus=SIM_NUM_GPUS, slo=Slo())

    @cache
    def forecast_for(defaults: float) -> Forecast | None:
        with patch.multiple(roofline, **constants):
            rows = [{COLUMN: defaults}] if is_fitted else []
            return prior.fitted(space, rows).forecast(space)

    return forecast_for


def strategy_of(case: Case, seed: int, prior: ForecastFor, defaults: float) -> Strategy:
    """The strategy once the defaults were measured."""
    return Strategy(truth_of(case).space, OBJECTIVE, prior(defaults), seed)


def searched(case: Case, seed: int, prior: ForecastFor, launches: int) -> list[Trial]:
    """The trials of one search; the choice after each is the strategy's `best` of those so far."""
    truth, random = truth_of(case), np.random.default_rng((seed, 2))
    strategy: Strategy | None = None
    trials: list[Trial] = []
    defaults: Outcome | None = None
    while len(trials) < launches:
        setting = truth.space.default
        if strategy is not None:
            proposal = strategy.propose(trials)
            if proposal.setting is None:
                break
            setting = proposal.setting
        value = truth.measured(setting, random)
        outcome = Outcome.measured([{COLUMN: value}])
        defaults = defaults or outcome
        strategy = strategy or strategy_of(case, seed, prior, value)
        trials.append(OBJECTIVE.judge(len(trials), setting, outcome, defaults))
    return trials


def chosen_by_search(case: Case, seed: int, prior: ForecastFor) -> list[Setting]:
    """What would be chosen after each launch."""
    trials = searched(case, seed, prior, truth_of(case).launches)
    strategy = strategy_of(case, seed, prior, dict(trials[0].values)[COLUMN])
    found = [strategy.best(trials[:end]) for end in range(1, len(trials) + 1)]
    return [trial.setting for trial in found if trial is not None]


def chosen_in_order(case: Case, seed: int, order: Sequence[Setting]) -> list[Setting]:
    """The same where settings are tried in this order and the highest measurement is chosen."""
    truth, random = truth_of(case), np.random.default_rng((seed, 2))
    measured = [truth.measured(setting, random) for setting in order]
    return [order[int(np.argmax(measured[:end]))] for end in range(1, len(order) + 1)]


def of_prior(case: Case, seed: int) -> list[Setting]:
    return chosen_by_search(case, seed, prior_of(case, wrong_by(1.0, seed)))


def of_wrong_prior(case: Case, seed: int) -> list[Setting]:
    return chosen_by_search(case, seed, prior_of(case, wrong_by(2.0, seed)))


def of_slow_host(case: Case, seed: int) -> list[Setting]:
    return chosen_by_search(case, seed, prior_of(case, FASTER))


def of_slow_host_unlearnt(case: Case, seed: int) -> list[Setting]:
    return chosen_by_search(case, seed, prior_of(case, FASTER, is_fitted=False))


def of_no_prior(case: Case, seed: int) -> list[Setting]:
    return chosen_by_search(case, seed, lambda _: None)


def of_random(case: Case, seed: int) -> list[Setting]:
    truth = truth_of(case)
    others = truth.space.settings()[1:]
    drawn = np.random.default_rng((seed, 3)).permutation(len(others))[: truth.launches - 1]
    return chosen_in_order(case, seed, [truth.space.default, *(others[i] for i in drawn)])


def of_cut_grid(case: Case, seed: int) -> list[Setting]:
    """As a sweep goes through it, its last axis fastest, until the budget is spent."""
    order = [tuple(setting.items()) for setting in settings()][: truth_of(case).launches]
    return chosen_in_order(case, seed, order)


WAYS: dict[str, Callable[[Case, int], list[Setting]]] = {
    "search": of_prior,
    "search, constants off by up to 2": of_wrong_prior,
    "search, host 2 x as slow": of_slow_host,
    "search, host 2 x as slow, not learnt": of_slow_host_unlearnt,
    "search without prior": of_no_prior,
    "random": of_random,
    "grid, cut": of_cut_grid,
}


def launches_needed(shares: Sequence[float]) -> int | None:
    """The first launch from which on the choice stays at the goal."""
    below = [place for place, share in enumerate(shares) if share < GOAL]
    first = below[-1] + 1 if below else 0
    return first + 1 if first < len(shares) else None


def cells(truth: Truth, found: list[list[Setting]]) -> str:
    """Of one way in one case; `found` has a list for each seed."""
    shares = [[truth.share(setting) for setting in settings] for settings in found]
    last = [each[-1] for each in shares]
    needed = np.median([launches_needed(each) or np.inf for each in shares])
    used = np.median([len(each) for each in shares])
    early = np.median([each[:FEW][-1] for each in shares])
    changed, idle = (
        np.mean([len(names(settings[-1])) for settings in found]) for names in (chosen, truth.idle)
    )
    return " | ".join(
        (
            f"{np.median(last):.1%} ({np.quantile(last, 0.1):.1%})",
            f"{used:.0f}",
            f"{early:.1%}",
            f"{needed:.0f}" if np.isfinite(needed) else "–",
            f"{changed:.1f} ({idle:.1f})",
        )
    )


def main() -> None:
    budget, size = truth_of(CASES[0]).launches, len(truth_of(CASES[0]).value)
    print(f"{size} settings, at most {budget} launches, {len(SEEDS)} seeds, noise {NOISE:.0%}.\n")
    print(
        "| case | way | share of the optimum: median (lowest tenth) | launches used"
        f" | share after {FEW} | launches to {GOAL:.0%} | settings changed (in vain) |"
    )
    print("| :--- | :--- | ---: | ---: | ---: | ---: | ---: |")
    with ProcessPoolExecutor() as workers:
        jobs = {
            key: [workers.submit(WAYS[key[1]], key[0], seed) for seed in SEEDS]
            for key in product(CASES, WAYS)
        }
        for (case, way), futures in jobs.items():
            found = [future.result() for future in futures]
            print(f"| {case.name} | {way} | {cells(truth_of(case), found)} |", flush=True)


if __name__ == "__main__":
    main()
