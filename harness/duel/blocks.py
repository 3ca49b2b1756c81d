"""Interleaves two plans: each block holds the same repeat of both sides. Pure.

Drift then affects both sides alike and cancels within blocks. The sides take turns at going first
in a block, so that the order favours neither.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.engines.config import stored
from harness.errors import UserError
from harness.guard.evidence import engine_settings, load_settings
from harness.guard.likeness import apart
from harness.guard.pairing import by_key, swept_by
from harness.identity import digest_of
from harness.plan import Launch, Plan
from harness.units import plural

SIDES = ("baseline", "candidate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The same repeat of an engine setting on both sides, run one right after the other."""

    baseline: Launch
    candidate: Launch

    @property
    def repeat(self) -> int:
        """The repeat's number, counted from 1."""
        return self.candidate.repeat

    @property
    def turns(self) -> tuple[tuple[str, Launch], ...]:
        """(side, launch) in the order in which they run: the baseline first in odd repeats."""
        both = tuple(zip(SIDES, (self.baseline, self.candidate), strict=True))
        return both if self.repeat % 2 else both[::-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Two plans reduced to the points that both have, and the order of their launches."""

    baseline: Plan
    candidate: Plan
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]  # on what is not measured, and why

    def plans(self, most: int) -> tuple[Plan, Plan]:
        """Both sides' plans, cut to at most `most` launches of each engine setting."""
        mine, theirs = (
            replace(plan, launches=tuple(x for x in plan.launches if x.repeat <= most))
            for plan in (self.baseline, self.candidate)
        )
        return mine, theirs

    def span_s(self, most: int) -> tuple[float, float]:
        """The least and most time that `most` launches of each engine setting should take."""
        least_s, most_s = zip(*(plan.span_s() for plan in self.plans(most)), strict=True)
        return sum(least_s), sum(most_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A point as a plan asks for it."""

    id: str
    setting: str
    engine: dict[str, Any]
    load: dict[str, Any]


def looks(first: int, most: int) -> tuple[int, ...]:
    """The numbers of launches per side after which the data are looked at.

    From `first` = 3 these are 3, 5, 8, 12, 18, …, and finally `most`. Each look costs a share of
    the error rate, and one more launch tells less the more there are, so the number grows by half
    each time.
    """
    found, launches = [], first
    while launches < most:
        found.append(launches)
        launches += (launches + 1) // 2
    return (*found, most)


def schedule(baseline: Plan, candidate: Plan, planned: Sequence[int] = ()) -> Schedule:
    """Interleave two plans with equally many launches, matching points as a comparison does.

    The planned looks are part of both studies' ids, so other looks make another pair of studies.
    Raises UserError if there is no point that both can measure.
    """
    plans = (baseline, candidate)
    asked = [list(_asked(plan)) for plan in plans]
    swept = swept_by(*asked)
    mine, theirs = (by_key(points, swept) for points in asked)
    common = [key for key in theirs if key in mine]
    if not common:
        raise UserError(_nothing_in_common(plans, asked, swept))
    partners = {theirs[key][0].setting: mine[key][0].setting for key in common}
    kept = [{points[key][0].id for key in common} for points in (mine, theirs)]
    duel = digest_of(baseline.id, candidate.id, list(planned))[:6]
    sides = [
        _side(plan, name, duel, points)
        for plan, name, points in zip(plans, SIDES, kept, strict=True)
    ]
    launches = {(launch.setting, launch.repeat): launch for launch in sides[0].launches}
    blocks = [
        Block(baseline=launches[partners[launch.setting], launch.repeat], candidate=launch)
        for launch in sides[1].launches
    ]
    notes = [
        note
        for name, plan, points in zip(SIDES, plans, (mine, theirs), strict=True)
        for note in _left_out(name, plan, len(points) - len(common))
    ]
    return Schedule(baseline=sides[0], candidate=sides[1], blocks=tuple(blocks), notes=tuple(notes))


def _asked(plan: Plan) -> Iterator[_Asked]:
    """The points that can be compared, each once.

    Loads at a share of the capacity cannot: their rate differs between the sides.
    """
    for launch in plan.launches:
        if launch.repeat == 1 and launch.obstacle is None:
            for run in launch.runs:
                if run.repeat == 1 and run.load.rate_frac is None:
                    yield _Asked(
                        id=run.point,
                        setting=launch.setting,
                        engine=engine_settings(stored(launch.engine)),
                        load=load_settings(asdict(run.load)),
                    )


def _side(plan: Plan, name: str, duel: str, points: Collection[str]) -> Plan:
    """The plan reduced to these points, with an id of its own even if both sides are the same."""
    launches = [
        replace(
            launch,
            label=f"{name}  {launch.label}",
            runs=tuple(run for run in launch.runs if run.point in points),
        )
        for launch in plan.launches
    ]
    kept = tuple(launch for launch in launches if launch.runs)
    return replace(plan, id=f"{duel}-{name}", launches=kept)


def _left_out(name: str, plan: Plan, alone: int) -> Iterator[str]:
    """Notes on what is not measured of a side, which has `alone` points without a partner."""
    if alone:
        yield f"{plural(alone, 'point')} of the {name} only: not measured"
    if shares := {run.point for run in plan.runs if run.load.rate_frac is not None}:
        yield (
            f"{plural(len(shares), 'point')} of the {name} at a share of its capacity: not"
            " measured, because each side would have its own rate"
        )
    found = (launch.obstacle for launch in plan.launches if launch.obstacle is not None)
    yield from (f"{name}, not possible here: {text}" for text in dict.fromkeys(found))


def _nothing_in_common(
    plans: tuple[Plan, Plan], asked: list[list[_Asked]], swept: Collection[str]
) -> str:
    for name, plan, points in zip(SIDES, plans, asked, strict=True):
        if not points:
            return f"nothing to compare: {'; '.join(_left_out(name, plan, 0))}."
    mine, theirs = apart(asked[0], asked[1], swept)
    told = f"there is no point that both sides have: {mine} (baseline), {theirs} (candidate)."
    if "engine." in mine + theirs:
        told += (
            " An engine setting that either side sweeps names a point: what is to be judged has one"
            " value."
        )
    return told
