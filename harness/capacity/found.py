"""The capacity of a launch under latency limits, as its probes have found it so far.

    for found in capacities(study):
        print(found.launch, found.value, found.bracket.low, found.bracket.high)

The state of a search consists of nothing but its saved runs, so an interrupted search can continue.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.capacity.closed import capacity_rps
from harness.capacity.probe import Probe, probe_of
from harness.capacity.search import (
    Bracket,
    Done,
    Question,
    Step,
    bracket,
    effect_of,
    is_too_much,
    next_step,
)
from harness.capacity.share import Verdict
from harness.slo import slo_of
from harness.study import SavedRun, Study, damaged
from loadgen.config import Load, Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The state of the search for one load in one launch."""

    launch: str  # id of the planned launch, shared by all attempts at it
    point: str
    load: Load  # as asked for
    slo: Slo
    question: Question
    probes: tuple[Probe, ...]

    @property
    def step(self) -> Step:
        """The next step."""
        return next_step([probe.answer for probe in self.probes], self.question)

    @property
    def bracket(self) -> Bracket:
        """The rates at which the limits held, clearly held, and were clearly missed."""
        return bracket([probe.answer for probe in self.probes], self.question)

    @property
    def value(self) -> float | None:
        """The largest rate, or concurrency, at which the limits held; None if at none."""
        return self.bracket.best

    @property
    def is_too_much(self) -> bool:
        """Whether even one request alone misses the limits."""
        return is_too_much([probe.answer for probe in self.probes], self.question)

    @property
    def best(self) -> Probe | None:
        """Of the runs at `value`, the one that kept the limits best."""
        if self.value is None:
            return None
        return max(self._at(self.value), key=lambda probe: probe.kept_frac or 0.0, default=None)

    @property
    def alone(self) -> Probe | None:
        """The run with one request at a time, if it was made; one without doubts if there is."""
        mine = [probe for probe in self.probes if probe.rate is None]
        return min(mine, key=lambda probe: bool(probe.doubts), default=None)

    @property
    def above(self) -> list[Probe]:
        """The runs at the lowest rate that was tried above the capacity, if any."""
        rates = [p.rate for p in self.probes if p.rate is not None and self._is_above(p.rate)]
        return self._at(min(rates)) if rates else []

    @property
    def breaks_first(self) -> str | None:
        """The limit that most requests broke at the lowest rate tried above the capacity."""
        if not self.above:
            return self.alone.worst if self.is_too_much and self.alone else None
        return next((probe.worst for probe in self.above if probe.worst), None)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why what missed the limits above the capacity may not be the server, by validity code.

        Empty if one of the runs there has no such code.
        """
        runs = [self.alone] if self.is_too_much and self.alone else self.above
        if not all(probe.doubts for probe in runs):
            return ()
        return tuple(dict.fromkeys(code for probe in runs for code in probe.doubts))

    @property
    def reason(self) -> str:
        """Why the search ended, or that it has not."""
        step = self.step
        return step.reason if isinstance(step, Done) else "unfinished"

    def verdict(self, probe: Probe) -> Verdict:
        """The verdict on one run by itself."""
        return probe.verdict(self.slo.share_frac, self.effect)

    @property
    def effect(self) -> float:
        """The design effect of the search: requests / effectively independent requests."""
        return effect_of([probe.answer for probe in self.probes], self.question)

    def _is_above(self, rate: float) -> bool:
        return self.value is None or rate > self.value

    def _at(self, rate: float) -> list[Probe]:
        """The probes at a rate; one request at a time counts as concurrency 1, but has no rate."""
        alone = 1.0 if self.question.is_whole else None
        return [p for p in self.probes if (alone if p.rate is None else p.rate) == rate]


def capacity_of(
    study: Study, launch: str, point: str, load: Load, start: float | None = None
) -> Capacity:
    """What the launch with this id has found so far at a point, whose load is `load`.

    `start` is a first rate, or concurrency, for want of one that was asked for or that the launch's
    closed loops show.
    """
    runs = [r for r in study.runs() if r.launch_id == launch and r.record["point"] == point]
    return _searched(study, launch, point, load, runs, start)


def capacities(study: Study, launch: str | None = None) -> Iterator[Capacity]:
    """The capacity for each launch and searching load, in the order of the plan.

    Of all launches, or only of the one with id `launch`.
    """
    groups: dict[tuple[str, str], list[SavedRun]] = {}
    for run in study.runs():
        mine = run.launch_id
        if run.record["load"].get("search") and launch in (None, mine):
            groups.setdefault((mine, str(run.record["point"])), []).append(run)
    for (of_launch, point), runs in groups.items():
        yield _searched(study, of_launch, point, Load(**runs[0].asked_load), runs)


def _searched(
    study: Study,
    launch: str,
    point: str,
    load: Load,
    runs: list[SavedRun],
    start: float | None = None,
) -> Capacity:
    """The state of a search, from its runs."""
    slo = slo_of(study.about)
    assert load.search is not None
    if load.search.start_rps is not None:
        start = load.search.start_rps
    elif load.is_open and (closed_rps := capacity_rps(study, launch, load)):
        start = closed_rps / 2  # closed_rps was reached without limits; if this holds, it is next
    return Capacity(
        launch=launch,
        point=point,
        load=load,
        slo=slo,
        question=Question(
            search=load.search,
            share_frac=slo.share_frac,
            is_whole=not load.is_open,
            start=start,
        ),
        probes=tuple(probe for run in runs if (probe := _probe(run, slo)) is not None),
    )


def _probe(run: SavedRun, slo: Slo) -> Probe | None:
    try:
        return probe_of(run, slo)
    except (OSError, ValueError, KeyError) as error:
        raise damaged(run, error) from None
