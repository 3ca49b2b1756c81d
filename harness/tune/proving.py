"""Carries out the proof: measures the search's winner again, interleaved with the defaults.

What the launches show is judged in harness/tune/proof.py.
"""

from dataclasses import asdict, dataclass, replace
from time import perf_counter

from harness.config import Config
from harness.errors import UserError
from harness.export import export
from harness.guard.config import read_guard
from harness.guard.evidence import read_evidence
from harness.plan import Launch, Plan, make_plan
from harness.progress import display
from harness.runner import wanted
from harness.steering import Following, Starts
from harness.study import Study
from harness.sweep import Sweep
from harness.tables import write_tables
from harness.tune.allowance import SIDES
from harness.tune.conclusion import Proven
from harness.tune.config import Tune
from harness.tune.launching import DEFAULTS
from harness.tune.proof import ablated, judged, proof_config
from harness.tune.search import Search
from harness.tune.session import Session
from harness.tune.starting import starts_at
from harness.tune.trial import Trial
from harness.tune.tuning import Tuning
from harness.units import plural


@dataclass(frozen=True, slots=True, kw_only=True)
class Proving:
    """The proof of one session."""

    tuning: Tuning
    study: Study
    search: Search
    session: Session

    def work(self) -> Proven | None:
        """Measure and judge the winner against the defaults; None if there is nothing to prove."""
        winner = self.search.best
        if winner is None or winner.setting == self.tuning.space.default:
            return None
        tuning, settings = self.tuning, self._settings_left_out(winner)
        plan, config = self._plan(winner, settings)
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
                defaults_break=self.search.defaults.violations,
            )
            return Proven(winner=winner, proof=proof, settings=settings, evidence=evidence)
        finally:
            study.close()

    def _plan(self, winner: Trial, settings: tuple[str, ...]) -> tuple[Plan, Config]:
        """The plan of all rounds, and its configuration.

        The plan's id is that of its first round, so that a longer proof continues a shorter one.
        """
        tuning, launching = self.tuning, self.tuning.launching

        def planned(rounds: int) -> tuple[Plan, Config]:
            config = proof_config(tuning.config, tuning.space, winner.setting, settings, rounds)
            return make_plan(config, launching.gpus, launching.flags), config

        plan, config = planned(tuning.allowance.proof_launches)
        first_round, _ = planned(1)
        return replace(plan, id=first_round.id), config

    def _measure(self, sweep: Sweep, study: Study, left: list[Launch]) -> None:
        """Make the launches that the proof still lacks."""
        self._check_launches(study, len(sweep.plan.launches))
        known, planned = study.about["runs"], [run.id for run in sweep.plan.runs]
        study.add(runs=list(dict.fromkeys([*known, *planned])))
        what = "the defaults, the winner, and the winner without one of its settings"
        if len(sweep.plan.axes["case"]) == SIDES:
            what = "the defaults and the winner"
        print(f"proof: {plural(len(left), 'launch')} of {what}: {study.folder}", flush=True)
        runs = sum(len(launch.runs) for launch in left)
        instrument = self.session.instrument()
        study.add(instrument=asdict(instrument))
        whole = len(sweep.plan.runs)
        with display(whole, whole - runs, self.session.noted, "proof") as show, instrument.apart():
            for launch in left:
                following = Following(study=study, starts=self._starts(launch))
                runner = sweep.runner(study, instrument, show, following)
                begun_s = perf_counter()
                runner.work([launch])
                self.session.spend(perf_counter() - begun_s, is_whole=True)

    def _starts(self, launch: Launch) -> Starts:
        """Begin at what the search has found: without one of its settings, the winner's."""
        winner = self.search.best
        assert winner is not None
        trial = self.search.defaults if DEFAULTS in launch.cases else winner
        assert trial.outcome is not None
        return starts_at(self.tuning.launching.loads, trial.outcome.rows)

    def _check_launches(self, study: Study, proof: int) -> None:
        """Raises UserError if the proof was lengthened beyond the budget."""
        spent = self.session.launches(but=study.folder)
        allowed = self.tuning.allowance.launches
        if spent + proof > allowed:
            raise UserError(
                f"the proof wants {plural(proof, 'launch')}, and {spent} of"
                f" tune.budget.launches={allowed} are spent: set tune.budget.launches="
                f"{spent + proof}."
            )

    def _settings_left_out(self, winner: Trial) -> tuple[str, ...]:
        """The settings to ablate, decided once so that a resumed proof is the same."""
        kept = self.study.about.get("proof")
        if kept is not None and kept["winner"] == winner.number:
            return tuple(kept["settings"])
        settings: tuple[str, ...] = ()
        if self._tune.proof.ablation:
            shares = self.search.importances()
            order = sorted(shares, key=lambda name: -shares[name])
            allowance = self.tuning.allowance
            most = allowance.ablations(
                self.session.launches(), self.session.spent_s, self.session.seen_s
            )
            settings = ablated(self.tuning.space, winner.setting, order, most)
        self.study.add(proof={"winner": winner.number, "settings": settings})
        return settings

    @property
    def _tune(self) -> Tune:
        assert self.tuning.config.tune is not None
        return self.tuning.config.tune
