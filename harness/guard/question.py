"""One question of a comparison: a metric at a point, and the launches' samples for it. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isinf, isnan, log
from typing import Any

from harness.direction import better
from harness.guard import verdict
from harness.guard.evidence import Measured
from harness.guard.limit import Limit
from harness.guard.noise import Floats, components, launch_means
from harness.guard.outcome import Variance
from harness.guard.pairing import Pair, blocks
from harness.units import plural


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One metric at one point, against the baseline or against a policy's limit."""

    metric: str
    pair: Pair
    limit: Limit | None
    threshold_frac: float

    @property
    def region(self) -> verdict.Region:
        """The ratios that count as no change, or that keep the limit."""
        if self.limit:
            return verdict.Region.kept(is_floor=self.limit.is_floor)
        return verdict.Region.around_one(self.threshold_frac)

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value of the metric is better."""
        return self.limit.is_floor if self.limit else better(self.metric) == "high"

    @property
    def sides(self) -> tuple[tuple[Measured, ...], ...]:
        """The good runs of each side; with a limit, of the candidate alone."""
        sides = (self.pair.candidate,) if self.limit else (self.pair.baseline, self.pair.candidate)
        return tuple(tuple(run for run in side if run.ok) for side in sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """The launches' values, as logarithms; relative to the limit if there is one."""

    baseline: Floats | None
    candidate: Floats
    paired: bool


def samples_of(question: Question) -> Samples | str:
    """The launches' samples, or the reason why they cannot be judged."""
    groups = []
    for name, side in zip(
        ("baseline", "candidate")[-len(question.sides) :], question.sides, strict=True
    ):
        values = [run.row.get(question.metric) for run in side]
        if reason := _unusable(values, name):
            return reason
        groups.append(_logs(side, question.metric))
        if (found := len(groups[-1])) < verdict.MIN_LAUNCHES:
            return (
                f"{plural(found, 'launch')} of the {name}: noise between launches shows from 2 on,"
                " better 5"
            )
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
    """Why these values have no logarithms; None if they all have."""
    undefined = sum(_is_undefined(value) for value in values)
    if undefined:
        return f"undefined in {undefined} of {len(values)} runs of the {side}"
    if endless := sum(isinf(value) for value in values):
        return f"longer than the run in {endless} of {len(values)} runs of the {side}"
    if zeros := sum(value <= 0 for value in values):
        return f"0 in {zeros} of {len(values)} runs of the {side}: it has no ratio"
    return None


def _is_undefined(value: Any) -> bool:
    return not isinstance(value, int | float) or isnan(value)


def is_defined(question: Question) -> bool:
    """Whether the metric is defined in any run there; a policy's limit is always asked."""
    runs = [run for side in question.sides for run in side]
    return question.limit is not None or not all(
        _is_undefined(r.row.get(question.metric)) for r in runs
    )


def _logs(runs: Iterable[Measured], metric: str) -> dict[str, list[float]]:
    """Logarithms of a metric by launch, in order of time."""
    groups: dict[str, list[float]] = {}
    for run in sorted(runs, key=lambda run: run.begun_at_s or 0.0):
        groups.setdefault(run.launch, []).append(log(run.row[metric]))
    return groups


def noise(questions: Iterable[Question]) -> Iterator[Variance]:
    """The noise of each metric at each point, once even if a limit asks for the same again."""
    told = set()
    for question in questions:
        names = ("baseline", "candidate")[-len(question.sides) :]
        for name, side in zip(names, question.sides, strict=True):
            key = (name, question.metric, tuple(run.id for run in side))
            if (
                key in told
                or not side
                or _unusable([r.row.get(question.metric) for r in side], name)
            ):
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
