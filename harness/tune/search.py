"""The search's ask-and-tell loop over Optuna's journal, resumable after a kill at any instant.

harness/tune/strategy.py chooses the trials; Optuna keeps them in a journal file in the study's
folder. Each step is one line of the journal, so a search that was killed continues where it was,
first with a trial that was asked for but not told.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.tune.objective import Objective
from harness.tune.space import Space
from harness.tune.strategy import Forecast, Strategy
from harness.tune.trial import Outcome, Rows, Setting, Trial, chosen, setting_text

if TYPE_CHECKING:
    import optuna

NAME = "tune"
TRIES = 2  # of the defaults, if a launch fails for a reason that is not the setting's
OUTCOME = "outcome"  # the user attribute that holds a told trial's outcome
INSTALL = "pip install 'optuna>=4.2'"
ForecastFor = Callable[[Rows], Forecast | None]


class Search:
    """One search over `space`, kept in the file `storage`.

    `forecast_for` gives the prior's forecast (harness/tune/prior.py), or None without one: first
    without rows, then for those of the defaults. Raises UserError if Optuna is not installed, or if
    the file is damaged or holds a search of another space or objective.
    """

    def __init__(
        self,
        space: Space,
        objective: Objective,
        forecast_for: ForecastFor,
        storage: Path,
        seed: int = 0,
    ) -> None:
        self.space = space
        self.objective = objective
        self.reason: str | None = None  # why `ask` returned None
        self._forecast_for, self._seed = forecast_for, seed
        self._optuna = load_optuna()
        self._storage = self._open(storage)
        self._study = self._begin(storage)
        for trial, kept in zip(self.trials, self._study.get_trials(deepcopy=False), strict=True):
            if trial.outcome is not None and not kept.state.is_finished():
                self._end(trial)  # the process was killed within `tell`
        self._foresee()

    def ask(self) -> Trial | None:
        """The trial that was asked for but not told, else a new one.

        None if nothing left is worth a launch; `reason` then says why.
        """
        trials = self.trials
        running = next((trial for trial in trials if trial.state == "running"), None)
        if running is not None:
            return running
        self.reason = None
        defaults = [trial for trial in trials if trial.setting == self.space.default]
        if not any(trial.gains for trial in defaults):
            self.reason = self._without_defaults(defaults)
            return self._add(self.space.default) if self.reason is None else None
        proposal = self._strategy.propose(trials)
        self.reason = proposal.reason
        return None if proposal.setting is None else self._add(proposal.setting)

    def tell(self, trial: Trial, outcome: Outcome) -> Trial:
        """Record a trial's outcome; returns the trial, judged."""
        number = trial.number
        known = self._study.get_trials(deepcopy=False)[number]
        self._storage.set_trial_user_attr(known._trial_id, OUTCOME, outcome.to_json())
        judged = self.trials[number]
        self._end(judged)
        if judged.setting == self.space.default:
            self._foresee()
        return judged

    @property
    def trials(self) -> list[Trial]:
        """All trials in the order in which they were asked for; the first is of the defaults."""
        kept = self._study.get_trials(deepcopy=False)
        defaults: Outcome | None = None
        found: list[Trial] = []
        for trial in kept:
            setting = tuple((name, trial.params[name]) for name in self.space.names)
            tree = trial.user_attrs.get(OUTCOME)
            outcome = None if tree is None else Outcome.from_json(tree)
            if setting == self.space.default and outcome is not None and outcome.state == "ok":
                defaults = defaults or outcome
            found.append(self.objective.judge(trial.number, setting, outcome, defaults))
        return found

    @property
    def defaults(self) -> Trial:
        """The last trial of the defaults, against which all others are judged; there must be one.

        There are several if a launch of the defaults failed because of the machine.
        """
        return next(t for t in reversed(self.trials) if t.setting == self.space.default)

    @property
    def measured(self) -> tuple[dict[str, Any], ...]:
        """The rows of the defaults, one per load; empty before they are measured."""
        trial = self.defaults if self.trials else None
        return trial.outcome.rows if trial and trial.outcome else ()

    @property
    def best(self) -> Trial | None:
        """The trial that the model rates best, among those that kept all constraints."""
        return self._strategy.best(self.trials)

    @property
    def pareto(self) -> list[Trial]:
        """The Pareto front: trials that kept all constraints and that no other such dominates."""
        feasible = [trial for trial in self.trials if trial.is_feasible]
        return [one for one in feasible if not any(_beats(two, one) for two in feasible)]

    def importances(self) -> dict[str, float]:
        """For each setting, the share of the score's variance over the space it explains alone.

        The score is the fitted model's; empty before anything was measured.
        """
        return self._strategy.importances(self.trials)

    def _foresee(self) -> None:
        """Make the forecast, and the strategy that rests on it, for what is known so far."""
        self.forecast = self._forecast_for(self.measured)
        self._strategy = Strategy(self.space, self.objective, self.forecast, self._seed)

    def _without_defaults(self, tried: Sequence[Trial]) -> str | None:
        """Why there is no baseline to improve on; None if the defaults are (still) to be tried."""
        if not tried:
            return None
        outcome = tried[-1].outcome
        assert outcome is not None
        if outcome.failure is None:
            names = " and ".join(goal.column for goal in self.objective.goals)
            return f"the launch of the defaults gave no {names}, so there is nothing to tune for"
        if not outcome.is_of_the_setting and len(tried) < TRIES:
            return None
        return (
            f"the defaults do not start here ({outcome.failure}), so there is nothing to be better"
            " than: pin settings with which they do"
        )

    def _add(self, setting: Setting) -> Trial:
        categorical = self._optuna.distributions.CategoricalDistribution
        trial = self._optuna.trial.create_trial(
            state=self._optuna.trial.TrialState.RUNNING,
            params=dict(setting),
            distributions={
                name: categorical(self.space.choices(name)) for name in self.space.names
            },
        )
        self._study.add_trial(trial)
        return self.trials[-1]

    def _end(self, trial: Trial) -> None:
        """Tell Optuna the values, or that the trial was pruned or failed."""
        assert trial.outcome is not None
        values, columns = dict(trial.values), [goal.column for goal in self.objective.goals]
        states = self._optuna.trial.TrialState
        if trial.state == "ok" and values.keys() >= set(columns):
            self._study.tell(trial.number, [values[column] for column in columns])
        else:
            pruned = trial.state == "screened"
            self._study.tell(trial.number, state=states.PRUNED if pruned else states.FAIL)

    def _open(self, path: Path) -> Any:
        """The journal's storage, cleaned of what a kill may have left: half a line, and a lock."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            text = path.read_bytes()
            if not text.endswith(b"\n"):
                text = text[: text.rfind(b"\n") + 1]
                path.write_bytes(text)
            _check(text, path)
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
        backend = self._optuna.storages.journal.JournalFileBackend(str(path))
        return self._optuna.storages.JournalStorage(backend)

    def _begin(self, path: Path) -> "optuna.Study":
        goals = self.objective.goals
        study: optuna.Study = self._optuna.create_study(
            storage=self._storage,
            study_name=NAME,
            sampler=self._optuna.samplers.RandomSampler(),  # not asked: the strategy chooses
            directions=["maximize" if goal.maximise else "minimize" for goal in goals],
            load_if_exists=True,
        )
        about = {
            "space": [setting_text(chosen(setting)) for setting in self.space.settings()[:1000]],
            "names": list(self.space.names),
            "goals": [goal.column for goal in goals],
        }
        for key, value in about.items():
            if study.user_attrs.get(key, value) != value:
                raise UserError(
                    f"{path} holds a search of another {'objective' if key == 'goals' else 'space'}"
                    ": fresh=true begins a new one."
                )
            if key not in study.user_attrs:
                study.set_user_attr(key, value)
        return study


def _check(journal: bytes, path: Path) -> None:
    """Raises UserError for a line that Optuna could not have written."""
    for number, line in enumerate(journal.splitlines(), start=1):
        try:
            json.loads(line)
        except ValueError:
            raise UserError(
                f"{path} is damaged in line {number}: put back a copy of it, or begin a new search"
                " with fresh=true."
            ) from None


def load_optuna() -> Any:
    """The Optuna module. Raises UserError if it is not installed."""
    try:
        import optuna
        import optuna.storages.journal
    except ImportError as error:
        raise UserError(f"tune= needs Optuna, which is not here ({error}): {INSTALL}.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _beats(one: Trial, other: Trial) -> bool:
    pairs = list(zip(one.gains, other.gains, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
