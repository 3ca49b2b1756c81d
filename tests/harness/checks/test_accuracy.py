from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.checks.accuracy import UnpairedError, delta, kl_nats
from tests.harness.checks.builders import Server, answer, log_softmax

VOCABULARY = 9
POSITIONS = 3
LOGITS = arrays(
    np.float64, (POSITIONS, VOCABULARY), elements=st.floats(-30, 30, allow_subnormal=False)
)
TOKEN_IDS = st.lists(st.integers(0, VOCABULARY - 1), min_size=POSITIONS, max_size=POSITIONS)
MEASURES = {
    "kl_{}_nats": "kl_mean_nats",
    "top1_agreement_{}_frac": "top1_agreement_frac",
    "perplexity_delta_{}": "perplexity_delta",
    "exact_match_{}_frac": "exact_match_frac",
    "common_prefix_{}_tokens": "common_prefix_tokens",
}


def true_kl_nats(p_logits, q_logits):
    """Over the whole vocabulary."""
    p, q = log_softmax(p_logits), log_softmax(q_logits)
    return (np.exp(p) * (p - q)).sum(axis=1)


@given(LOGITS, LOGITS, TOKEN_IDS, st.integers(1, VOCABULARY))
def test_kl_lies_between_zero_and_the_divergence_of_the_whole_vocabulary(p, q, token_ids, top):
    found, seen = kl_nats(answer(1, p, token_ids, top=top), answer(1, q, token_ids, top=top))
    assert (found >= 0).all()
    assert (found <= true_kl_nats(p, q) + 1e-4).all()  # logprobs are told in float32
    assert ((seen >= 0) & (seen <= 1 + 1e-5)).all()


def test_kl_is_exact_where_the_rest_is_one_token():
    p, q = np.random.default_rng(1).standard_normal((2, POSITIONS, VOCABULARY))
    order = np.arange(VOCABULARY) * -3.0  # both find the same tokens likely
    top = VOCABULARY - 1
    pair = [answer(1, logits + order, [0, 1, 2], top=top) for logits in (p, q)]
    assert kl_nats(*pair)[0] == pytest.approx(true_kl_nats(p + order, q + order), abs=1e-5)


def test_kl_sees_the_prompts_own_token_where_no_top_list_has_it():
    sure = np.array([[9.0, 0.0, 1.0, 1.0]])
    less = np.array([[9.0, 0.0, 1.5, 1.0]])
    blind = answer(1, sure, [0], top=1), answer(1, less, [0], top=1)
    told = answer(1, sure, [2], top=1), answer(1, less, [2], top=1)
    assert kl_nats(*told)[0] > kl_nats(*blind)[0]
    assert kl_nats(*told)[1] > kl_nats(*blind)[1]


def test_kl_of_lists_with_nothing_in_common_is_zero_and_nothing_was_seen():
    pair = [answer(1, np.eye(1, 4, place), [3], top=1) for place in (0, 1)]
    pair = [one for one in pair if one.top_ids[0, 0] != 3]
    kl, seen = kl_nats(*pair)
    assert seen < 0.2  # the prompt's own token alone
    assert kl == pytest.approx(0)


@given(LOGITS, TOKEN_IDS)
def test_answers_against_themselves_differ_by_exactly_nothing(logits, token_ids):
    answers = tuple(answer(prompt, logits + prompt, token_ids, [4, 2]) for prompt in range(3))
    found = asdict(delta(answers, answers, seed=0))
    assert [found[name.format(end)] for name in MEASURES for end in ("low", "high")] == (
        [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    )
    assert [found[name] for name in MEASURES.values()] == [0.0, 1.0, 0.0, 1.0, 2.0]


@given(st.integers(0, 50), st.permutations(range(12)))
def test_the_order_of_prompts_changes_nothing(seed, order):
    server = Server()
    reference, answers = server.answers(), server.answers(0.3)
    shuffled = tuple(answers[place] for place in order)
    assert delta(reference, shuffled, seed) == delta(reference, answers, seed)


@given(st.integers(0, 1000), st.floats(0.01, 2.0))
def test_every_interval_holds_its_estimate(seed, noise):
    server = Server(seed)
    found = asdict(delta(server.answers(), server.answers(noise), seed))
    for interval, estimate in MEASURES.items():
        low, high = found[interval.format("low")], found[interval.format("high")]
        assert low <= found[estimate] <= high, estimate


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """The truth: the same server asked all prompts."""
    many = Server(prompts=1800, positions=4)
    reference, answers = many.answers(), many.answers(0.5)
    truth = delta(reference, answers, seed=0).kl_mean_nats
    held = 0
    for first in range(0, 1800, 30):
        part = slice(first, first + 30)
        found = delta(reference[part], answers[part], seed=first)
        held += found.kl_low_nats <= truth <= found.kl_high_nats
    assert 50 <= held <= 60


def test_more_noise_is_further_away_by_every_measure():
    server = Server(prompts=30)
    found = [delta(server.answers(), server.answers(noise), 0) for noise in (0, 0.05, 0.3, 1.5)]
    for measure, sign in (("kl_mean_nats", 1), ("top1_agreement_frac", -1)):
        values = [sign * getattr(one, measure) for one in found]
        assert values == sorted(set(values)), measure
    assert found[-1].exact_match_frac < found[1].exact_match_frac < 1
    assert found[-1].common_prefix_tokens < found[1].common_prefix_tokens


def test_perplexity_is_that_of_the_prompts_own_tokens():
    good = np.log([[0.5, 0.25, 0.25], [0.125, 0.5, 0.375]])
    bad = np.log([[0.25, 0.5, 0.25], [0.125, 0.5, 0.375]])
    reference = (answer(1, good, [0, 0], [1], top=2), answer(2, good, [2, 1], [1], top=2))
    answers = (answer(1, bad, [0, 0], [1], top=2), answer(2, bad, [2, 1], [2], top=2))
    found = delta(reference, answers, seed=0)
    expected = (1 / (0.25 * 0.125 * 0.25 * 0.5)) ** 0.25
    assert found.perplexity == pytest.approx(expected)
    assert found.perplexity_delta == pytest.approx(
        expected - (1 / (0.5 * 0.125 * 0.25 * 0.5)) ** 0.25
    )
    assert found.top1_agreement_frac == 0.5
    assert found.exact_match_frac == 0.5
    assert found.common_prefix_tokens == 0.5


def test_a_missing_prompt_is_told():
    answers = Server().answers()
    with pytest.raises(UnpairedError, match="answers 12 prompts and the other 11, 11 of them"):
        delta(answers, answers[1:], seed=0)


def test_continuations_of_different_lengths_are_told():
    reference, answers = Server(continued=8).answers(), Server(continued=9).answers()
    with pytest.raises(UnpairedError, match="by 8 tokens and the other by 9"):
        delta(reference, answers, seed=0)


def test_a_token_that_is_impossible_leaves_numbers():
    logits = np.zeros((1, 4))
    impossible = np.array([[-1e4, 0.0, 0.0, 0.0]])
    pair = (answer(1, logits, [0], [1]),), (answer(1, impossible, [0], [1]),)
    found = delta(*pair, seed=0)
    assert all(np.isfinite(value) for value in asdict(found).values())
