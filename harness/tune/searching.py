"""Carries out the search: asks for, launches and tells trials until budget or space is exhausted.

The journal records which trials were told; the study records which of their runs were made.
"""

from dataclasses import dataclass
from time import perf_counter

from harness.capacity.found import capacities
from harness.plan import Launch
from harness.progress import Display, display
from harness.runner import wanted
from harness.steering import Following, Steering
from harness.study import Study
from harness.tune.launching import (
    ALONE,
    SCREEN,
    Screening,
    check_floor,
    check_margins,
    check_search,
    limits_s,
    outcome_of,
    sound_row,
    spared_s,
)
from harness.tune.search import Search
from harness.tune.session import Session
from harness.tune.summary import progress_text
from harness.tune.trial import Trial
from harness.tune.tuning import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Searching:
    """The search of one session."""

    tuning: Tuning
    study: Study
    search: Search
    session: Session

    def work(self) -> None:
        """Ask, launch and tell, until the budget or the space is exhausted."""
        allowance = self.tuning.allowance
        self._check_defaults()
        if self._is_searched():
            return
        each = len(self.tuning.base.plan.runs)
        done = sum(self.study.status(run) is not None for run in self.study.about["runs"])
        with display(allowance.search_launches * each, done, self.session.noted, "search") as show:
            while (why := self._reason_to_stop()) is None:
                trial = self.search.ask()
                if trial is None:
                    why = self.search.reason or "nothing is left that is worth a launch"
                    break
                self._try(trial, show)
                if trial.setting == self.tuning.space.default:
                    self._check_defaults()
                    for line in self.tuning.learnt(self.search.measured, self.search.forecast):
                        show.tell(line)
            show.tell(f"search over: {why}")
        allowed = {"launches": allowance.launches, "budget_s": allowance.budget_s}
        self.study.add(searched=allowed | {"why": why}, proof=None)

    def _is_searched(self) -> bool:
        """Whether the search has already ended under a budget at least as large as this one."""
        before, now = self.study.about.get("searched"), self.tuning.allowance
        if before is None or now.launches > before["launches"]:
            return False
        if before["budget_s"] is None:
            return True
        return now.budget_s is not None and now.budget_s <= before["budget_s"]

    def _reason_to_stop(self) -> str | None:
        """Why no further trial may start, or None; a trial that was begun is always finished."""
        trials = self.search.trials
        if any(trial.state == "running" for trial in trials):
            return None
        session = self.session
        return self.tuning.allowance.stop(
            session.launches(), session.spent_s, session.seen_s, session.proof_s
        )

    def _try(self, trial: Trial, show: Display) -> None:
        """Launch a trial, with all runs and checks that it still lacks, and tell its outcome."""
        plan = self.tuning.launching.plan(trial.setting, trial.number)
        (launch,) = plan.launches
        known = self.study.about["runs"]
        self.study.add(runs=[*known, *(r.id for r in launch.runs if r.id not in known)])
        earlier = self.search.trials[: trial.number]
        again = any(other.setting == trial.setting for other in earlier)
        checks = self.tuning.config.options.checks.names
        left = wanted(plan, self.study, checks, retry=again)
        steering = self._steering(trial, launch)
        instrument = self.session.instrument()
        runner = self.tuning.base.runner(self.study, instrument, show, steering)
        begun_s = perf_counter()
        with instrument.apart():
            runner.work(left)
        outcome = outcome_of(self.study, launch)
        if isinstance(steering, Screening):
            outcome = steering.told(outcome)
        kept = self.search.tell(trial, outcome)
        ran = {run.id for each in left for run in each.runs}
        self.session.spend(
            perf_counter() - begun_s,
            is_whole=kept.state == "ok",
            spared_s=spared_s(list(self.study.runs()), ran),
        )
        show.tell(progress_text(kept, self.search.best))

    def _steering(self, trial: Trial, launch: Launch) -> Steering:
        """Steering that skips the full runs of a clear loser, if there is a best short run."""
        launching, search = self.tuning.launching, self.search
        starts = self.tuning.starts(trial.setting, search.forecast, search.measured)
        follow = Following(study=self.study, starts=starts)
        short = [run.id for run in launch.runs if run.case == SCREEN]
        screen, is_default = launching.screen, trial.setting == self.tuning.space.default
        if not short or screen is None or is_default:
            return follow
        best = search.best or search.defaults
        (launched,) = launching.plan(best.setting, best.number).launches
        row = sound_row(self.study, launched, SCREEN)
        if row is None or best.outcome is None or not best.outcome.rows:
            return follow
        return Screening(
            study=self.study,
            objective=self.tuning.objective,
            short_run=short[0],
            best=row,
            best_full=best.outcome.rows[0],
            below_frac=screen.below_frac,
            follow=follow,
        )

    def _check_defaults(self) -> None:
        """Raises UserError after the defaults' launch if no trial could keep a limit.

        That is a limit that even a request alone misses, or one on a column that is not measured.
        """
        (launch,) = self.tuning.base.plan.launches
        if (row := sound_row(self.study, launch, ALONE)) is not None:
            check_floor(row, limits_s(self.tuning.config, self.tuning.objective))
        for found in capacities(self.study, launch.id):
            check_search(found)
        for trial in self.search.trials:
            if trial.setting == self.tuning.space.default:
                check_margins(self.tuning.objective, trial)
