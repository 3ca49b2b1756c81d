"""One question of a proof: a ratio, its interval over launches, and a verdict on it. Pure.

Interval, confidence and verdict are the guard's (harness/guard/verdict.py), for a family of one
question.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.capacity.columns import CAPACITIES
from harness.guard import verdict
from harness.guard.config import Guard
from harness.guard.limit import Limit
from harness.guard.outcome import Verdict
from harness.guard.pairing import Pair
from harness.guard.question import Question, Samples, samples_of
from harness.tune.constraint import Constraint
from harness.tune.objective import Goal
from harness.tune.trial import Rows

THRESHOLD_FRAC = 0.03  # for a goal without a threshold in conf/guard/
BRACKET = ("capacity_low", "capacity_high")  # where limits were clearly kept and clearly missed
UNCLEAR = (
    "the launches show no noise to judge by, and not each of them has a rate that was clearly kept"
    " and one that was clearly missed"
)
LONGER = "a longer load.duration_s makes more rates clear"
KEPT = {Verdict.UNCHANGED: "kept", Verdict.REGRESSED: "broken", Verdict.INCONCLUSIVE: "open"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A ratio and its interval.

    `before` and `after` are geometric means over launches; for a constraint, `before` is the limit.
    What could not be computed is None, and `reason` says why.
    """

    what: str  # the column, or the constraint
    metric: str
    before: float | None = None
    after: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    word: str = Verdict.INCONCLUSIVE.value  # for a constraint: kept, broken, open
    launches: int = 0  # of the winner, or pairs
    more_launches: int | None = None  # that would settle it
    reason: str | None = None
    remedy: str | None = None  # what would settle it if more launches would not
    is_floor: bool = False  # whether the constraint is a lower limit

    @property
    def is_on_the_bad_side(self) -> bool:
        """Whether a constraint is more likely broken than kept."""
        return self.word == "broken" or (self.word == "open" and not self._estimate_is_good)

    @property
    def _estimate_is_good(self) -> bool:
        if self.ratio is None:
            return False
        return self.ratio >= 1 if self.is_floor else self.ratio <= 1


def gain_over(goal: Goal, pairs: Sequence[Pair], guard: Guard) -> Finding:
    """How much better the candidates are than the baselines, over all loads."""
    told = Finding(what=goal.column, metric=goal.column)
    threshold_frac = guard.thresholds_frac.get(goal.column, THRESHOLD_FRAC)
    region = verdict.Region.around_one(threshold_frac)
    found = _over_loads([_samples(pair, goal.column) for pair in pairs])
    if isinstance(found, str):
        by_brackets = _bracketed(told, pairs, region, higher_is_better=goal.maximise)
        return by_brackets or replace(told, reason=found)
    return _decided(told, found, region, guard, higher_is_better=goal.maximise)


def _bracketed(
    told: Finding, pairs: Sequence[Pair], region: verdict.Region, *, higher_is_better: bool
) -> Finding | None:
    """The interval of a capacity from its brackets, where the launches show no noise.

    All launches try the same rates, so they often find exactly the same capacity. The ratio is then
    at least the lowest rate that the winner clearly keeps over the highest that the defaults
    clearly miss, and at most the highest that the winner clearly misses over the lowest that the
    defaults clearly keep, over all launches. Without such rates there is no interval, and more
    launches would not help. None if a launch found no capacity, or if there are several loads.
    """
    if told.metric not in CAPACITIES or len(pairs) != 1:
        return None
    sides = [[r.row for r in side if r.ok] for side in (pairs[0].baseline, pairs[0].candidate)]
    before, after = (_values(rows, told.metric) for rows in sides)
    if not before or not after:
        return None
    mean_before, mean_after = np.log(before).mean(), np.log(after).mean()
    told = replace(
        told,
        before=math.exp(mean_before),
        after=math.exp(mean_after),
        ratio=math.exp(mean_after - mean_before),
        launches=min(map(len, sides)),
    )
    brackets = [[_values(rows, name) for rows in sides] for name in BRACKET]
    if any(not values for both in brackets for values in both):
        return replace(told, reason=UNCLEAR, remedy=LONGER)
    (low_before, low_after), (high_before, high_after) = brackets
    interval = verdict.Interval(
        estimate=mean_after - mean_before,
        low=np.log(min(low_after) / max(high_before)),
        high=np.log(max(high_after) / min(low_before)),
    )
    word = verdict.judge(interval, region, higher_is_better=higher_is_better).item()
    return replace(
        told,
        low=math.exp(float(interval.low)),
        high=math.exp(float(interval.high)),
        word=str(word),
    )


def _values(rows: Rows, name: str) -> list[float]:
    """The column's values in all rows; empty if a row lacks a finite, positive one."""
    values = [row.get(name) for row in rows]
    known = [float(v) for v in values if v is not None and math.isfinite(v) and v > 0]
    return known if len(known) == len(values) else []


def kept_over(constraint: Constraint, pairs: Sequence[Pair], guard: Guard) -> Finding:
    """Whether the candidates keep a constraint, at the load where they are nearest to breaking it.

    Values without an interval (e.g. no failures at all, which has no logarithm) are kept only if
    every launch is on the good side.
    """
    limit = constraint.limit
    told = Finding(what=str(constraint), metric=limit.metric, word="open", is_floor=limit.is_floor)
    found = [_kept_at(told, constraint, pair, guard) for pair in pairs]
    if not found:
        return told
    order = ("kept", "open", "broken")
    return max(found, key=lambda one: (order.index(one.word), _excess(one)))


def _excess(found: Finding) -> float:
    """The log of how far a finding is beyond its limit."""
    if found.ratio is None or found.ratio <= 0:
        return -math.inf
    return -math.log(found.ratio) if found.is_floor else math.log(found.ratio)


def _kept_at(told: Finding, constraint: Constraint, pair: Pair, guard: Guard) -> Finding:
    limit = constraint.limit
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
    """A constraint without an interval, judged by the value of each launch."""
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


def _mean(rows: Rows, metric: str) -> float | None:
    values = [row[metric] for row in rows if row.get(metric) is not None]
    return float(np.mean(values)) if values else None


def _samples(pair: Pair, metric: str, limit: Limit | None = None) -> Samples | str:
    return samples_of(Question(metric=metric, pair=pair, limit=limit, threshold_frac=0.0))


def _over_loads(each: Sequence[Samples | str]) -> Samples | str:
    """The mean of the log values over the loads, for each launch."""
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
    """The guard's interval and verdict for one question."""
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
