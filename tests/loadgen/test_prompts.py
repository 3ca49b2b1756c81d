import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.config import LogNormal, Uniform
from loadgen.prompts import NUMBER_TOKENS, Prompts, draw_length
from loadgen.records import Target


def target(**overrides):
    return Target(**{"url": "http://h", "model": "m", "vocab_size": 512} | overrides)


@pytest.fixture
def prompts(closed):
    def build(seed=1, vocab_size=512, **load):
        return Prompts(load=closed(**load), target=target(vocab_size=vocab_size), seed=seed)

    return build


def tokens(request):
    return json.loads(request.body)["prompt"]


def test_no_two_prompts_begin_alike_even_with_a_small_vocabulary(prompts):
    starts = {
        tuple(tokens(prompts(seed=seed).request(index))[:NUMBER_TOKENS])
        for seed in range(20)
        for index in range(500)
    }
    assert len(starts) == 20 * 500


def test_neighbours_differ_in_their_first_token(prompts):
    firsts = [tokens(prompts().request(index))[0] for index in range(100)]
    assert len(set(firsts)) == 100


def test_a_request_is_the_same_however_often_it_is_made(prompts):
    lengths = {"dist": "uniform", "min": 5, "max": 50}
    assert prompts(input_tokens=lengths).request(7) == prompts(input_tokens=lengths).request(7)
    assert prompts(seed=1).request(7).body != prompts(seed=2).request(7).body


@given(
    seed=st.integers(0, 2**32),
    index=st.integers(0, 2**20),
    length=st.integers(1, 40),
    vocab_size=st.integers(18, 200_000),
)
def test_prompts_are_as_long_as_asked_and_hold_only_allowed_tokens(
    closed, seed, index, length, vocab_size
):
    load = closed(input_tokens=length)
    request = Prompts(load=load, target=target(vocab_size=vocab_size), seed=seed).request(index)
    assert len(tokens(request)) == length == request.input_tokens
    assert all(16 <= token < vocab_size for token in tokens(request))


def test_a_body_asks_for_a_stream_with_usage_and_an_exact_length(prompts):
    body = json.loads(prompts(output_tokens=9).request(0).body)
    del body["prompt"]
    assert body == {
        "model": "m", "max_tokens": 9, "temperature": 0.0, "stream": True,
        "stream_options": {"include_usage": True}, "ignore_eos": True,
    }  # fmt: skip
    assert "ignore_eos" not in json.loads(prompts(ignore_eos=False).request(0).body)


def test_chat_sends_one_word_a_token(prompts):
    body = json.loads(prompts(endpoint="chat", input_tokens=20).request(0).body)
    (message,) = body["messages"]
    assert message["role"] == "user"
    assert len(message["content"].split()) == 20
    assert all(word[0] == "t" and word[1:].isdigit() for word in message["content"].split())


@given(seed=st.integers(0, 2**32), sigma=st.floats(0, 3))
def test_drawn_lengths_keep_their_bounds(seed, sigma):
    random = np.random.default_rng(seed)
    assert 3 <= draw_length(Uniform(min=3, max=5), random) <= 5
    assert 3 <= draw_length(LogNormal(median=4, sigma=sigma, min=3, max=5), random) <= 5
    assert draw_length(11, random) == 11


def test_lognormal_lengths_have_the_median_asked():
    random = np.random.default_rng(0)
    length = LogNormal(median=100, sigma=0.5, min=1, max=10_000)
    drawn = [draw_length(length, random) for _ in range(4000)]
    assert np.median(drawn) == pytest.approx(100, rel=0.05)
    assert np.std(np.log(drawn)) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("wrong", [{"vocab_size": 17}, {"first_token_id": -1}, {"url": "h:80"}])
def test_a_target_without_two_tokens_or_a_scheme_is_refused(wrong):
    with pytest.raises(ValueError, match=r"first_token_id|url"):
        target(**wrong)
