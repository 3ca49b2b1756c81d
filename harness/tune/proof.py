"""The proof: winner and defaults measured again, in turns, and what the guard says of them.

The best of many noisy trials looks better than it is, because it was chosen for its luck too. So
nothing of the search is reported as a gain: new launches of both sides are, `proof.launches` of
each, and beside them the winner without each of its settings (ablation). They are one study with a
case for each side, every round of which holds each case once: rounds are blocks, and the samples
are paired (harness/guard/question.py).

    gain           log(tuned / defaults) of each goal; of several loads, their mean in each launch
    constraint     log(tuned / limit), or log(tuned / defaults / limit), at the load where it is
                   nearest to breaking
    contribution   of a setting: log(tuned / tuned without it) of the first goal

Each is one question with the guard's confidence for itself, and its interval is Student's t over
the launches. `improved`, `regressed` and `unchanged` are by the guard's thresholds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from harness.config import Case, Config, Repeats
from harness.engines.config import Engine
from harness.guard import verdict
from harness.guard.comparison import compare
from harness.guard.config import Guard
from harness.guard.evidence import Evidence
from harness.guard.limit import Limit
from harness.guard.outcome import Comparison, Outcome, Verdict
from harness.guard.pairing import Pair, match
from harness.guard.question import Question, Samples, samples_of
from harness.tune.constraint import Constraint
from harness.tune.launching import DEFAULTS
from harness.tune.objective import Goal, Objective
from harness.tune.space import Space, without
from harness.tune.trial import Setting

SWEEP = "proof"  # its name on disk, below the study of the search
TUNED, WITHOUT = "tuned", "without_"
THRESHOLD_FRAC = 0.03  # of a goal that conf/guard/ has no threshold for
KEPT = {Verdict.UNCHANGED: "kept", Verdict.REGRESSED: "broken", Verdict.INCONCLUSIVE: "open"}


class Result(StrEnum):
    """What a proof comes to."""

    PROVEN = "proven"
    NO_GAIN = "no_gain"  # settled: nothing that matters, or worse
    BROKEN = "broken"  # a constraint
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A ratio and its interval. `before` and `after` are geometric means over launches; of a
    constraint `before` is the limit. What could not be computed is None, and `reason` says why.
    """

    what: str  # the column, or the constraint
    metric: str
    before: float | None = None
    after: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    word: str = Verdict.INCONCLUSIVE.value  # of a constraint: kept, broken, open
    launches: int = 0  # pairs, or launches of the winner
    more_launches: int | None = None  # what would settle it
    reason: str | None = None

    @property
    def is_on_the_bad_side(self) -> bool:
        """Whether a constraint is more likely broken than kept."""
        return self.word == "broken" or (self.word == "open" and not self._estimate_is_good)

    @property
    def _estimate_is_good(self) -> bool:
        if self.ratio is None:
            return False
        return self.ratio >= 1 if ">" in self.what else self.ratio <= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the launches of a proof say."""

    result: Result
    reason: str  # in a sentence without its full stop; empty where the intervals say it
    gains: tuple[Finding, ...]  # of each goal
    constraints: tuple[Finding, ...]
    contributions: dict[str, Finding]  # by setting; empty without ablation
    comparison: Comparison  # of the guard's other metrics
    confidence: float


def least_launches(launches: int, settings: int) -> int:
    """How many a proof takes with the ablation of so many settings."""
    return launches * (2 + settings)


def ablated(space: Space, winner: Setting, order: Sequence[str], most: int) -> tuple[str, ...]:
    """Which settings of the winner are left out once, the first of `order` first.

    Of one setting alone the gain is its contribution. What may not be left out alone (another one
    depends on it) is not.
    """
    mine = [name for name, value in winner if value is not None]
    if len(mine) < 2:
        return ()
    known = set(space.settings())
    possible = [n for n in mine if without(winner, n) in known]
    ranked = sorted(possible, key=lambda n: order.index(n) if n in order else len(order))
    return tuple(ranked[:most])


def proof_config(
    config: Config, space: Space, winner: Setting, settings: Sequence[str], launches: int
) -> Config:
    """The study of the proof: a case for each side, in rounds, shuffled inside each."""
    sides: dict[str, Engine] = {
        DEFAULTS: space.engine(space.default),
        TUNED: space.engine(winner),
        **{f"{WITHOUT}{n}": space.engine(without(winner, n)) for n in settings},
    }
    varied = {f"engine.{name}": [None, value] for name, value in winner if value is not None}
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
    defaults_break: Sequence[str] = (),
) -> Proof:
    """What the proof's study says. `settings` are those that were left out once, `defaults_break`
    the constraints that the defaults do not keep: what keeps them is better, whatever it gains.
    """
    defaults, tuned = (_side(evidence, case, objective) for case in (DEFAULTS, TUNED))
    goals = [goal.column for goal in objective.goals]
    beside = [m for m in guard.metrics if m not in goals] or guard.metrics
    comparison = compare(defaults, tuned, replace(guard, metrics=beside))
    pairs = match(defaults, tuned).pairs
    gains = tuple(_gain(goal, pairs, guard) for goal in objective.goals)
    kept = tuple(_kept(one, pairs, guard) for one in objective.constraints)
    result, reason = _result(gains, kept, comparison, tuned)
    if defaults_break and result is Result.NO_GAIN:
        result, reason = Result.PROVEN, f"the defaults break {'; '.join(defaults_break)}"
    return Proof(
        result=result,
        reason=reason,
        gains=gains,
        constraints=kept,
        contributions={
            name: _gain(
                objective.goals[0],
                match(_side(evidence, f"{WITHOUT}{name}", objective), tuned).pairs,
                guard,
            )
            for name in settings
        },
        comparison=comparison,
        confidence=1 - guard.alpha,
    )


def _side(evidence: Evidence, case: str, objective: Objective) -> Evidence:
    """The runs of one case, as a study of their own."""
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
    """The whole, and why where the gain does not say it."""
    if lost := [run for run in tuned.runs if not run.ok]:
        kinds = ", ".join(dict.fromkeys(str(run.row.get("failure")) for run in lost))
        return (
            Result.BROKEN,
            f"{len(lost)} of {len(tuned.runs)} runs of the winner failed ({kinds})",
        )
    if comparison.verdict is Outcome.REFUSED:
        return Result.INCONCLUSIVE, comparison.summary.rstrip(".")
    broken = [one for one in constraints if one.is_on_the_bad_side]
    if any(one.word == "broken" for one in broken):
        return Result.BROKEN, f"the winner breaks {_named(broken)}"
    if broken:
        return Result.INCONCLUSIVE, f"whether the winner keeps {_named(broken)} is open"
    words = {gain.word for gain in gains}
    if Verdict.INCONCLUSIVE.value in words:
        reasons = dict.fromkeys(gain.reason for gain in gains if gain.reason)
        told = "the interval holds gains that matter and ones that do not"
        return Result.INCONCLUSIVE, "; ".join(reasons) or told
    if Verdict.IMPROVED.value not in words:
        return Result.NO_GAIN, ""
    is_trade = Verdict.REGRESSED.value in words
    return Result.PROVEN, "one goal is traded for the other" if is_trade else ""


def _named(findings: Iterable[Finding]) -> str:
    return " and ".join(f"'{one.what}'" for one in findings)


def _gain(goal: Goal, pairs: Sequence[Pair], guard: Guard) -> Finding:
    """How much better the candidates are than the baselines, over all loads."""
    told = Finding(what=goal.column, metric=goal.column)
    found = _over_loads([_samples(pair, goal.column) for pair in pairs])
    if isinstance(found, str):
        return replace(told, reason=found)
    threshold_frac = guard.thresholds_frac.get(goal.column, THRESHOLD_FRAC)
    region = verdict.Region.around_one(threshold_frac)
    return _decided(told, found, region, guard, higher_is_better=goal.maximise)


def _kept(constraint: Constraint, pairs: Sequence[Pair], guard: Guard) -> Finding:
    """Whether the candidates keep a constraint, at the load where they are nearest to breaking it.

    Of what has no logarithm (no failure at all) every launch must be on the good side.
    """
    found = [_kept_at(constraint, pair, guard) for pair in pairs]
    if not found:
        return Finding(what=str(constraint), metric=constraint.limit.metric, word="open")
    order = ("kept", "open", "broken")
    return max(found, key=lambda one: (order.index(one.word), _excess(constraint, one)))


def _excess(constraint: Constraint, found: Finding) -> float:
    if found.ratio is None or found.ratio <= 0:
        return -math.inf
    return -math.log(found.ratio) if constraint.limit.is_floor else math.log(found.ratio)


def _kept_at(constraint: Constraint, pair: Pair, guard: Guard) -> Finding:
    limit = constraint.limit
    told = Finding(what=str(constraint), metric=limit.metric, word="open")
    found = _samples(pair, limit.metric, None if constraint.relative else limit)
    if isinstance(found, str):
        return _counted(told, constraint, pair, found)
    base = 1.0
    if found.baseline is not None:
        base = math.exp(found.baseline.mean())
        found = replace(found, candidate=found.candidate - math.log(limit.value))
    region = verdict.Region.kept(is_floor=limit.is_floor)
    decided = _decided(told, found, region, guard, higher_is_better=limit.is_floor)
    allowed = limit.value * base
    ratio = decided.ratio or math.nan
    return replace(decided, before=allowed, after=allowed * ratio, word=KEPT[Verdict(decided.word)])


def _counted(told: Finding, constraint: Constraint, pair: Pair, reason: str) -> Finding:
    """A constraint of which there are no intervals, by each launch's own value."""
    rows = [run.row for run in pair.candidate if run.ok]
    bases = [run.row for run in pair.baseline if run.ok]
    base = _mean(bases, constraint.limit.metric) if constraint.relative else 1.0
    margins = [constraint.margin(row, {constraint.limit.metric: base}) for row in rows]
    if not margins or None in margins:
        return replace(told, reason=reason)
    over = [margin > 0 for margin in margins if margin is not None]
    word = "broken" if all(over) else "open" if any(over) else "kept"
    allowed = None if base is None else constraint.limit.value * base
    after = _mean(rows, constraint.limit.metric)
    ratio = after / allowed if after is not None and allowed else None
    return replace(
        told,
        before=allowed,
        after=after,
        ratio=ratio,
        word=word,
        launches=len(rows),
        reason="every launch by itself: its values have no interval",
    )


def _mean(rows: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    values = [row[metric] for row in rows if row.get(metric) is not None]
    return float(np.mean(values)) if values else None


def _samples(pair: Pair, metric: str, limit: Limit | None = None) -> Samples | str:
    return samples_of(Question(metric=metric, pair=pair, limit=limit, threshold_frac=0.0))


def _over_loads(each: Sequence[Samples | str]) -> Samples | str:
    """The mean of the logarithms over the loads, launch by launch."""
    samples = [one for one in each if isinstance(one, Samples)]
    if len(samples) < len(each) or not each:
        reasons = [one for one in each if isinstance(one, str)]
        return reasons[0] if reasons else "the two have no load in common"
    if len({len(one.candidate) for one in samples}) > 1 or len({s.paired for s in samples}) > 1:
        return "not every load was measured in every launch"
    baselines = [one.baseline for one in samples if one.baseline is not None]
    return Samples(
        baseline=np.mean(baselines, axis=0),
        candidate=np.mean([one.candidate for one in samples], axis=0),
        paired=samples[0].paired,
    )


def _decided(
    told: Finding, found: Samples, region: verdict.Region, guard: Guard, *, higher_is_better: bool
) -> Finding:
    """The guard's interval and word for one question."""
    sure = verdict.Sureness.of(guard.alpha, family=1)
    sides = (found.baseline, found.candidate)
    interval = verdict.deciding(*sides, region, sure, paired=found.paired)
    word = Verdict(verdict.judge(interval, region, higher_is_better=higher_is_better).item())
    more = None
    if word is Verdict.INCONCLUSIVE:
        more = verdict.more_launches(*sides, region, sure, paired=found.paired)
    return replace(
        told,
        before=None if found.baseline is None else math.exp(found.baseline.mean()),
        after=math.exp(found.candidate.mean()),
        ratio=math.exp(float(interval.estimate)),
        low=math.exp(float(interval.low)),
        high=math.exp(float(interval.high)),
        word=word.value,
        launches=len(found.candidate),
        more_launches=more,
    )
