"""The search against servers that are known: what holds at a rate holds at every lower one."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.capacity.search import (
    ALONE_MISSES,
    Alone,
    Answer,
    At,
    Done,
    Question,
    bracket,
    next_step,
    tried,
)
from harness.capacity.share import Share, Verdict, share_of
from loadgen.config import Search

QUESTION = Question(search=Search(), share_frac=0.99)
CLEAR = {True: share_of(np.ones(6000, dtype=bool)), False: share_of(np.zeros(600, dtype=bool))}
Server = Callable[[float], Answer]


def exact(truth: float) -> Server:
    """Answers clearly."""
    return lambda rate: Answer(rate=rate, share=CLEAR[rate <= truth])


def noisy(truth: float, seed: int, requests: int = 300) -> Server:
    """Requests miss the limits more and more often around the truth, at random."""
    random = np.random.default_rng(seed)

    def answer(rate: float) -> Answer:
        missed_frac = min(1.0, 0.01 * (rate / truth) ** 12)
        return Answer(rate=rate, share=share_of(random.random(requests) >= missed_frac))

    return answer


def alone(rate_rps: float | None = 1.0, *, held: bool = True) -> Answer:
    return Answer(rate=None, share=CLEAR[held], rate_rps=rate_rps)


def find(server: Server, question: Question = QUESTION, floor_rps: float = 1.0) -> list[Answer]:
    """All answers of a search that goes on to its end."""
    answers: list[Answer] = []
    while not isinstance(step := next_step(answers, question), Done):
        answers.append(alone(floor_rps) if isinstance(step, Alone) else server(step.rate))
        assert len(answers) <= question.search.probes
    return answers


@given(truth=st.floats(0.5, 300), start=st.none() | st.floats(0.1, 300), probes=st.integers(4, 20))
def test_the_bracket_holds_the_truth_when_answers_are_clear(
    truth: float, start: float | None, probes: int
) -> None:
    question = replace(QUESTION, search=Search(probes=probes), start=start)
    found = bracket(find(exact(truth), question), question)
    assert (found.low or 0.0) <= truth <= (found.high or float("inf"))
    assert found.best == found.low


@given(truth=st.floats(1, 60))
def test_with_slots_enough_the_bracket_is_as_narrow_as_asked_for(truth: float) -> None:
    question = replace(QUESTION, search=Search(probes=30))
    found = bracket(find(exact(truth), question), question)
    assert found.low is not None
    assert found.high is not None
    assert found.high / found.low <= 1.05


@given(truth=st.floats(0.5, 300), seed=st.integers(0, 99), probes=st.integers(4, 20))
def test_never_more_than_the_slots_are_used_and_the_same_state_asks_the_same(
    truth: float, seed: int, probes: int
) -> None:
    question = replace(QUESTION, search=Search(probes=probes))
    answers = find(noisy(truth, seed), question)
    assert len(answers) <= probes
    for cut in range(len(answers)):
        step = next_step(answers[:cut], question)
        assert step == next_step(list(answers[:cut]), question)
        assert step == (Alone() if cut == 0 else At(answers[cut].rate or 0.0))


def test_noise_is_searched_through() -> None:
    found = [bracket(find(noisy(20, seed)), QUESTION).best for seed in range(40)]
    errors = [abs(rate / 20 - 1) for rate in found if rate is not None]
    assert len(errors) == 40
    assert np.median(errors) < 0.05


def test_one_request_alone_comes_first_and_may_end_it() -> None:
    assert next_step([], QUESTION) == Alone()
    assert next_step([alone(held=False)], QUESTION) == Done("one request alone misses the limits")


def test_the_first_rate_is_that_of_one_request_alone_or_the_one_given() -> None:
    assert next_step([alone(3.5)], QUESTION) == At(3.5)
    assert next_step([alone(3.5)], replace(QUESTION, start=40.0)) == At(40.0)
    assert isinstance(next_step([alone(None)], QUESTION), Done)


def test_a_rate_that_ended_the_server_is_missed() -> None:
    answers = [alone(), exact(100)(10.0), Answer(rate=20.0, share=Share(), is_out=True)]
    assert bracket(answers, QUESTION).high == 20.0
    assert next_step(answers, QUESTION) == At(pytest.approx(14.14, rel=1e-3))


def test_an_unclear_end_of_the_bracket_is_tried_again_but_not_for_ever() -> None:
    unclear = Answer(rate=10.0, share=share_of(np.ones(100, dtype=bool)))
    answers = [alone(), unclear, exact(10)(10.3)]
    assert next_step(answers, QUESTION) == At(10.0)
    assert next_step([*answers, unclear], QUESTION) == At(10.0)
    assert next_step([*answers, unclear, unclear], QUESTION) == Done("found")


def test_runs_at_one_rate_are_one_longer_run() -> None:
    half = Answer(rate=10.0, share=share_of(np.ones(2000, dtype=bool)))
    one, two = (tried([half] * n, QUESTION)[0].verdict for n in (1, 2))
    assert (one, two) == (Verdict.UNRESOLVED, Verdict.MET)


def test_what_held_above_speaks_for_what_held_below() -> None:
    half = [Answer(rate=r, share=share_of(np.ones(2000, dtype=bool))) for r in (8.0, 10.0)]
    found = bracket([alone(), *half], QUESTION)
    assert (found.best, found.low) == (10.0, 8.0)


def test_limits_that_hardly_any_load_keeps_end_the_search() -> None:
    answers = find(exact(0.001), floor_rps=1.0)
    assert bracket(answers, QUESTION).best is None
    assert next_step(answers, QUESTION) == Done("the limits are missed with hardly any load")


@pytest.mark.parametrize("floor_rps", [0.5, 5.0, 50.0])
def test_below_one_stream_there_is_nothing_but_the_same_again(floor_rps: float) -> None:
    """One request alone narrowly misses the limits, so it is tried until that is clear."""
    question = replace(QUESTION, is_whole=True)
    kept = np.arange(20) > 0
    answers: list[Answer] = []
    while not isinstance(step := next_step(answers, question), Done):
        assert step == Alone()
        answers.append(Answer(rate=None, share=share_of(kept), rate_rps=floor_rps))
    assert len(answers) <= question.search.tries
    assert step.reason == "one request alone misses the limits"


@given(truth=st.integers(1, 500))
def test_a_concurrency_is_found_in_whole_numbers(truth: int) -> None:
    question = replace(QUESTION, search=Search(probes=40, resolution_frac=0.001), is_whole=True)
    answers = find(exact(truth), question)
    assert all(a.rate is None or a.rate == int(a.rate) for a in answers)
    assert len({a.rate for a in answers}) == len(answers)
    assert bracket(answers, question).best == truth


def slow_above(limit: float, truth: float, spells: int | None = None) -> Server:
    """Its client is too slow above a rate, and misses what the server keeps.

    It is so the first `spells` times at each rate, or always.
    """
    asked: Counter[float] = Counter()

    def answer(rate: float) -> Answer:
        asked[rate] += 1
        is_slow = rate > limit and (spells is None or asked[rate] <= spells)
        holds = rate <= truth and not is_slow
        return Answer(rate=rate, share=CLEAR[holds], is_doubtful=is_slow)

    return answer


@given(truth=st.floats(5, 200), frac=st.floats(0.1, 0.9))
def test_what_only_a_slow_client_missed_is_no_end_of_the_bracket(truth: float, frac: float) -> None:
    question = replace(QUESTION, search=Search(probes=40))
    found = bracket(find(slow_above(frac * truth, truth), question), question)
    assert found.best is not None
    assert found.best <= frac * truth
    assert found.high is None


@given(truth=st.floats(5, 200), frac=st.floats(0.1, 0.9))
def test_a_client_that_was_slow_once_does_not_move_the_capacity(truth: float, frac: float) -> None:
    question = replace(QUESTION, search=Search(probes=40))
    found = bracket(find(slow_above(frac * truth, truth, spells=1), question), question)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= truth < found.high <= 1.05 * found.low


def test_a_doubtful_miss_is_tried_once_more_at_once() -> None:
    miss = Answer(rate=4.0, share=CLEAR[False], is_doubtful=True)
    assert next_step([alone(), miss], QUESTION) == At(4.0)
    assert next_step([alone(), miss, miss], QUESTION) == At(2.0)
    once = replace(QUESTION, search=Search(tries=1))
    assert next_step([alone(), miss], once) == At(2.0)
    over = replace(miss, share=Share(), is_out=True)
    [one] = tried([over], QUESTION)
    assert (one.verdict, one.holds) == (Verdict.UNRESOLVED, False)
    [one] = tried([over, Answer(rate=4.0, share=CLEAR[True])], QUESTION)
    assert (one.verdict, one.holds, one.runs) == (Verdict.MET, True, 2)


def test_one_request_alone_is_tried_again_if_only_a_slow_client_missed() -> None:
    missed = replace(alone(held=False), is_doubtful=True)
    assert next_step([missed], QUESTION) == Alone()
    assert next_step([missed, alone()], QUESTION) == At(1.0)
    assert next_step([missed, missed], QUESTION) == Done(ALONE_MISSES)
    assert next_step([missed, alone(held=False)], QUESTION) == Done(ALONE_MISSES)
    assert next_step([alone(held=False)], QUESTION) == Done(ALONE_MISSES)
