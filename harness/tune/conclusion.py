"""Makes the answer from what search and proof left on disk."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.guard.evidence import Evidence
from harness.study import Study
from harness.tune.allowance import launches_for
from harness.tune.answer import CONF, OUTCOMES, Answer, Outcome, Spent, Tried
from harness.tune.deployment import Deployment
from harness.tune.launching import DEFAULTS
from harness.tune.proof import TUNED, Proof, separable
from harness.tune.search import Search
from harness.tune.session import proof_launches
from harness.tune.space import Served
from harness.tune.summary import so_far_text
from harness.tune.trial import Trial, chosen
from harness.tune.tuning import Tuning
from harness.tune.wall import sentences
from harness.units import plural


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A winner and its proof, with the evidence that the proof rests on."""

    winner: Trial
    proof: Proof
    settings: tuple[str, ...]
    evidence: Evidence

    def rows_of(self, case: str) -> list[dict[str, Any]]:
        """The rows of one side of the proof."""
        return [run.row for run in self.evidence.runs if run.ok and run.row.get("case") == case]


def conclude(
    tuning: Tuning, study: Study, search: Search, proven: Proven | None, *, is_whole: bool
) -> Answer:
    """The answer so far; `is_whole` says whether search and proof have finished."""
    trials, objective, about = search.trials, tuning.objective, study.about
    outcome, reason = _outcome(search, proven, about)
    if not is_whole:
        proved = len(proof_launches(study))
        outcome, reason = Outcome.UNFINISHED, so_far_text(len(trials), search.best, proved)
    made = Answer(
        name=tuning.name,
        outcome=outcome,
        reason=reason,
        simulated=about["simulated"],
        engine=about["engine"],
        model=about["model"]["name"],
        model_choice=about["model"]["path"] or about["model"]["name"],
        load=about["load"],
        promise=tuning.promise(),
        goals=tuple((goal.column, goal.maximise) for goal in objective.goals),
        constraints=tuple(map(str, objective.constraints)),
        space_size=len(tuning.space),
        dropped=tuning.space.dropped,
        names=tuning.space.names,
        tried=tuple(map(Tried.of, trials)),
        front=tuple(t.number for t in search.pareto) if len(objective.goals) > 1 else (),
        importances=search.importances(),
        host=tuning.host(search.measured),
        spent=Spent(
            search_launches=len(trials),
            proof_launches=len(proof_launches(study)),
            budget_launches=tuning.allowance.launches,
            seconds=float(about.get("spent_s", 0.0)),
            budget_s=tuning.allowance.budget_s,
        ),
    )
    if proven is not None:
        return _with_proof(made, tuning, study.folder, proven)
    return replace(made, winner=0) if outcome is Outcome.DEFAULTS else made


def _with_proof(made: Answer, tuning: Tuning, folder: Path, proven: Proven) -> Answer:
    """Adds the proof, the deployment, and what limits the server before and after."""
    config, winner = tuning.config, proven.winner
    (launch,) = tuning.launching.plan(winner.setting, winner.number).launches
    assert isinstance(launch.engine, Served), "nobody else's server is tuned"
    return replace(
        made,
        winner=winner.number,
        setting=chosen(winner.setting),
        deployment=Deployment.of(launch.engine, config.model, config.choice.vllm_version),
        conf=str(folder / CONF),
        python=getattr(config.engines[0], "python", None),
        proof_study=str(proven.evidence.folder.relative_to(folder)),
        proof=proven.proof,
        not_ablated=_not_ablated(tuning, proven, made.spent.proof_launches),
        walls=sentences(proven.rows_of(DEFAULTS), proven.rows_of(TUNED)),
    )


def _not_ablated(tuning: Tuning, proven: Proven, spent_launches: int) -> tuple[str, ...]:
    """Which of the winner's settings were not ablated, and why."""
    tune = tuning.config.tune
    assert tune is not None
    mine = list(chosen(proven.winner.setting))
    left = [name for name in mine if name not in proven.settings]
    if len(mine) < 2 or not left:
        return ()
    if not tune.proof.ablation:
        return ("no ablation: tune.proof.ablation=false",)
    possible = separable(tuning.space, proven.winner.setting)
    bound = [name for name in left if name not in possible]
    spent = [name for name in left if name not in bound]
    told = [f"{', '.join(bound)} cannot be left out alone"] if bound else []
    if spent:
        needed = spent_launches + launches_for(tune.proof.launches, len(mine) - len(bound))
        told.append(
            f"the winner was not measured without {', '.join(spent)}: that needs"
            f" tune.budget.launches={needed}"
        )
    return tuple(told)


def _outcome(
    search: Search, proven: Proven | None, about: Mapping[str, Any]
) -> tuple[Outcome, str]:
    """The outcome and its reason: from the proof if there is one, else from the search."""
    if proven is not None:
        return OUTCOMES[proven.proof.result], proven.proof.reason
    why = str((about.get("searched") or {}).get("why"))
    trials = search.trials
    others = [trial for trial in trials if trial.setting != search.space.default]
    if search.best is None:
        if trials and search.defaults.failure:
            return Outcome.NOTHING, why
        return Outcome.NOTHING, f"of {plural(len(trials), 'trial')} none keeps all constraints"
    if not others:
        return Outcome.NOTHING, f"nothing but the defaults was tried: {why}"
    return (
        Outcome.DEFAULTS,
        f"none of {len(others)} others was measured to be better by more than noise",
    )
