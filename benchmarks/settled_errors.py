"""How often the verdict of `against=BASELINE` is wrong, and after how many launches it comes.

    python benchmarks/settled_errors.py      # prints the tables of docs/verdict.md in a minute

As in verdict_errors.py, whose noise this is, but launches are added in blocks until the verdict is
settled (anything has regressed, or nothing is inconclusive) or the budget is out, with a look at
the data after each number of launches that `harness.duel.blocks.looks` has fixed beforehand.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, product

import numpy as np
import numpy.typing as npt
from scipy import stats
from verdict_errors import (
    COMPARISONS,
    FAMILIES,
    SLOWDOWNS,
    judged,
    recorded,
    row,
    shapes,
    share,
    signs,
)

from harness.duel.blocks import looks
from harness.guard.config import Guard, read_guard
from harness.guard.noise import Floats
from harness.guard.outcome import Verdict
from harness.guard.verdict import level

CHANGES = (Verdict.REGRESSED, Verdict.IMPROVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How many comparisons ended: with these verdicts, after so many launches of each side."""

    launches: npt.NDArray[np.int_]  # shape (comparisons,)
    has_change: npt.NDArray[np.bool_]
    has_regressed: npt.NDArray[np.bool_]
    has_passed: npt.NDArray[np.bool_]
    called: npt.NDArray[np.bool_]  # a change, at any look

    def cells(self) -> list[str]:
        """Regressed, pass, launches."""
        mean = f"{self.launches.mean():.1f}"
        return [f"{self.has_regressed.mean():.0%}", f"{self.has_passed.mean():.0%}", mean]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--comparisons", type=int, default=COMPARISONS)
    comparisons = options.parse_args().comparisons
    guard = read_guard("default")
    tables = (width_table(guard), null_table(guard, comparisons), power_table(guard, comparisons))
    for line in chain(*tables):
        print(line)


def settled(
    noise: Floats, metrics: list[str], guard: Guard, truth: Floats | float = 0.0
) -> Settled:
    """All comparisons at once, noise in the order of time as in `judged`."""
    planned = looks(guard.first_look, noise.shape[-1] // 2)
    size = len(noise)
    launches = np.zeros(size, dtype=int)
    final = np.empty((size, int(np.prod(noise.shape[1:3]))), dtype=object)
    called = np.zeros(size, dtype=bool)
    is_open = np.ones(size, dtype=bool)
    for until in planned:
        found = judged(
            noise[..., : 2 * until], metrics, guard,
            interleaved=True, truth=truth, looks=len(planned),
        )  # fmt: skip
        final[is_open] = found.verdicts[is_open]
        launches[is_open] = until
        called |= is_open & np.isin(found.verdicts, CHANGES).any(axis=1)
        is_open &= (found.verdicts == Verdict.INCONCLUSIVE).any(axis=1)
        is_open &= ~(found.verdicts == Verdict.REGRESSED).any(axis=1)
    has_regressed = (final == Verdict.REGRESSED).any(axis=1)
    return Settled(
        launches=launches,
        has_change=np.isin(final, CHANGES).any(axis=1),
        has_regressed=has_regressed,
        has_passed=~has_regressed & ~is_open,
        called=called,
    )


def width_table(guard: Guard) -> Iterator[str]:
    """What looks cost: half of a paired interval's width over the noise, with one look and all."""
    planned = looks(guard.first_look, guard.max_launches)
    yield row("to call", ["looks", *(f"{number} + {number} launches" for number in planned)])
    yield "|" + " --- |" * (2 + len(planned))
    named = {1: "no change, or one change of one number"}
    for family, times in product(FAMILIES, (1, len(planned))):
        tail = (1 + level(guard.alpha, family, times)) / 2
        widths = [stats.t.ppf(tail, number - 1) * np.sqrt(2 / number) for number in planned]
        name = named.get(family, f"a change among {family} numbers")
        yield row(name, [str(times), *(f"{width:.1f}" for width in widths)])
    yield ""


def null_table(guard: Guard, comparisons: int) -> Iterator[str]:
    """A/A: nothing differs."""
    most = guard.max_launches
    yield f"**A/A, until settled, at most {most} + {most} launches:** {comparisons:,} comparisons\n"
    yield row("noise", ["wrong verdicts", "a wrong call at any look", "pass", "launches, mean"])
    yield "|" + " --- |" * 5
    found = [(shape, guard.metrics) for shape in shapes(guard.metrics, comparisons)]
    for shape, metrics in [*found, *recorded(guard.metrics, comparisons)]:
        if not shape.sees_drift:
            continue  # it never does in blocks
        noise = shape.draw(np.random.default_rng([most, len(shape.name)]), 2 * most)
        one = settled(noise, metrics, guard)
        wrong, called = (share(int(x.sum()), comparisons) for x in (one.has_change, one.called))
        yield row(shape.name, [wrong, called, *one.cells()[1:]])
    yield ""


def power_table(guard: Guard, comparisons: int) -> Iterator[str]:
    """A/B: the candidate is slower in everything."""
    most = guard.max_launches
    for shape in shapes(guard.metrics, comparisons)[:3:2]:
        yield f"**A/B, until settled, {shape.name}**\n"
        yield row("slower by", ["regressed", "pass", "launches, mean"])
        yield "|" + " --- |" * 4
        for slower in (0.0, *SLOWDOWNS):
            truth = -np.log(1 - slower) * signs(guard.metrics)
            random = np.random.default_rng([most, round(slower * 100)])
            one = settled(shape.draw(random, 2 * most), guard.metrics, guard, truth)
            yield row(f"{slower:.0%}", one.cells())
        yield ""


if __name__ == "__main__":
    main()
