"""How often the verdict of `compare` is wrong, and what it takes to see a slowdown.

    python benchmarks/verdict_errors.py      # prints the tables of docs/verdict.md in a minute

A/A: 4,000 comparisons of two sides in which nothing differs, for each shape of noise and number of
launches; 6 points x 5 metrics are judged at once. A wrong one calls anything regressed or improved.
The stricter count beside it: some interval misses the truth, so that a threshold of zero would have
been wrong. A/B: one side is really slower. Both are judged by the functions that `compare` uses.

Noise is made as launches make it: one draw that all points and metrics of a launch share, one that
a metric shares over its points, and one of its own, in equal parts; p99s are noisier than medians.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from harness.direction import better
from harness.guard import verdict
from harness.guard.config import Guard, read_guard
from harness.guard.noise import Floats
from harness.guard.outcome import Verdict
from harness.guard.verdict import Region, Sureness

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "results/reference"
MIN_RECORDED = 5  # launches: fewer show no noise to draw from
COMPARISONS = 4000
POINTS = 6
FAMILIES = (1, 5, 30)
LAUNCHES = (3, 5, 8, 12)
SLOWDOWNS = (0.02, 0.05, 0.10, 0.20)
NOISE = 0.01  # standard deviation between launches of a throughput or a median
TAIL_NOISE = 0.03  # of a p99
LAUNCH_EFFECT = 0.05
LOUD = 4
DRIFT = 0.10  # over a whole experiment, first launch to last
BAD_LAUNCH = 0.20
FIXED_RULE = 0.10

# Noise of both sides in the order of time: shape (comparisons, points, metrics, 2 · launches).
Draw = Callable[[np.random.Generator, int], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One kind of noise."""

    name: str
    draw: Draw
    sees_drift: bool = True  # False: what the verdict would be if it did not look for drift


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Verdicts of many comparisons, shape (comparisons, questions)."""

    verdicts: npt.NDArray[np.object_]
    missed: npt.NDArray[np.bool_]  # the interval misses the truth

    def share_with(self, *kinds: Verdict) -> int:
        """How many comparisons have any such verdict."""
        return int(np.isin(self.verdicts, kinds).any(axis=1).sum())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--comparisons", type=int, default=COMPARISONS)
    comparisons = options.parse_args().comparisons
    guard = read_guard("default")
    tables = (null_tables(guard, comparisons), power_tables(guard, comparisons), width_table(guard))
    for line in chain(*tables):
        print(line)


def shapes(metrics: list[str], comparisons: int) -> list[Shape]:
    """The kinds of noise that the verdict is tried with."""

    def normal(random: np.random.Generator, times: int) -> Floats:
        return layered(random.standard_normal, metrics, comparisons, times)

    def heavy(random: np.random.Generator, times: int) -> Floats:
        return layered(lambda size: random.standard_t(3, size), metrics, comparisons, times)

    def launch_effect(random: np.random.Generator, times: int) -> Floats:
        effect = random.standard_normal((comparisons, 1, 1, times)) * LAUNCH_EFFECT
        return normal(random, times) + effect * signs(metrics)

    def drift(random: np.random.Generator, times: int) -> Floats:
        return normal(random, times) + np.linspace(0, DRIFT, times) * signs(metrics)

    def strong_drift(random: np.random.Generator, times: int) -> Floats:
        return LOUD * normal(random, times) + np.linspace(0, 2 * DRIFT, times) * signs(metrics)

    def bad_launch(random: np.random.Generator, times: int) -> Floats:
        which = random.integers(times, size=(comparisons, 1, 1, 1))
        is_bad = np.arange(times) == which
        return normal(random, times) + is_bad * BAD_LAUNCH * signs(metrics)

    return [
        Shape(name=f"normal, {NOISE:.0%} and {TAIL_NOISE:.0%} (p99)", draw=normal),
        Shape(name="heavy tail: Student's t with 3 degrees of freedom", draw=heavy),
        Shape(
            name=f"launch effect: {LAUNCH_EFFECT:.0%} more, the same in a whole launch",
            draw=launch_effect,
        ),
        Shape(name=f"drift: {DRIFT:.0%} from the first launch to the last", draw=drift),
        Shape(name="the same, if drift were not looked for", draw=drift, sees_drift=False),
        Shape(name=f"drift: {2 * DRIFT:.0%}, in {LOUD} times the noise", draw=strong_drift),
        Shape(name=f"one bad launch: {BAD_LAUNCH:.0%} slower", draw=bad_launch),
    ]


def layered(
    draw: Callable[[tuple[int, ...]], Floats], metrics: list[str], comparisons: int, times: int
) -> Floats:
    """A third of the variance for each level: the launch, its metric, and metric at a point."""
    size = (comparisons, POINTS, len(metrics), times)
    shared = draw((comparisons, 1, 1, times)) * signs(metrics)
    parts = shared + draw((comparisons, 1, len(metrics), times)) + draw(size)
    return scales(metrics) * parts / np.sqrt(3)


def scales(metrics: list[str]) -> Floats:
    """Standard deviation of each metric, shape (metrics, 1)."""
    return np.array([[TAIL_NOISE if "p99" in metric else NOISE] for metric in metrics])


def signs(metrics: list[str]) -> Floats:
    """A slow launch has a lower throughput and higher latencies, shape (metrics, 1)."""
    return np.array([[-1.0 if better(metric) == "high" else 1.0] for metric in metrics])


def recorded(metrics: list[str], comparisons: int) -> Iterator[tuple[Shape, list[str]]]:
    """Launches drawn with replacement from those of a reference study, about their mean."""
    for path in sorted(REFERENCE.glob("**/table.csv")):
        table = pd.read_csv(path)
        known = [metric for metric in metrics if (table[metric] > 0).all()]
        groups = table.groupby(["point", "launch_repeat"])[known].mean()
        logs = np.log(groups).unstack("launch_repeat").dropna(axis=1)
        launches = logs.shape[1] // max(1, len(known))
        if launches < MIN_RECORDED:
            continue
        residuals = logs.to_numpy().reshape(len(logs), len(known), launches)
        residuals = residuals - residuals.mean(axis=-1, keepdims=True)
        name = f"recorded: {launches} launches of {path.parent.relative_to(REFERENCE)}"
        yield Shape(name=name, draw=partial(resampled, residuals, comparisons)), known


def resampled(
    residuals: Floats, comparisons: int, random: np.random.Generator, times: int
) -> Floats:
    """Whole launches, so that what hangs together in one stays together."""
    chosen = random.integers(residuals.shape[-1], size=(comparisons, times))
    return np.moveaxis(residuals[:, :, chosen], 2, 0)


def judged(
    noise: Floats,
    metrics: list[str],
    guard: Guard,
    *,
    interleaved: bool,
    sees_drift: bool = True,
    truth: Floats | float = 0.0,
    looks: int = 1,
) -> Judged:
    """All comparisons at once. `truth` is the log ratio that the candidate really has."""
    times = noise.shape[-1]
    candidate_at = in_blocks(times) if interleaved else np.arange(times) >= times // 2
    baseline, candidate = noise[..., ~candidate_at], noise[..., candidate_at] + truth
    family = int(np.prod(noise.shape[1:3]))
    sure = Sureness.of(guard.alpha, family, looks)
    found = verdict.interval(baseline, candidate, confidence=sure.past, paired=interleaved)
    reach = np.zeros(found.low.shape)
    if sees_drift and not interleaved:
        reach = verdict.drift_reach(baseline, candidate)
    verdicts = np.empty(found.low.shape, dtype=object)
    for index, metric in enumerate(metrics):
        region = Region.around_one(guard.thresholds_frac[metric])
        sides = baseline[:, :, index], candidate[:, :, index]
        verdicts[:, :, index] = verdict.judge(
            verdict.deciding(*sides, region, sure, paired=interleaved, reach=reach[:, :, index]),
            region,
            higher_is_better=better(metric) == "high",
        )
    value = np.broadcast_to(np.asarray(truth)[..., 0] if np.ndim(truth) else truth, found.low.shape)
    missed = (found.low > value) | (found.high < value)
    flat = (len(noise), -1)
    return Judged(verdicts=verdicts.reshape(flat), missed=missed.reshape(flat).any(axis=1))


def in_blocks(times: int) -> np.ndarray:
    """Which launches are the candidate's, where blocks of two alternate their order: AB BA AB."""
    return np.array([(index % 2) ^ (index // 2 % 2) for index in range(times)], dtype=bool)


def null_tables(guard: Guard, comparisons: int) -> Iterator[str]:
    """A/A: nothing differs."""
    found = [(shape, guard.metrics) for shape in shapes(guard.metrics, comparisons)]
    found += recorded(guard.metrics, comparisons)
    for interleaved in (False, True):
        yield f"**A/A, {design(interleaved)}:** wrong verdicts in {comparisons:,} comparisons"
        yield "(comparisons in which some interval misses the truth)\n"
        yield from head("noise", LAUNCHES)
        for shape, metrics in found:
            if interleaved and not shape.sees_drift:
                continue  # it never does there
            cells = []
            for launches in LAUNCHES:
                random = np.random.default_rng([launches, len(shape.name)])
                noise = shape.draw(random, 2 * launches)
                one = judged(
                    noise, metrics, guard, interleaved=interleaved, sees_drift=shape.sees_drift
                )
                wrong = one.share_with(Verdict.REGRESSED, Verdict.IMPROVED)
                cells.append(f"{share(wrong, comparisons)} ({one.missed.mean():.1%})")
            yield row(shape.name, cells)
        yield ""


def power_tables(guard: Guard, comparisons: int) -> Iterator[str]:
    """A/B: the candidate is slower in everything. Beside it, a fixed rule on one run of each."""
    metrics = guard.metrics
    for shape in shapes(metrics, comparisons)[:3:2]:
        yield f"**A/B, {shape.name}:** regressed / pass; the others are inconclusive\n"
        yield from head("slower by", LAUNCHES, f"one run each, a rule of {FIXED_RULE:.0%}")
        for slower in (0.0, *SLOWDOWNS):
            truth = -np.log(1 - slower) * signs(metrics)
            cells = []
            for launches in LAUNCHES:
                random = np.random.default_rng([launches, round(slower * 100)])
                noise = shape.draw(random, 2 * launches)
                one = judged(noise, metrics, guard, interleaved=False, truth=truth)
                regressed = one.share_with(Verdict.REGRESSED)
                others = one.share_with(Verdict.REGRESSED, Verdict.INCONCLUSIVE)
                cells.append(f"{regressed / comparisons:.0%} / {1 - others / comparisons:.0%}")
            noise = shape.draw(np.random.default_rng(1), 2)
            said = fixed_rule(noise, truth, metrics).mean()
            kind = f"{said:.0%} false alarms" if not slower else f"{1 - said:.0%} missed"
            yield row(f"{slower:.0%}", [*cells, kind])
        yield ""


def fixed_rule(noise: Floats, truth: Floats, metrics: list[str]) -> npt.NDArray[np.bool_]:
    """Which comparisons of one run each have anything that is worse by more than FIXED_RULE."""
    worse = (noise[..., 1:] - noise[..., :1] + truth) * signs(metrics)
    is_rate = signs(metrics) < 0
    loss = np.where(is_rate, -np.expm1(-worse), np.expm1(worse))
    return np.asarray((loss > FIXED_RULE).any(axis=(1, 2, 3)))


def width_table(guard: Guard) -> Iterator[str]:
    """What to plan with: how wide intervals are, over the noise."""
    yield "**Half of an interval's width**, in standard deviations between launches; apart / paired"
    yield ""
    yield from head("to call", LAUNCHES)
    named = {1: "no change, or one change of one number"}
    for family in FAMILIES:
        cells = []
        for launches in LAUNCHES:
            tail = (1 + verdict.level(guard.alpha, family)) / 2
            apart = stats.t.ppf(tail, 2 * launches - 2) * np.sqrt(2 / launches)
            paired = stats.t.ppf(tail, launches - 1) * np.sqrt(2 / launches)
            cells.append(f"{apart:.1f} / {paired:.1f}")
        yield row(named.get(family, f"a change among {family} numbers"), cells)


def design(interleaved: bool) -> str:
    """How the launches of both sides lie in time."""
    return "interleaved in blocks" if interleaved else "one study after the other"


def share(count: int, total: int) -> str:
    """A share with its exact (Clopper-Pearson) 95 % interval."""
    ends = stats.binomtest(count, total).proportion_ci(0.95)
    return f"{count / total:.1%} [{ends.low:.1%}, {ends.high:.1%}]"


def head(first: str, launches: tuple[int, ...], *more: str) -> Iterator[str]:
    """A table's head."""
    cells = [first, *(f"{number} + {number} launches" for number in launches), *more]
    yield row(cells[0], cells[1:])
    yield "|" + " --- |" * len(cells)


def row(first: str, cells: list[str]) -> str:
    """A table's row."""
    return f"| {first} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
