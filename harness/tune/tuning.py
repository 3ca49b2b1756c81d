"""One command's work on a tuning: plan, search, prove, answer. Resumes wherever it was interrupted.

The study on disk is an ordinary one, except that its runs are added trial by trial, one launch
each. Optuna's journal lies beside them, and the proof is a study of its own below it.

    <out>/tune-NAME/<date>-<id>/
      study.json, launches/, runs/    of the search; table.*, plots/, report.* as in any study
      search.journal                  the trials asked for and told
      proof/<date>-<id>/              the proof: a study with a case for each side
      answer.json, answer.md, conf/   what was found, and engine=tuned
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from shutil import get_terminal_size
from typing import Any, Self

from harness.capacity.text import shown
from harness.config import Config
from harness.engines.config import SimEngine
from harness.engines.feasible import obstacle
from harness.engines.flags import known_flags
from harness.environment import snapshot
from harness.errors import UserError
from harness.identity import digest_of
from harness.overrides import did_you_mean
from harness.plan import Run, as_served
from harness.sim.options import flags_with_effect
from harness.slo import limits_text, promise_text
from harness.steering import Starts
from harness.sweep import Sweep, used
from harness.tune.allowance import Allowance
from harness.tune.column import OF_LIMITS, OF_SEARCH, lacking
from harness.tune.launching import FULL, SCREEN, Launching
from harness.tune.objective import Objective
from harness.tune.prior import Prior
from harness.tune.space import Served, Space
from harness.tune.starting import starts_of
from harness.tune.strategy import Forecast
from harness.tune.trial import Outcome, Rows, Setting, chosen, setting_text
from harness.units import between, plural, span
from harness.validity import FATAL

JOURNAL = "search.journal"
LITTLE_FRAC = 0.005  # gains below this are within the error of the prior's arithmetic
LITTLE_SLOWDOWN = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """A checked configuration, its space, and the machine on which it is searched."""

    config: Config
    base: Sweep  # the launch of the defaults as a sweep, with the machine's environment
    space: Space
    objective: Objective
    prior: Prior
    forecast: Forecast | None
    launching: Launching
    allowance: Allowance

    @classmethod
    def prepare(cls, config: Config, words: Sequence[str]) -> Self:
        """Look at the machine and make the space.

        Raises UserError for an empty space and for a budget that is too small.
        """
        tune, engine = config.tune, config.engines[0]
        assert tune is not None
        assert isinstance(engine, Served), "tune= refuses external servers"
        _check(config)
        environment = snapshot(getattr(engine, "python", None))
        gpus, flags = used(config, environment), known_flags(config.choice.vllm_folder)

        def decide(asked: Served) -> Served:
            served = as_served(asked, config)
            assert not isinstance(served, str)
            return served  # type: ignore[return-value]  # of the kind that was asked

        space = Space.of(
            tune,
            engine,
            fits=lambda asked: obstacle(decide(asked), config.model, gpus, flags),
            flags=flags_with_effect() if isinstance(engine, SimEngine) else flags,
            decide=decide,
        )
        objective = Objective.of(tune)
        prior = Prior.of(config, config.cases[0].loads, gpus)
        forecast = prior.forecast(space)
        launching = Launching(
            config=config, space=space, objective=objective, gpus=gpus, flags=flags
        )
        plan = launching.plan(space.default, 0)
        what = (plan.id, space.settings(), asdict(objective), asdict(config.options.slo))
        identity = digest_of(*what)[:6]
        plan = replace(plan, sweep=config.sweep, id=identity)
        return cls(
            config=config,
            base=Sweep(config=config, plan=plan, environment=environment, words=tuple(words)),
            space=space,
            objective=objective,
            prior=prior,
            forecast=forecast,
            launching=launching,
            allowance=Allowance.of(tune, names=len(space.names), launch_s=launching.launch_s()),
        )

    @property
    def name(self) -> str:
        """The tuning's name on the command line."""
        return self.config.sweep.removeprefix("tune-")

    def plan_text(self) -> str:
        """What would be searched for, in which space, and how long it takes at most."""
        kept, (launch,) = self.allowance, self.base.plan.launches
        lines = [self.base.engine_line(), f"tune {self.name}: {self.config.model.name}"]
        lines += [f"  {text}" for text in self.goal_lines()]
        lines.append(f"  space: {plural(len(self.space), 'setting')} of {_axes(self.space)}")
        lines += [f"    {text}" for text in self._notes()]
        lines.append(f"  each launch: {', '.join(self._parts(launch.runs))}")
        ablation = f" and of {plural(kept.ablated, 'ablation')}" if kept.ablated else ""
        lines.append(
            f"  at most {plural(kept.search_launches, 'launch')} of the search, then"
            f" {kept.reserved} of the proof ({kept.proof_launches} of each side{ablation})"
        )
        least_s, most_s = self.base.plan.span_s()
        time = between(least_s * kept.launches, most_s * kept.launches)
        limit = f", stopped at {span(kept.budget_s)}" if kept.budget_s is not None else ""
        lines.append(f"{kept.launches} launches at most, {time}{limit}; nothing was started")
        return "\n".join(lines)

    def goal_lines(self) -> list[str]:
        """The goals, then the constraints if there are any, for people."""
        goals = " and ".join(map(str, self.objective.goals))
        if promise := self.promise():
            goals += f" ({promise})"
        kept = " and ".join(one.told() for one in self.objective.constraints)
        return [goals, f"while {kept}"] if kept else [goals]

    def forecast_for(self, defaults: Rows = ()) -> Forecast | None:
        """The prior's forecast, for the host that the defaults' rows show once there are any."""
        if not defaults or self.forecast is None:
            return self.forecast
        return self.prior.fitted(self.space, defaults).forecast(self.space)

    def host(self, defaults: Rows) -> str:
        """What the defaults' rows show of the host, a sentence without full stop.

        Empty if that is no news, or if the prior has no forecast.
        """
        slowdown = self.prior.fitted(self.space, defaults).cpu_slowdown if self.forecast else 1.0
        if abs(slowdown - 1) < LITTLE_SLOWDOWN:
            return ""
        told = f"the host's CPU takes {slowdown:.2g} x as long as the prior assumed"
        return f"going by the defaults, {told}"

    def learnt(self, defaults: Rows, forecast: Forecast | None) -> list[str]:
        """Sentences on what the defaults' rows show of the host, and on what is expected now."""
        host = self.host(defaults)
        return [host, *self._expected(forecast)] if host and forecast else []

    def starts(self, setting: Setting, forecast: Forecast | None, defaults: Rows = ()) -> Starts:
        """Where the searches of a setting's launch begin, given the defaults' rows, if any."""
        return starts_of(self.launching.loads, setting, self.space.default, forecast, defaults)

    def promise(self) -> str:
        """The limits that requests must keep, if a goal or constraint is about them; else empty."""
        slo, columns = self.config.options.slo, self.objective.columns
        if any(name.startswith(OF_SEARCH) for name in columns):
            return promise_text(slo)
        return limits_text(slo) if any(name.startswith(OF_LIMITS) for name in columns) else ""

    def run(self) -> int:
        """Search and prove what is not done yet, then answer; returns the exit code.

        Raises UserError for limits that no setting keeps, without Optuna, and if the journal is
        lost.
        """
        from harness.tune.answer import MARKDOWN
        from harness.tune.conclusion import conclude
        from harness.tune.keeping import keep
        from harness.tune.proving import Proving
        from harness.tune.screen import screen
        from harness.tune.search import Search, load_optuna
        from harness.tune.searching import Searching
        from harness.tune.session import Session

        load_optuna()  # fails before a study is created if it is missing
        print(self.base.engine_line(), flush=True)
        for line in (*self.goal_lines(), *self._notes()):
            print(line, flush=True)
        with self.base.opened(self._about(), command=self.base.command) as study:
            print(f"study: {study.folder}", flush=True)
            journal, seed = study.folder / JOURNAL, self.config.options.seed
            search = Search(self.space, self.objective, self.forecast_for, journal, seed)
            if study.about["runs"] and not search.trials:
                raise UserError(
                    f"{journal} is lost, which says what the runs beside it were tried for: put"
                    " back a copy of it, or begin a new search with fresh=true."
                )
            session = Session(sweep=self.base, study=study, search=search)
            try:
                Searching(tuning=self, study=study, search=search, session=session).work()
                proving = Proving(tuning=self, study=study, search=search, session=session)
                proven = proving.work()
            except (KeyboardInterrupt, SystemExit):
                print(self.base.stopped())
                keep(conclude(self, study, search, None, is_whole=False), study)
                raise
            found = conclude(self, study, search, proven, is_whole=True)
            keep(found, study)
            width = get_terminal_size().columns if sys.stdout.isatty() else None
            print(f"\n{screen(found, width)}\n\n{MARKDOWN}, plots and tables: {study.folder}")
            return found.exit_code

    def _about(self) -> dict[str, Any]:
        """What study.json holds at first; runs are added with the trials."""
        tune = self.config.tune
        assert tune is not None
        return self.base.about() | {"axes": self.launching.axes, "runs": [], "tune": asdict(tune)}

    def _notes(self) -> list[str]:
        """Sentences on what was left out of the request, and on what the prior expects."""
        unscreened = self.launching.unscreened
        left_out = [*self.space.dropped, *([unscreened] if unscreened else [])]
        return [*left_out, *self._by_prior()]

    def _parts(self, runs: Sequence[Run]) -> list[str]:
        """The parts of a launch, for people."""
        full = [run for run in runs if run.case == FULL]
        loads = plural(len({run.point for run in full}), "load")
        if full[0].load.search is not None:
            loads += f", searched in {len(full)} runs at most"
            for load, start in self.starts(self.space.default, self.forecast)[:1]:
                loads += f", from {shown(start, load)}"
        short = [run.load.duration_s for run in runs if run.case == SCREEN]
        first = [f"a short run of {seconds:g} s that tells a clear loser" for seconds in short]
        return [*first, loads]

    def _by_prior(self) -> list[str]:
        """What the prior excludes from the space and ranks first, or why there is no prior."""
        if self.forecast is None:
            why = self.prior.unknown()
            return [f"no prior, the search goes by its measurements alone: {why}"]
        lost = sum(rows is None for rows in self.forecast.values())
        told_lost = [f"{plural(lost, 'setting')} should not fit, by the prior"] if lost else []
        return [*told_lost, *self._expected(self.forecast)]

    def _expected(self, forecast: Forecast) -> list[str]:
        """The setting that the prior ranks first, among those that should keep the constraints."""
        defaults = forecast.get(self.space.default)
        if not defaults:
            return []
        base = Outcome.measured(defaults)
        judged = [
            self.objective.judge(1, setting, Outcome.measured(rows), base)
            for setting, rows in forecast.items()
            if rows
        ]
        kept = [t for t in judged if all(margin is None or margin <= 0 for margin in t.margins)]
        best = max(kept, key=lambda trial: trial.score or 0.0, default=None)
        if best is None or best.score is None:
            return []
        if best.score < 1 + LITTLE_FRAC:
            return ["the prior expects nothing to be better than the defaults"]
        what = setting_text(chosen(best.setting))
        return [f"the prior expects most of {what}: {best.score:.2f} x the defaults"]


def _check(config: Config) -> None:
    """Raises UserError for options that a sweep takes but a tuning does not."""
    if config.profile.kind != "none":
        raise UserError(
            f"profile={config.profile.kind} is for sweeps: capture the answer afterwards, with"
            " sweep=NAME engine=tuned."
        )
    repeats = config.options.repeats
    if repeats.launches > 1 or repeats.runs > 1:
        raise UserError(
            "repeats is for sweeps: a trial is one launch, and tune.proof.launches says how often"
            " the proof repeats."
        )
    assert config.tune is not None
    options, objective = config.options, Objective.of(config.tune)
    names = [name for name, axis in config.tune.space.items() if axis is not None]
    problem = lacking(objective.columns, config.loads, options.slo, options.checks, names)
    if problem is not None:
        raise UserError(f"tune: {problem}.")
    for code in config.tune.proof.allow:
        if code not in FATAL:
            hint = did_you_mean(code, FATAL)
            raise UserError(
                f"tune.proof.allow={code}: there is no such fatal code.{hint} There are:"
                f" {', '.join(FATAL)}."
            )


def _axes(space: Space) -> str:
    return ", ".join(f"{name} ({len(space.choices(name))})" for name in space.names)
