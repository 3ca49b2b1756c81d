"""Which rate to try next, from the answers so far. Pure: the same answers, the same next step.

First comes one request at a time: limits that it misses hold at no rate. Then the rate is doubled
while the limits hold, or halved while they do not. The highest rate at which they held and the
lowest at which they did not form a bracket, which is bisected (geometrically) until it is narrow
enough. A rate whose answer is unclear is tried again, and its runs count as one longer run. If it
remains unclear, its share alone decides for the search, and it is not reported as an end of the
bracket. Unclear is also a miss in a run whose client, or simulator, was itself too slow. It is
tried once more at once, and such runs count only where a rate has no others.

The same holds for the concurrency of a closed loop, in whole numbers. "Rate" stands for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import sqrt
from operator import add

from harness.capacity.share import EFFECT, Share, Verdict, design_effect
from loadgen.config import Search

STEP = 2.0  # factor between rates before there is a bracket
REOPENED = 4.0  # step, in resolutions, from a bracket's end that was tried again and now holds
DOUBTFUL_TRIES = 2  # runs at a doubtful miss before the search goes on
ALONE_MISSES = "one request alone misses the limits"
LEAST_FRAC = 0.1  # of the rate reached with one request at a time; below, there is hardly any load


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one run says about the limits; `rate` is None for one request at a time."""

    rate: float | None
    share: Share
    is_out: bool = False  # missed whatever the share: over-saturated, or the server died
    rate_rps: float | None = None  # of completed requests
    is_doubtful: bool = False  # our own side was too slow: a miss may be its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A rate, and what its runs together say."""

    rate: float
    share: Share
    verdict: Verdict
    runs: int
    holds: bool  # for the search; if the verdict is unclear, the share decides
    is_doubtful: bool  # all of its runs are


@dataclass(frozen=True, slots=True)
class Alone:
    """Send one request at a time."""


@dataclass(frozen=True, slots=True)
class At:
    """Send at this rate."""

    rate: float


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to try, for this reason."""

    reason: str


Step = Alone | At | Done


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is searched for. `is_whole` means a concurrency, in whole numbers."""

    search: Search
    share_frac: float
    is_whole: bool = False
    start: float | None = None  # first rate; None: what one request at a time reaches


@dataclass(frozen=True, slots=True, kw_only=True)
class Bracket:
    """Rates at which limits held (`best`), clearly held (`low`) and were clearly missed (`high`).

    None where there is no such rate.
    """

    best: float | None
    low: float | None
    high: float | None


def next_step(answers: Sequence[Answer], question: Question) -> Step:
    """What to try after these answers."""
    alone = [answer for answer in answers if answer.rate is None]
    if not alone:
        return Alone()
    if is_too_much(answers, question):
        is_final = not alone[-1].is_doubtful or len(alone) >= _doubtful_tries(question)
        return Done(ALONE_MISSES) if is_final else Alone()
    if len(answers) >= question.search.probes:
        return Done(f"all {question.search.probes} probes were used")
    return _between(tried(answers, question), _reached_alone(answers), question)


def is_too_much(answers: Sequence[Answer], question: Question) -> bool:
    """Whether one request alone misses the limits."""
    return any(
        answer.is_out or answer.share.verdict(question.share_frac, EFFECT) == Verdict.MISSED
        for answer in _counted([answer for answer in answers if answer.rate is None])
    )


def effect_of(answers: Sequence[Answer], question: Question) -> float:
    """The design effect estimated from all of these answers."""
    return design_effect(share for share, *_ in _by_rate(answers, question).values())


def bracket(answers: Sequence[Answer], question: Question) -> Bracket:
    """What is known so far. The capacity lies in `low` .. `high` if no clear answer is wrong.

    Limits that hold at a rate also hold below it, so runs at neighbouring rates add evidence: `low`
    is the highest rate for which the runs from it up to `best`, taken together, met the limits, and
    `high` the lowest for which those from the first miss up to it, taken together, missed them. A
    rate whose own runs are clear counts, too.
    """
    effect, rates = effect_of(answers, question), sorted(tried(answers, question), key=_rate)
    first_miss = next((t.rate for t in rates if not t.holds), float("inf"))
    held = [t for t in rates if t.rate < first_miss]
    missed = [t for t in rates if t.rate >= first_miss]

    def clear(nearest_first: Sequence[Tried], verdict: Verdict) -> float | None:
        together = Share()
        for one in nearest_first:
            if verdict == Verdict.MET or not one.is_doubtful:
                together += one.share
            if verdict in (one.verdict, together.verdict(question.share_frac, effect)):
                return one.rate
        return None

    return Bracket(
        best=held[-1].rate if held else None,
        low=clear(held[::-1], Verdict.MET),
        high=clear(missed, Verdict.MISSED),
    )


def tried(answers: Sequence[Answer], question: Question) -> list[Tried]:
    """Each rate once, in the order of first tries."""
    effect, found = effect_of(answers, question), []
    for rate, (share, group, runs) in _by_rate(answers, question).items():
        verdict = share.verdict(question.share_frac, effect)
        if any(answer.is_out for answer in group):
            verdict = Verdict.MISSED
        leans = share.frac is not None and share.frac >= question.share_frac
        holds = leans if verdict == Verdict.UNRESOLVED else verdict == Verdict.MET
        is_doubtful = all(answer.is_doubtful for answer in group)
        if is_doubtful and verdict == Verdict.MISSED:
            verdict = Verdict.UNRESOLVED
        found.append(
            Tried(
                rate=rate,
                share=share,
                verdict=verdict,
                runs=runs,
                holds=holds,
                is_doubtful=is_doubtful,
            )
        )
    return found


def _by_rate(
    answers: Sequence[Answer], question: Question
) -> dict[float, tuple[Share, Sequence[Answer], int]]:
    """For each rate: the combined share of the answers that count, these, and the number of all."""
    groups: dict[float, list[Answer]] = {}
    for answer in answers:
        rate = 1.0 if answer.rate is None and question.is_whole else answer.rate
        if rate is not None:
            groups.setdefault(rate, []).append(answer)
    found = {}
    for rate, group in groups.items():
        counted = _counted(group)
        found[rate] = (reduce(add, (a.share for a in counted)), counted, len(group))
    return found


def _counted(answers: Sequence[Answer]) -> Sequence[Answer]:
    """Those that are not doubtful, or all if every one is."""
    return [answer for answer in answers if not answer.is_doubtful] or answers


def _doubtful_tries(question: Question) -> int:
    return min(DOUBTFUL_TRIES, question.search.tries)


def _reached_alone(answers: Sequence[Answer]) -> float | None:
    """Requests per second completed with one request at a time, or None."""
    return next((a.rate_rps for a in answers if a.rate is None and a.rate_rps), None)


def _between(rates: Sequence[Tried], floor: float | None, question: Question) -> Step:
    """A rate that narrows the bracket, or that makes one of its ends clear."""
    high = min((t for t in rates if not t.holds), key=_rate, default=None)
    below = [t for t in rates if t.holds and (high is None or t.rate < high.rate)]
    low = max(below, key=_rate, default=None)
    if low is None and high is None:
        first = question.start or floor
        return At(first) if first else Done("no request alone was completed, and no rate is given")
    if high is not None and high.is_doubtful and high.runs < _doubtful_tries(question):
        return At(high.rate)
    if high is None:
        assert low is not None
        reopened = 1 + REOPENED * question.search.resolution_frac
        step = low.rate * (STEP if low.runs == 1 else min(reopened, STEP))
        return At(max(round(step), low.rate + 1) if question.is_whole else step)
    if low is None:
        return _below(high, floor, question)
    middle = sqrt(low.rate * high.rate)
    if question.is_whole:
        middle = min(max(float(round(middle)), low.rate + 1), high.rate - 1)
    if high.rate / low.rate - 1 > question.search.resolution_frac and middle > low.rate:
        return At(middle)
    for end in (low, high):
        if end.verdict == Verdict.UNRESOLVED and end.runs < question.search.tries:
            return At(end.rate)
    return Done("found")


def _below(high: Tried, floor: float | None, question: Question) -> Step:
    """The step down from a lowest rate that does not hold; of one stream there is none."""
    if not question.is_whole:
        if floor is not None and high.rate < LEAST_FRAC * floor:
            return Done("the limits are missed with hardly any load")
        return At(high.rate / STEP)
    if high.rate > 1:
        return At(float(max(1, round(high.rate / STEP))))
    is_open = high.verdict == Verdict.UNRESOLVED and high.runs < question.search.tries
    return Alone() if is_open else Done(ALONE_MISSES)


def _rate(one: Tried) -> float:
    return one.rate
