"""A trial as a launch: which runs it has, which of them are skipped, and their outcome.

A launch has these runs, in this order, each a case of the study:

    alone    only of the defaults, if a latency is limited: one request at a time on an idle server
    screen   the first load for a short time; a clear loser is spared the rest
    full     every load of the configuration
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from harness.capacity.found import Capacity
from harness.capacity.text import floor
from harness.columns import metric
from harness.config import Case, Config
from harness.engines.failure import FailureKind
from harness.errors import UserError
from harness.plan import Launch, Plan, make_plan
from harness.plan import Run as PlannedRun
from harness.settings import Repeats
from harness.slo import limits_text
from harness.steering import Decision, Skip, Steering
from harness.study import SavedRun, Study
from harness.tables import points_table, runs_table
from harness.tune.config import Screen
from harness.tune.objective import Objective
from harness.tune.space import Space
from harness.tune.trial import Outcome, Setting, Trial, chosen, setting_text
from harness.validity import fatal_codes
from loadgen.config import Load
from monitors.nvml import Gpu

ALONE, SCREEN, FULL = "alone", "screen", "full"
DEFAULTS = "defaults"
ALONE_S = 3.0
PARTS = ("ttft", "tpot", "itl", "e2e")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launching:
    """Makes the launch of a setting. `gpus` and `flags` are as `make_plan` takes them."""

    config: Config
    space: Space
    objective: Objective
    gpus: Sequence[Gpu]
    flags: frozenset[str] | None

    @property
    def loads(self) -> tuple[Load, ...]:
        """The loads of every trial."""
        return self.config.cases[0].loads

    @property
    def screen(self) -> Screen | None:
        """The short run's configuration; None with two goals, where no trial is a clear loser."""
        tune = self.config.tune
        return tune.screen if tune is not None and len(self.objective.goals) == 1 else None

    @property
    def unscreened(self) -> str | None:
        """A sentence saying why a short run that was asked for is not made, or None."""
        tune = self.config.tune
        if tune is None or tune.screen is None:
            return None
        why = None
        if self.screen is None:
            why = "of two goals no trial is a clear loser"
        elif self.loads[0].search is not None:
            why = "a search for a rate ends early by itself where a setting is slow"
        elif not self._is_short(self.screen):
            why = f"the full run is no longer than its {self.screen.duration_s:g} s"
        return None if why is None else f"tune.screen is left out: {why}"

    def _is_short(self, screen: Screen) -> bool:
        return screen.duration_s < self.loads[0].duration_s

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The study's axes: the cases, the space's settings, and the loads."""
        cases = [case.name for case in self._cases(self.space.default)]
        engine = {f"engine.{name}": self.space.choices(name) for name in self.space.names}
        loads = {n: values for n, values in self.config.axes.items() if n.startswith("load.")}
        return {"case": cases, **engine, **loads}

    def plan(self, setting: Setting, number: int) -> Plan:
        """The plan of one launch with all of its runs."""
        config = replace(
            self.config,
            axes=self.axes,
            cases=self._cases(setting),
            options=replace(self.config.options, repeats=Repeats(launches=1, runs=1), case=None),
        )
        made = make_plan(config, self.gpus, self.flags)
        (launch,) = made.launches
        order = [case.name for case in config.cases]
        runs = tuple(
            replace(run, place=(number, order.index(run.case), run.place[2])) for run in launch.runs
        )
        # Checks find their reference by case name, so the defaults' case is named as in the proof.
        cases = (DEFAULTS if setting == self.space.default else f"trial_{number}",)
        label = f"trial {number}: {setting_text(chosen(setting))}"
        return replace(made, launches=(replace(launch, label=label, cases=cases, runs=runs),))

    def launch_s(self) -> float:
        """The least time that a launch with the full loads should take, without the short runs."""
        whole = self.plan(self.space.default, 1)
        (launch,) = whole.launches
        full = tuple(run for run in launch.runs if run.case == FULL)
        return replace(whole, launches=(replace(launch, runs=full),)).span_s()[0]

    def _cases(self, setting: Setting) -> tuple[Case, ...]:
        engines = (self.space.engine(setting),)
        first = self.loads[0]
        parts: list[tuple[str, tuple[Load, ...]]] = []
        is_plain = first.search is None  # a search covers both cases itself
        can_be_alone = is_plain and first.arrival != "trace" and setting == self.space.default
        if can_be_alone and limits_s(self.config, self.objective):
            parts.append((ALONE, (alone(first),)))
        if is_plain and self.screen is not None and self._is_short(self.screen):
            parts.append((SCREEN, (shortened(first, self.screen.duration_s),)))
        parts.append((FULL, self.loads))
        return tuple(Case(name=name, engines=engines, loads=loads) for name, loads in parts)


def alone(load: Load) -> Load:
    """The load with the same requests, one at a time, for a short time."""
    warmup_s = min(load.warmup_s, 1.0)
    return replace(load.alone(), ramp_s=0.0, warmup_s=warmup_s, duration_s=ALONE_S)


def shortened(load: Load, duration_s: float) -> Load:
    """The load for a short time, with a short wait for a steady state."""
    warmup_s = min(load.warmup_s, duration_s)
    longest_s = max(warmup_s, load.ramp_s, min(load.warmup_max_s, 3 * duration_s))
    return replace(load, warmup_s=warmup_s, warmup_max_s=longest_s, duration_s=duration_s)


def rows_of(study: Study, runs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The table's row for each of these runs that was made; skipped runs have none."""
    table = runs_table(study, only=runs)
    return {str(row["run"]): _named(row) for row in table.to_dict("records")}


def _named(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}


def is_sound(row: Mapping[str, Any]) -> bool:
    """Whether a row can be judged: it was measured, and carries no fatal code."""
    return row["status"] == "ok" and not fatal_codes(row["validity"])


def sound_row(study: Study, launch: Launch, case: str) -> dict[str, Any] | None:
    """The row of this launch's first sound run of a case; None if there is none."""
    runs = [run.id for run in launch.runs if run.case == case]
    rows = rows_of(study, runs).values() if runs else ()
    return next((row for row in rows if is_sound(row)), None)


def outcome_of(study: Study, launch: Launch) -> Outcome:
    """The outcome of a launch whose runs are all done: the points of its full loads.

    Without these it is the short run's, or a failure.
    """
    table = runs_table(study, only=[run.id for run in launch.runs])
    points = [] if table.empty else points_table(table, study.about["axes"]).to_dict("records")
    full = [_named(row) for row in points if row["case"] == FULL]
    failed = [row["failure"] for row in full if row["status"] == "failed"]
    if failed:
        return Outcome.failed(failed[0])
    if full:
        return Outcome.measured(full)
    short = [_named(row) for row in points if row["case"] == SCREEN]
    return Outcome.screened(short) if short else Outcome.failed(FailureKind.HARNESS)


def spared_s(saved: Sequence[SavedRun], ran: Collection[str]) -> float:
    """Seconds of a trial's launch that a launch of the same setting in the proof does not need.

    These are the runs beside the full loads, and compiling, whose result vLLM keeps. Loading that
    result takes time too: the least compile time of any start is taken as what remains. `ran` are
    the trial's runs, `saved` all runs of the study.
    """
    mine = [run for run in saved if run.record["id"] in ran]
    beside = [run.record.get("window") for run in mine if run.record["case"] != FULL]
    runs_s = sum(window["ended_at_s"] - window["started_at_s"] for window in beside if window)
    compiled_s = compiling_s(mine[-1].launch) if mine else None
    if compiled_s is None:
        return float(runs_s)
    seen_s = (compiling_s(run.launch) for run in saved)
    return float(runs_s + compiled_s - min(each for each in seen_s if each is not None))


def compiling_s(launch: Mapping[str, Any]) -> float | None:
    """Seconds that a start took to compile or to load compiled code; None in eager mode."""
    if (launch.get("engine") or {}).get("enforce_eager"):
        return None
    return (launch.get("startup_s") or {}).get("compile")


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """Steers one trial: the full runs of a clear loser are skipped.

    A clear loser's short run is below `below_frac` of the short run of the best trial so far.
    Whatever a run this short gets wrong, it gets wrong for both. A run with a fatal code is not
    judged.
    """

    study: Study
    objective: Objective
    short_run: str  # the trial's, by id
    best: Mapping[str, Any]  # the row of the best trial's short run
    best_full: Mapping[str, Any]  # and of its full run at the same load
    below_frac: float
    follow: Steering

    def __call__(self, launch: Launch, run: PlannedRun) -> Decision:
        """The decision about a run; see harness.steering.Steering."""
        if run.case == FULL and (ratio := self._ratio()) is not None and ratio < self.below_frac:
            told = f"{ratio:.2f} of the best one's, below {self.below_frac:.2f}"
            return Skip(reason=f"a clear loser: its short run gives {told}")
        return self.follow(launch, run)

    def told(self, outcome: Outcome) -> Outcome:
        """The outcome that the search is given; for a clear loser, an estimate of its full run.

        The estimate is each number of its short run, scaled by the ratio of full to short run of
        the best trial.
        """
        if not outcome.is_screened:
            return outcome
        times = {
            name: self.best_full[name] / short
            for name, short in self.best.items()
            if _is_number(short) and short and _is_number(self.best_full.get(name))
        }
        return Outcome.screened(
            {name: v * times.get(name, 1) if _is_number(v) else v for name, v in row.items()}
            for row in outcome.rows
        )

    def _ratio(self) -> float | None:
        row = rows_of(self.study, [self.short_run]).get(self.short_run)
        if row is None or not is_sound(row):
            return None
        rows = [self.objective.complete(one) for one in (row, self.best)]
        gains = self.objective.gains(rows[:1], rows[1:])
        return None if gains is None else math.exp(gains[0])


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def limits_s(config: Config, objective: Objective) -> dict[str, float]:
    """The lowest absolute limit in seconds on each of ttft, tpot, itl and e2e, where one is set."""
    found: dict[str, float] = {}
    told = [(name.removesuffix("_s"), value) for name, value in config.options.slo.limits.items()]
    told += [
        (one.limit.metric.partition("_")[0], one.limit.value)
        for one in objective.constraints
        if not one.relative and not one.limit.is_floor
    ]
    for part, value in told:
        if part in PARTS:
            found[part] = min(value, found.get(part, math.inf))
    return found


def check_search(found: Capacity) -> None:
    """Raises UserError if a capacity search found its limits missed even without load."""
    if found.is_too_much:
        limits = limits_text(found.slo)
        raise UserError(
            f"{limits} cannot be kept even without load: with the defaults {floor(found)}; raise"
            " the limits above that."
        )


def check_margins(objective: Objective, defaults: Trial) -> None:
    """Raises UserError if the defaults were measured but lack a column that a constraint limits.

    No trial could keep such a limit.
    """
    for one, margin in zip(objective.constraints, defaults.margins, strict=False):
        if margin is None:
            raise UserError(
                f"tune.constraints: '{one}' cannot be kept: the launch of the defaults measured no"
                f" {one.limit.metric} here; take that constraint out."
            )


def check_floor(row: Mapping[str, Any], limits: Mapping[str, float]) -> None:
    """Raises UserError if requests alone on an idle server miss a limit."""
    for part, limit_s in limits.items():
        floor_s = row.get(f"{part}_p50_s")
        if floor_s is not None and floor_s > limit_s:
            _, shown = metric(f"{part}_p50_s")
            raise UserError(
                f"{part.upper()} < {shown(limit_s)} ms cannot be kept: with the defaults one"
                f" request alone on an idle server takes {shown(floor_s)} ms (median of"
                f" {row['requests_ok']:.0f}): raise the limit above that."
            )
