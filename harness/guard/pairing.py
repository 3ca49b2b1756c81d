"""Which points of two studies match, and which of their launches form pairs. Pure.

A point's id is a hash of everything, so it changes with the engine. Points therefore match if their
whole load is equal, and every engine setting that either study sweeps. A setting that neither
sweeps may differ: it is the change that the comparison is about.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeVar

from harness.axes import axis_columns
from harness.guard.evidence import Evidence, Measured
from harness.rows import INTENSITY

Key = tuple[str, ...]


class Point(Protocol):
    """What identifies a point: settings by dotted name below `engine` and `load`."""

    @property
    def engine(self) -> dict[str, Any]: ...
    @property
    def load(self) -> dict[str, Any]: ...


P = TypeVar("P", bound=Point)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The runs of one point in both studies, including failed ones."""

    point: dict[str, Any]
    baseline: tuple[Measured, ...]
    candidate: tuple[Measured, ...]

    @property
    def runs(self) -> tuple[Measured, ...]:
        """The runs of both sides."""
        return self.baseline + self.candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """The points that both studies have, in the baseline's order, and how many only one has."""

    pairs: tuple[Pair, ...]
    swept: tuple[str, ...]  # engine settings that identify a point
    baseline_only: int
    candidate_only: int


def match(baseline: Evidence, candidate: Evidence) -> Matching:
    """Match the points of two studies."""
    swept = swept_by(baseline.runs, candidate.runs)
    mine, theirs = (by_key(side.runs, swept) for side in (baseline, candidate))
    common = [key for key in mine if key in theirs]
    named = names([run for key in common for run in mine[key]])
    pairs = [
        Pair(
            point=point_of(mine[key][0], named),
            baseline=tuple(mine[key]),
            candidate=tuple(theirs[key]),
        )
        for key in common
    ]
    return Matching(
        pairs=tuple(pairs),
        swept=swept,
        baseline_only=len(mine) - len(common),
        candidate_only=len(theirs) - len(common),
    )


def swept_by(*sides: Sequence[Point]) -> tuple[str, ...]:
    """The engine settings that any of the studies sweeps."""
    found = (name for side in sides for name in varying(point.engine for point in side))
    return tuple(dict.fromkeys(found))


def points(evidence: Evidence) -> tuple[Pair, ...]:
    """The points of one study, with nothing on the baseline's side."""
    swept = varying(run.engine for run in evidence.runs)
    groups = by_key(evidence.runs, swept)
    named = names(evidence.runs)
    return tuple(
        Pair(point=point_of(runs[0], named), baseline=(), candidate=tuple(runs))
        for runs in groups.values()
    )


def varying(settings: Iterable[dict[str, Any]]) -> list[str]:
    """The names that have more than one value, in the order of appearance."""
    values: dict[str, set[str]] = {}
    listed = list(settings)
    for name in dict.fromkeys(name for one in listed for name in one):
        values[name] = {json.dumps(one.get(name), default=str) for one in listed}
    return [name for name, seen in values.items() if len(seen) > 1]


def by_setting(point: Point) -> dict[str, Any]:
    """All settings by their dotted name on the command line."""
    told = {f"engine.{name}": value for name, value in point.engine.items()}
    return told | {f"load.{name}": value for name, value in point.load.items()}


def names(runs: Sequence[Measured]) -> dict[str, str]:
    """The heading of each setting that varies between points, and always of a load's intensity."""
    found = varying(by_setting(run) for run in runs)
    loads = [run.load for run in runs]
    intensity = [n for n in INTENSITY if any(load.get(n) is not None for load in loads)]
    return axis_columns(dict.fromkeys([*found, *(f"load.{name}" for name in intensity)]))


def point_of(run: Measured, named: dict[str, str]) -> dict[str, Any]:
    """The point of a run, as headings and values for people."""
    settings = by_setting(run)
    return {heading: settings.get(name) for name, heading in named.items()}


def blocks(pair: Pair) -> list[tuple[str, str]] | None:
    """The launches of both sides in pairs; None if the studies were not interleaved.

    They were interleaved if each repeat has one launch of either side, and the last run of each
    repeat began before the first of the next. Then drift hits both alike, and the order within a
    block does not matter. A launch without a partner is left out.
    """
    repeats: dict[int, tuple[list[Measured], list[Measured]]] = {}
    for index, side in enumerate((pair.baseline, pair.candidate)):
        for run in side:
            if run.ok:
                repeats.setdefault(run.launch_repeat, ([], []))[index].append(run)
    whole = [sides for sides in repeats.values() if all(sides)]
    if len(whole) < 2 or any(len({run.launch for run in side}) > 1 for x in whole for side in x):
        return None
    whole.sort(key=_first_s)
    is_apart = all(_last_s(a) < _first_s(b) for a, b in pairwise(whole))
    return [(mine[0].launch, theirs[0].launch) for mine, theirs in whole] if is_apart else None


def _first_s(block: tuple[list[Measured], list[Measured]]) -> float:
    return min(run.begun_at_s or 0.0 for side in block for run in side)


def _last_s(block: tuple[list[Measured], list[Measured]]) -> float:
    return max(run.begun_at_s or 0.0 for side in block for run in side)


def by_key(runs: Iterable[P], swept: Sequence[str]) -> dict[Key, list[P]]:
    """The runs of each point, grouped by the whole load and the swept engine settings."""
    groups: dict[Key, list[P]] = {}
    for run in runs:
        values = [json.dumps(run.engine.get(name), default=str) for name in swept]
        # An unset value counts as absent, because older harnesses had fewer settings.
        load = {name: value for name, value in run.load.items() if value is not None}
        groups.setdefault((json.dumps(load, sort_keys=True), *values), []).append(run)
    return groups
