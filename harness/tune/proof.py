"""The proof: winner and defaults measured again, interleaved, and judged by the guard.

The best of many noisy trials looks better than it is, because it was partly chosen for its luck. So
no gain is reported from the search. Instead there are new launches of both sides, `proof.launches`
of each, and of the winner without each of its settings (ablation). They form one study with a case
for each side. Each round contains every case once, so rounds are blocks and the samples are paired
(harness/guard/question.py).

    gain           log(tuned / defaults) of each goal; with several loads, their mean per launch
    constraint     log(tuned / limit), or log(tuned / defaults / limit), at the load where it is
                   nearest to breaking
    contribution   of a setting: log(tuned / tuned without it) of the first goal

Each is a question of its own at the guard's confidence, with a Student's t interval over the
launches. `improved`, `regressed` and `unchanged` follow from the guard's thresholds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.columns import metric
from harness.config import Case, Config
from harness.engines.config import Engine
from harness.guard.comparison import compare
from harness.guard.config import Guard
from harness.guard.evidence import Evidence
from harness.guard.outcome import Comparison, Outcome, Verdict
from harness.guard.pairing import match
from harness.settings import Repeats
from harness.tune.finding import Finding, gain_over, kept_over
from harness.tune.launching import DEFAULTS
from harness.tune.objective import Objective
from harness.tune.space import Space, without
from harness.tune.trial import Setting, chosen

SWEEP = "proof"  # its name on disk, below the study of the search
TUNED, WITHOUT = "tuned", "without_"


class Result(StrEnum):
    """The result of a proof."""

    PROVEN = "proven"
    NO_GAIN = "no_gain"  # settled: no gain that matters, or a loss
    BROKEN = "broken"  # a constraint is broken, or a run of the winner failed
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the launches of a proof show."""

    result: Result
    reason: str  # a clause without full stop; empty where the intervals speak for themselves
    gains: tuple[Finding, ...]  # one per goal
    constraints: tuple[Finding, ...]
    contributions: dict[str, Finding]  # by setting; empty without ablation
    comparison: Comparison  # of the guard's other metrics
    confidence: float
    launches: int  # with a measurement, on the side that has fewer

    @property
    def let_through(self) -> str:
        """The fatal codes that rows carry but that were allowed; empty without any."""
        return ", ".join(one.what for one in self.comparison.refusals if one.allowed)


def ablated(space: Space, winner: Setting, order: Sequence[str], most: int) -> tuple[str, ...]:
    """The settings of the winner to ablate: at most `most`, in the given order.

    There are none if the winner changes only one setting: its contribution is the gain.
    """
    if len(chosen(winner)) < 2:
        return ()
    ranked = sorted(
        separable(space, winner), key=lambda n: order.index(n) if n in order else len(order)
    )
    return tuple(ranked[:most])


def separable(space: Space, winner: Setting) -> list[str]:
    """The settings of the winner that may be left out alone, because no other depends on them."""
    known = set(space.settings())
    return [name for name in chosen(winner) if without(winner, name) in known]


def proof_config(
    config: Config, space: Space, winner: Setting, settings: Sequence[str], launches: int
) -> Config:
    """The configuration of the proof's study: a case for each side, shuffled within each round."""
    sides: dict[str, Engine] = {
        DEFAULTS: space.engine(space.default),
        TUNED: space.engine(winner),
        **{f"{WITHOUT}{n}": space.engine(without(winner, n)) for n in settings},
    }
    varied = {f"engine.{name}": [None, value] for name, value in chosen(winner).items()}
    loads = {name: values for name, values in config.axes.items() if name.startswith("load.")}
    return replace(
        config,
        sweep=SWEEP,
        axes={"case": list(sides), **varied, **loads},
        cases=tuple(
            Case(name=name, engines=(engine,), loads=config.cases[0].loads)
            for name, engine in sides.items()
        ),
        options=replace(
            config.options, repeats=Repeats(launches=launches, runs=1), order="shuffled", case=None
        ),
    )


def judged(
    evidence: Evidence,
    objective: Objective,
    settings: Sequence[str],
    guard: Guard,
    *,
    allow: Sequence[str] = (),
    defaults_break: Sequence[str] = (),
) -> Proof:
    """The proof as its study shows it.

    `settings` are those that were ablated, `allow` the fatal codes that are let through, and
    `defaults_break` the constraints that the defaults do not keep: a winner that keeps them is
    better, even without a gain.
    """
    defaults, tuned = (_side(evidence, case, objective) for case in (DEFAULTS, TUNED))
    goals = [goal.column for goal in objective.goals]
    beside = [m for m in guard.metrics if m not in goals] or guard.metrics
    comparison = compare(defaults, tuned, replace(guard, metrics=beside), allow=allow)
    pairs = match(defaults, tuned).pairs
    gains = tuple(gain_over(goal, pairs, guard) for goal in objective.goals)
    kept = tuple(kept_over(one, pairs, guard) for one in objective.constraints)
    result, reason = _result(gains, kept, comparison, tuned)
    if defaults_break and result is Result.NO_GAIN:
        result, reason = Result.PROVEN, f"the defaults break {'; '.join(defaults_break)}"
    return Proof(
        result=result,
        reason=reason,
        gains=gains,
        constraints=kept,
        contributions={
            name: gain_over(
                objective.goals[0],
                match(_side(evidence, f"{WITHOUT}{name}", objective), tuned).pairs,
                guard,
            )
            for name in settings
        },
        comparison=comparison,
        confidence=1 - guard.alpha,
        launches=min(defaults.launches, tuned.launches),
    )


def _side(evidence: Evidence, case: str, objective: Objective) -> Evidence:
    """The evidence of one case, as if it were a study of its own."""
    runs = tuple(
        replace(run, row=objective.complete(run.row))
        for run in evidence.runs
        if run.row.get("case") == case
    )
    about = evidence.about | {"runs": [run.id for run in runs]}
    return replace(evidence, folder=evidence.folder / case, runs=runs, about=about, skipped=0)


def _result(
    gains: Sequence[Finding],
    constraints: Sequence[Finding],
    comparison: Comparison,
    tuned: Evidence,
) -> tuple[Result, str]:
    """The result, and the reason where the gains do not show it."""
    if lost := [run for run in tuned.runs if not run.ok]:
        kinds = ", ".join(dict.fromkeys(str(run.row.get("failure")) for run in lost))
        return (
            Result.BROKEN,
            f"{len(lost)} of {len(tuned.runs)} runs of the winner failed ({kinds})",
        )
    if comparison.verdict is Outcome.REFUSED:
        return Result.INCONCLUSIVE, _refused(comparison)
    broken = [one for one in constraints if one.is_on_the_bad_side]
    if any(one.word == "broken" for one in broken):
        return Result.BROKEN, f"the winner breaks {_named(broken)}"
    if broken:
        return Result.INCONCLUSIVE, f"whether the winner keeps {_named(broken)} is open"
    words = {gain.word for gain in gains}
    if Verdict.INCONCLUSIVE.value in words:
        reasons = dict.fromkeys(gain.reason for gain in gains if gain.reason)
        return Result.INCONCLUSIVE, "; ".join(reasons) or _open(gains)
    if Verdict.IMPROVED.value not in words:
        return Result.NO_GAIN, ""
    is_trade = Verdict.REGRESSED.value in words
    return Result.PROVEN, "one goal is traded for the other" if is_trade else ""


def _open(gains: Sequence[Finding]) -> str:
    """A clause saying that an interval is inconclusive, naming it where there are two goals."""
    unsettled = [g for g in gains if g.word == Verdict.INCONCLUSIVE.value]
    titles = [metric(gain.metric)[0] for gain in unsettled]
    whose = f" of {' and of '.join(titles)}" if len(gains) > 1 else ""
    return f"the interval{whose} holds changes that matter and ones that do not"


def _refused(comparison: Comparison) -> str:
    """A clause naming the fatal codes that rows carry, with counts and what to do about them."""
    refused = [one for one in comparison.refusals if not one.allowed]
    told = [f"{r.what} (defaults: {r.baseline}; winner: {r.candidate})" for r in refused]
    return (
        f"its proof has rows that must not be believed: {', '.join(told)}; delete the study's"
        " folder proof/ and the same command measures them again, or let them through with"
        f" tune.proof.allow={','.join(one.what for one in refused)}"
    )


def _named(findings: Iterable[Finding]) -> str:
    return " and ".join(f"'{one.what}'" for one in findings)
