"""A tuning at work: trials, then the proof, then the answer, each continued where it was cut off.

The journal says which trials were told, the study which runs are there, the proof's plan which of
its launches are left. study.json keeps what else a continued command must know: `spent_s` and how
long each launch took, when the search was over (`searched`), and what is proven (`proof`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from harness.capacity.found import capacities
from harness.errors import UserError
from harness.export import export
from harness.guard.config import read_guard
from harness.guard.evidence import read_evidence
from harness.instrument import Instrument
from harness.plan import Launch, make_plan
from harness.progress import Display, display
from harness.runner import wanted
from harness.steering import Following, Steering
from harness.study import Study
from harness.sweep import Sweep
from harness.tables import write_tables
from harness.tune.allowance import SIDES
from harness.tune.answer import MARKDOWN, Answer
from harness.tune.conclusion import Proven, conclude
from harness.tune.config import Tune
from harness.tune.keeping import keep
from harness.tune.launching import (
    ALONE,
    SCREEN,
    Screening,
    check_floor,
    check_search,
    is_sound,
    limits_s,
    outcome_of,
    rows_of,
)
from harness.tune.proof import SWEEP, ablated, judged, proof_config
from harness.tune.screen import screen
from harness.tune.search import Search
from harness.tune.summary import came_of, score_text
from harness.tune.trial import Trial, told
from harness.tune.tuning import Tuning
from harness.units import plural


@dataclass(slots=True, kw_only=True)
class Session:
    """One command's share of a tuning."""

    tuning: Tuning
    study: Study
    search: Search
    _instrument: Instrument | None = field(default=None, init=False)
    _noted: set[str] = field(default_factory=set, init=False)  # by the displays of both parts

    def run(self) -> int:
        """Do what is left; returns the exit code. Raises UserError for limits that none keeps."""
        try:
            self._search()
            proven = self._prove()
        except (KeyboardInterrupt, SystemExit):
            print(self.tuning.base.stopped())
            self._keep(None, is_whole=False)
            raise
        found = self._keep(proven, is_whole=True)
        print(f"\n{screen(found)}\n\n{MARKDOWN}, plots and tables: {self.study.folder}")
        return found.exit_code

    # ---- the search

    def _search(self) -> None:
        """Ask, launch, tell, until the budget or the space is spent."""
        allowance = self.tuning.allowance
        self._check_floor()
        if self._is_searched():
            return
        each = len(self.tuning.base.plan.runs)
        done = sum(self.study.status(run) is not None for run in self.study.about["runs"])
        with display(allowance.search_launches * each, done, self._noted) as show:
            while (why := self._reason_to_stop()) is None:
                trial = self.search.ask()
                if trial is None:
                    why = self.search.reason or "nothing is left that is worth a launch"
                    break
                self._try(trial, show)
                self._check_floor()
            show.tell(f"search over: {why}")
        allowed = {"launches": allowance.launches, "budget_s": allowance.budget_s}
        self.study.add(searched=allowed | {"why": why}, proof=None)

    def _is_searched(self) -> bool:
        """Whether the search is over, with a budget that was no smaller than this one."""
        before, now = self.study.about.get("searched"), self.tuning.allowance
        if before is None or now.launches > before["launches"]:
            return False
        if before["budget_s"] is None:
            return True
        return now.budget_s is not None and now.budget_s <= before["budget_s"]

    def _reason_to_stop(self) -> str | None:
        """Why no trial is to be begun; one that was begun is always finished."""
        trials = self.search.trials
        if any(trial.state == "running" for trial in trials):
            return None
        return self.tuning.allowance.stop(self._launches(), self._spent_s, self._seen_s)

    def _try(self, trial: Trial, show: Display) -> None:
        """One launch, with everything that is asked in it."""
        plan = self.tuning.launching.plan(trial.setting, trial.number)
        (launch,) = plan.launches
        known = self.study.about["runs"]
        self.study.add(runs=[*known, *(r.id for r in launch.runs if r.id not in known)])
        earlier = self.search.trials[: trial.number]
        again = any(other.setting == trial.setting for other in earlier)
        checks = self.tuning.config.options.checks.names
        left = wanted(plan, self.study, checks, retry=again)
        steering = self._steering(trial, launch)
        instrument = self._calibrated()
        runner = self.tuning.base.runner(self.study, instrument, show, steering)
        begun_s = perf_counter()
        with instrument.apart():
            runner.work(left)
        kept = self.search.tell(trial, outcome_of(self.study, launch))
        self._spend(perf_counter() - begun_s, is_whole=kept.state == "ok")
        show.tell(self._progress(kept))

    def _steering(self, trial: Trial, launch: Launch) -> Steering:
        """What becomes of the runs: those of a clear loser are skipped."""
        launching, follow = self.tuning.launching, Following(study=self.study)
        short = [run.id for run in launch.runs if run.case == SCREEN]
        defaults = self._row_of_defaults(SCREEN)
        if not short or launching.screen is None or trial.number == 0 or defaults is None:
            return follow
        best = self.search.best
        return Screening(
            study=self.study,
            objective=self.tuning.objective,
            short_run=short[0],
            defaults=defaults,
            below_frac=launching.screen.below_frac,
            best_score=1.0 if best is None or best.score is None else best.score,
            follow=follow,
        )

    def _row_of_defaults(self, case: str) -> Mapping[str, Any] | None:
        """The row of a short run of the first launch; None where there is none to judge by."""
        (launch,) = self.tuning.base.plan.launches
        runs = [run.id for run in launch.runs if run.case == case]
        rows = list(rows_of(self.study, runs).values()) if runs else []
        return next((row for row in rows if is_sound(row)), None)

    def _check_floor(self) -> None:
        """Limits that even a request alone misses end the search after the first launch."""
        if (row := self._row_of_defaults(ALONE)) is not None:
            check_floor(row, limits_s(self.tuning.config, self.tuning.objective))
        (launch,) = self.tuning.base.plan.launches
        for found in capacities(self.study, launch.id):
            check_search(found)

    def _progress(self, trial: Trial) -> str:
        best = self.search.best
        far = "nothing yet"
        if best is not None and best.score is not None:
            far = f"{score_text(best.score)} (trial {best.number}: {told(best.setting)})"
        return f"trial {trial.number}, {came_of(trial)}; best so far {far}"

    # ---- the proof

    def _prove(self) -> Proven | None:
        """Measure the winner beside the defaults; None where there is nothing to prove."""
        winner = self.search.best
        if winner is None or winner.setting == self.tuning.space.default:
            return None
        settings = self._settings_left_out(winner)
        launches = self.tuning.allowance.proof_launches
        tuning = self.tuning
        config = proof_config(tuning.config, tuning.space, winner.setting, settings, launches)
        plan = make_plan(config, tuning.launching.gpus, tuning.launching.flags)
        sweep = replace(tuning.base, config=config, plan=plan)
        study = Study.open(self.study.folder, plan, sweep.about(), fresh=False)
        try:
            left = wanted(plan, study, config.options.checks.names, retry=config.options.retry)
            if left:
                self._measure(sweep, study, left)
            export(study)
            write_tables(study)
            guard = read_guard("default")
            evidence = read_evidence(study.folder)
            proof = judged(
                evidence,
                tuning.objective,
                settings,
                guard,
                allow=self._tune.proof.allow,
                defaults_break=self.search.trials[0].violations,
            )
            return Proven(winner=winner, proof=proof, settings=settings, evidence=evidence)
        finally:
            study.close()

    def _measure(self, sweep: Sweep, study: Study, left: list[Launch]) -> None:
        """The launches that a proof still lacks."""
        self._check_launches(study, len(sweep.plan.launches))
        what = "the defaults, the winner, and the winner without one of its settings"
        if len(sweep.plan.axes["case"]) == SIDES:
            what = "the defaults and the winner"
        print(f"proof: {plural(len(left), 'launch')} of {what}: {study.folder}", flush=True)
        runs = sum(len(launch.runs) for launch in left)
        instrument = self._calibrated()
        study.add(instrument=asdict(instrument))
        whole = len(sweep.plan.runs)
        with display(whole, whole - runs, self._noted) as show, instrument.apart():
            runner = sweep.runner(study, instrument, show)
            for launch in left:
                begun_s = perf_counter()
                runner.work([launch])
                self._spend(perf_counter() - begun_s, is_whole=True)

    def _check_launches(self, study: Study, proof: int) -> None:
        """Raises UserError where a proof was made longer, and not the budget."""
        spent, allowed = self._launches(but=study.folder), self.tuning.allowance.launches
        if spent + proof > allowed:
            raise UserError(
                f"the proof wants {plural(proof, 'launch')}, and {spent} of"
                f" tune.budget.launches={allowed} are spent: set tune.budget.launches="
                f"{spent + proof}."
            )

    def _launches(self, but: Path | None = None) -> int:
        """Those of the search so far, and of proofs `but` this one."""
        proofs = self.study.folder.glob(f"{SWEEP}/*/launches/*")
        return len(self.search.trials) + sum(path.parents[1] != but for path in proofs)

    def _settings_left_out(self, winner: Trial) -> tuple[str, ...]:
        """Those of the ablation: decided once, so that a continued proof is the same."""
        kept = self.study.about.get("proof")
        if kept is not None and kept["winner"] == winner.number:
            return tuple(kept["settings"])
        settings: tuple[str, ...] = ()
        if self._tune.proof.ablation:
            shares = self.search.importances()
            order = sorted(shares, key=lambda name: -shares[name])
            allowance = self.tuning.allowance
            most = allowance.ablations(self._launches(), self._spent_s, self._seen_s)
            settings = ablated(self.tuning.space, winner.setting, order, most)
        self.study.add(proof={"winner": winner.number, "settings": settings})
        return settings

    # ---- what both need

    @property
    def _tune(self) -> Tune:
        assert self.tuning.config.tune is not None
        return self.tuning.config.tune

    def _calibrated(self) -> Instrument:
        """The load generator of the whole tuning, calibrated before its first launch."""
        if self._instrument is None:
            self._instrument = self.tuning.base.instrument(self.study)
        return self._instrument

    @property
    def _spent_s(self) -> float:
        return float(self.study.about.get("spent_s", 0.0))

    @property
    def _seen_s(self) -> list[float]:
        """How long each launch took that measured everything."""
        return list(self.study.about.get("seen_s", ()))

    def _spend(self, seconds: float, *, is_whole: bool) -> None:
        seen_s = [*self._seen_s, seconds] if is_whole else self._seen_s
        self.study.add(spent_s=self._spent_s + seconds, seen_s=seen_s)

    def _keep(self, proven: Proven | None, *, is_whole: bool) -> Answer:
        """The answer as it is now, on disk with all that is made of it."""
        found = conclude(self.tuning, self.study, self.search, proven, is_whole=is_whole)
        keep(found, self.study)
        return found
