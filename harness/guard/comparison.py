"""Compares two studies, or a study with a policy. Pure.

Each question is one metric at one point; all questions of a comparison share its error rate.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from math import exp, inf

from harness.errors import UserError
from harness.guard import likeness, verdict
from harness.guard.config import Guard
from harness.guard.evidence import Evidence
from harness.guard.outcome import Comparison, Judgement, Outcome, Refusal, Side, Verdict
from harness.guard.pairing import Pair, match, points
from harness.guard.policy import Policy, limits
from harness.guard.question import Question, Samples, is_defined, noise, samples_of
from harness.guard.summary import sentence
from harness.units import plural

BOTH_WAYS = "the interval holds changes that matter and changes that do not"
DRIFT = "it drifts over the launches of both studies, which may be all: measure them interleaved"


def compare(
    baseline: Evidence,
    candidate: Evidence,
    guard: Guard,
    *,
    allow: Collection[str] = (),
    policy: Policy | None = None,
) -> Comparison:
    """Judge the candidate against the baseline, and against a policy if there is one.

    Studies that grew until the verdict was settled record how many looks were planned, and every
    comparison of them is corrected for that. Raises UserError if the two hold the same
    measurements, or if the policy names points that were not measured.
    """
    _check_two(baseline, candidate)
    matching = match(baseline, candidate)
    refused = likeness.refusals(baseline, candidate, matching, allow)
    questions = _questions(matching.pairs, guard)
    if policy:
        questions += _promises(policy, points(candidate))
    notes: list[str] = []
    if baseline.runs and candidate.runs:
        notes += _unmatched(matching.baseline_only, matching.candidate_only)
    notes += [*_unfinished("baseline", baseline), *_unfinished("candidate", candidate)]
    looks = max(int(side.about.get("looks", 1)) for side in (baseline, candidate))
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
    """Judge a study against a policy alone. Raises UserError as `compare` does."""
    measured = points(study)
    refused = likeness.refusals_of_one(study, measured, allow)
    made = _judged(_promises(policy, measured), refused, guard, looks=1)
    against = Side(study=f"policy {name}", engine="", simulated=study.simulated, launches=0)
    notes = (*_unfinished("study", study), *made.notes)
    return _summed_up(replace(made, baseline=against, candidate=_side(study), notes=notes))


def _judged(
    questions: Sequence[Question], refused: tuple[Refusal, ...], guard: Guard, looks: int
) -> Comparison:
    """The comparison, with answers if every refusal is allowed. Both sides are still unnamed."""
    nobody = Side(study="", engine="", simulated=False, launches=0)
    is_refused = not all(refusal.allowed for refusal in refused)
    asked = [] if is_refused else [q for q in questions if is_defined(q)]
    samples = [samples_of(question) for question in asked]
    family = sum(isinstance(one, Samples) for one in samples)
    sure = verdict.Sureness.of(guard.alpha, family, looks)
    answers = [_answer(question, one, sure) for question, one in zip(asked, samples, strict=True)]
    left_out = [q.metric for q in questions if not is_refused and not is_defined(q)]
    return Comparison(
        verdict=Outcome.REFUSED if is_refused else _overall(answers),
        summary="",
        baseline=nobody,
        candidate=nobody,
        refusals=refused,
        changes=(),
        notes=tuple(
            _undefined(metric, left_out.count(metric)) for metric in dict.fromkeys(left_out)
        ),
        thresholds={q.metric: q.threshold_frac for q in asked if q.limit is None},
        confidence=1 - guard.alpha,
        family=family,
        looks=looks,
        points=tuple(answers),
        variance=tuple(noise(asked)),
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
    held = limits(policy, measured) if measured else []  # a study without runs is refused anyway
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
    reach = 0.0
    if samples.baseline is not None and not samples.paired:
        reach = float(verdict.drift_reach(samples.baseline, samples.candidate))
    found = verdict.deciding(*sides, region, sure, paired=samples.paired, reach=reach)
    judged = verdict.judge(found, region, higher_is_better=question.higher_is_better)
    decided = Verdict(judged.item())
    more = reason = None
    if decided is Verdict.INCONCLUSIVE and reach and not region.holds(found.estimate):
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
            yield f"{plural(count, 'point')} of the {name} alone: not compared"


def _undefined(metric: str, count: int) -> str:
    return f"{metric} is undefined at {plural(count, 'point')}: not compared there"


def _unfinished(name: str, study: Evidence) -> Iterable[str]:
    planned, there = len(study.about["runs"]) - study.skipped, len(study.runs)
    if there < planned and (there or not study.has_table):  # else it was sent without its runs
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
    """exp(value); None for an end of the interval that overflows a double."""
    try:
        return exp(value) if value < inf else None
    except OverflowError:
        return None
