"""Two studies, or a study and a policy, become a Comparison. Pure.

Each question is one metric at one point; all questions of a comparison share its error rate.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, inf, isinf, isnan, log
from typing import Any

from harness.errors import UserError
from harness.guard import likeness, verdict
from harness.guard.config import Guard, higher_is_better
from harness.guard.evidence import Evidence, Measured
from harness.guard.noise import Floats, components, launch_means
from harness.guard.outcome import Comparison, Judgement, Outcome, Refusal, Side, Variance, Verdict
from harness.guard.pairing import Pair, blocks, match, points
from harness.guard.policy import Limit, Policy, limits
from harness.guard.summary import sentence

BOTH_WAYS = "the interval holds changes that matter and changes that do not"
DRIFT = "it drifts over the launches of both studies too: measure them interleaved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One metric at one point: against the baseline, or against a limit of a policy."""

    metric: str
    pair: Pair
    limit: Limit | None
    threshold_frac: float

    @property
    def region(self) -> verdict.Region:
        """The ratios that are no change, or keep the limit."""
        if self.limit:
            return verdict.Region.kept(is_floor=self.limit.is_floor)
        return verdict.Region.around_one(self.threshold_frac)

    @property
    def higher_is_better(self) -> bool:
        """Which way is bad."""
        return self.limit.is_floor if self.limit else higher_is_better(self.metric)

    @property
    def sides(self) -> tuple[tuple[Measured, ...], ...]:
        """The good runs that answer it, of each side; a limit needs none of a baseline."""
        sides = (self.pair.candidate,) if self.limit else (self.pair.baseline, self.pair.candidate)
        return tuple(tuple(run for run in side if run.ok) for side in sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What launches answered, as logarithms. Over the limit, where there is one."""

    baseline: Floats | None
    candidate: Floats
    paired: bool


def compare(
    baseline: Evidence,
    candidate: Evidence,
    guard: Guard,
    *,
    allow: Collection[str] = (),
    policy: Policy | None = None,
    looks: int = 1,
) -> Comparison:
    """Judge the candidate by the baseline, and by a policy where there is one.

    `looks` is how often the data may be looked at, where launches are added until settled. Raises
    UserError if the two are one study, or if the policy speaks of points that were not measured.
    """
    _check_two(baseline, candidate)
    matching = match(baseline, candidate)
    refused = likeness.refusals(baseline, candidate, matching, allow)
    questions = _questions(matching.pairs, guard)
    if policy:
        questions += _promises(policy, points(candidate))
    notes = list(_unmatched(matching.baseline_only, matching.candidate_only))
    notes += [*_unfinished("baseline", baseline), *_unfinished("candidate", candidate)]
    made = _judged(questions, refused, guard, looks)
    return _summed_up(
        replace(
            made,
            baseline=_side(baseline),
            candidate=_side(candidate),
            changes=likeness.changes(baseline, candidate, matching),
            notes=(*notes, *made.notes),
        )
    )


def hold(
    study: Evidence, policy: Policy, guard: Guard, *, name: str, allow: Collection[str] = ()
) -> Comparison:
    """Judge a study by a policy alone. Raises UserError as `compare` does."""
    measured = points(study)
    refused = likeness.refusals_of_one(study, measured, allow)
    made = _judged(_promises(policy, measured), refused, guard, looks=1)
    against = Side(study=f"policy {name}", engine="", simulated=study.simulated, launches=0)
    notes = (*_unfinished("study", study), *made.notes)
    return _summed_up(replace(made, baseline=against, candidate=_side(study), notes=notes))


def _judged(
    questions: Sequence[Question], refused: tuple[Refusal, ...], guard: Guard, looks: int
) -> Comparison:
    """The answers, if nothing was refused that was not allowed. Both sides are still unnamed."""
    nobody = Side(study="", engine="", simulated=False, launches=0)
    is_refused = not all(refusal.allowed for refusal in refused)
    asked = [] if is_refused else [q for q in questions if _is_defined(q)]
    samples = [_samples(question) for question in asked]
    family = sum(isinstance(one, Samples) for one in samples)
    sure = verdict.Sureness.of(guard.alpha, family, looks)
    answers = [_answer(question, one, sure) for question, one in zip(asked, samples, strict=True)]
    left_out = dict.fromkeys(q.metric for q in questions if not _is_defined(q))
    return Comparison(
        verdict=Outcome.REFUSED if is_refused else _overall(answers),
        summary="",
        baseline=nobody,
        candidate=nobody,
        refusals=refused,
        changes=(),
        notes=tuple(f"{m} is undefined here: not compared" for m in left_out if not is_refused),
        thresholds={q.metric: q.threshold_frac for q in asked if q.limit is None},
        confidence=1 - guard.alpha,
        family=family,
        looks=looks,
        points=tuple(answers),
        variance=tuple(_noise(asked)),
    )


def _overall(answers: Sequence[Judgement]) -> Outcome:
    verdicts = {answer.verdict for answer in answers}
    if Verdict.REGRESSED in verdicts:
        return Outcome.REGRESSED
    return Outcome.INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts or not answers else Outcome.PASS


def _questions(pairs: Iterable[Pair], guard: Guard) -> list[Question]:
    return [
        Question(metric=metric, pair=pair, limit=None, threshold_frac=guard.thresholds_frac[metric])
        for pair in pairs
        for metric in guard.metrics
    ]


def _promises(policy: Policy, measured: tuple[Pair, ...]) -> list[Question]:
    held = limits(policy, measured)
    return [
        Question(metric=one.limit.metric, pair=one.pair, limit=one.limit, threshold_frac=0.0)
        for one in held
    ]


def _answer(question: Question, samples: Samples | str, sure: verdict.Sureness) -> Judgement:
    pair, limit = question.pair, question.limit
    launches = [len({run.launch for run in side}) for side in question.sides]
    told = Judgement(
        point=pair.point,
        metric=question.metric,
        baseline=limit.value if limit else None,
        candidate=None,
        ratio=None,
        low=None,
        high=None,
        threshold_frac=question.threshold_frac,
        verdict=Verdict.INCONCLUSIVE,
        launches=(launches[0] if len(launches) > 1 else 0, launches[-1]),
        paired=False,
        more_launches=None,
        reason=samples if isinstance(samples, str) else None,
        limit=str(limit) if limit else None,
        baseline_runs=tuple(run.id for run in pair.baseline if not limit),
        candidate_runs=tuple(run.id for run in pair.candidate),
        validity=tuple(dict.fromkeys(code for run in pair.runs for code in run.validity)),
    )
    return told if isinstance(samples, str) else _decided(told, question, samples, sure)


def _decided(
    told: Judgement, question: Question, samples: Samples, sure: verdict.Sureness
) -> Judgement:
    sides, region = (samples.baseline, samples.candidate), question.region
    found = verdict.deciding(*sides, region, sure, paired=samples.paired)
    drift = False
    if samples.baseline is not None and not samples.paired:
        drift = bool(verdict.drifts(samples.baseline, samples.candidate))
    judged = verdict.judge(found, region, higher_is_better=question.higher_is_better, drift=drift)
    decided = Verdict(judged.item())
    more = reason = None
    if decided is Verdict.INCONCLUSIVE and region.is_left_by(found):
        reason = DRIFT
    elif decided is Verdict.INCONCLUSIVE:
        reason = BOTH_WAYS
        more = verdict.more_launches(*sides, region, sure, paired=samples.paired)
    scale = question.limit.value if question.limit else 1.0
    return replace(
        told,
        baseline=told.baseline if samples.baseline is None else exp(samples.baseline.mean()),
        candidate=scale * exp(samples.candidate.mean()),
        ratio=exp(float(found.estimate)),
        low=_exp(float(found.low)),
        high=_exp(float(found.high)),
        verdict=decided,
        paired=samples.paired,
        more_launches=more,
        reason=reason,
    )


def _samples(question: Question) -> Samples | str:
    """The launches' answers, or why there is no judging by them."""
    groups = []
    for name, side in zip(
        ("baseline", "candidate")[-len(question.sides) :], question.sides, strict=True
    ):
        values = [run.row[question.metric] for run in side]
        if reason := _unusable(values, name):
            return reason
        groups.append(_logs(side, question.metric))
        if (found := len(groups[-1])) < verdict.MIN_LAUNCHES:
            launches = f"{found} launch{'es' * (found != 1)}"
            return f"{launches} of the {name}: noise between launches shows from 2 on, better 5"
    if question.limit:
        baseline, candidate = None, launch_means(groups[0]) - log(question.limit.value)
        paired = False
    else:
        ordered = blocks(question.pair)
        paired = ordered is not None
        if ordered:
            mine, theirs = zip(*ordered, strict=True)
            groups = [{n: groups[0][n] for n in mine}, {n: groups[1][n] for n in theirs}]
        baseline, candidate = launch_means(groups[0]), launch_means(groups[1])
    if verdict.is_copy(baseline, candidate, paired=paired):
        return "the launches do not differ at all: there is no noise to judge by"
    return Samples(baseline=baseline, candidate=candidate, paired=paired)


def _unusable(values: Sequence[Any], side: str) -> str | None:
    """Why these values have no logarithms."""
    undefined = sum(_is_undefined(value) for value in values)
    if undefined:
        return f"undefined in {undefined} of {len(values)} runs of the {side}"
    if endless := sum(isinf(value) for value in values):
        return f"longer than the run in {endless} of {len(values)} runs of the {side}"
    if zeros := sum(value <= 0 for value in values):
        return f"0 in {zeros} of {len(values)} runs of the {side}: it has no ratio"
    return None


def _is_undefined(value: Any) -> bool:
    return value is None or isnan(value)


def _is_defined(question: Question) -> bool:
    """Whether anything at all is known of the metric there; a policy's limit is asked anyway."""
    runs = [run for side in question.sides for run in side]
    return question.limit is not None or not all(
        _is_undefined(r.row.get(question.metric)) for r in runs
    )


def _logs(runs: Iterable[Measured], metric: str) -> dict[str, list[float]]:
    """Logarithms of a metric, by launch, in the order of time."""
    groups: dict[str, list[float]] = {}
    for run in sorted(runs, key=lambda run: run.begun_at_s or 0.0):
        groups.setdefault(run.launch, []).append(log(run.row[metric]))
    return groups


def _noise(questions: Iterable[Question]) -> Iterator[Variance]:
    """Of each metric at each point once, though a limit may ask for it again."""
    told = set()
    for question in questions:
        names = ("baseline", "candidate")[-len(question.sides) :]
        for name, side in zip(names, question.sides, strict=True):
            key = (name, question.metric, tuple(run.id for run in side))
            if key in told or not side or _unusable([r.row[question.metric] for r in side], name):
                continue
            told.add(key)
            groups = _logs(side, question.metric)
            found = components(groups)
            yield Variance(
                study=name,
                metric=question.metric,
                point=question.pair.point,
                between_frac=found.between,
                within_frac=found.within,
                launches=len(groups),
                runs=len(side),
            )


def _check_two(baseline: Evidence, candidate: Evidence) -> None:
    begun = [{run.begun_at_s for run in side.good} for side in (baseline, candidate)]
    if baseline.folder.resolve() == candidate.folder.resolve() or begun[0] & begun[1]:
        raise UserError(
            f"{baseline.folder} and {candidate.folder} hold the same measurements: a study says"
            " nothing about itself. fresh=true measures the same again."
        )


def _unmatched(baseline_only: int, candidate_only: int) -> Iterable[str]:
    for name, count in (("baseline", baseline_only), ("candidate", candidate_only)):
        if count:
            yield f"{count} point{'s' * (count > 1)} of the {name} alone: not compared"


def _unfinished(name: str, study: Evidence) -> Iterable[str]:
    planned, there = len(study.about["runs"]), len(study.runs)
    if there < planned:
        yield f"the {name} is unfinished: {there} of {planned} runs"


def _side(study: Evidence) -> Side:
    return Side(
        study=str(study.folder),
        engine=study.about["engine"],
        simulated=study.simulated,
        launches=study.launches,
    )


def _summed_up(comparison: Comparison) -> Comparison:
    return replace(comparison, summary=sentence(comparison))


def _exp(value: float) -> float | None:
    """None for a limit of the interval that no double holds."""
    try:
        return exp(value) if value < inf else None
    except OverflowError:
        return None
