import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.records import Target
from loadgen.tokens import NUMBER_TOKENS, Kind, Tokens


def tokens(seed=1, vocab_size=512, first_token_id=16):
    target = Target(url="http://h", model="m", vocab_size=vocab_size, first_token_id=first_token_id)
    return Tokens(target, seed)


seeds = st.integers(0, 2**64)
vocabularies = st.tuples(st.integers(0, 100), st.integers(2, 1_100_000)).map(
    lambda drawn: {"first_token_id": drawn[0], "vocab_size": sum(drawn)}
)


@given(
    vocabulary=vocabularies.filter(lambda it: it["vocab_size"] < 20_000),
    digits=st.lists(st.integers(0), min_size=1, max_size=50),
)
def test_json_and_words_are_those_of_the_tokens(vocabulary, digits):
    first, base = vocabulary["first_token_id"], vocabulary["vocab_size"]
    digits = np.array([digit % (base - first) for digit in digits])
    ids = (digits + first).tolist()
    of = tokens(**vocabulary)
    assert of.json(digits) == json.dumps(ids, separators=(",", ":")).encode()
    assert of.words(digits) == " ".join(f"t{token}" for token in ids)


@pytest.mark.parametrize("vocab_size", [151_936, 1_000_001])
def test_json_is_right_at_the_ends_of_a_large_vocabulary(vocab_size):
    digits = np.array([0, 1, 83, 84, 983, 984, 9_983, 9_984, vocab_size - 17])
    assert json.loads(tokens(vocab_size=vocab_size).json(digits)) == (digits + 16).tolist()
    assert tokens(vocab_size=vocab_size).words(digits).split()[-1] == f"t{vocab_size - 1}"


def test_no_tokens_are_an_empty_list():
    nothing = np.empty(0, np.int64)
    assert tokens().json(nothing) == b"[]"
    assert tokens().words(nothing) == ""


@given(
    draw=st.tuples(st.sampled_from(Kind), st.integers(0, 2**40)),
    seed=seeds,
    vocabulary=vocabularies,
    short=st.integers(0, 700),
    more=st.integers(0, 700),
)
def test_a_shorter_draw_is_the_beginning_of_a_longer_one(draw, seed, vocabulary, short, more):
    of = tokens(seed, **vocabulary)
    longer = of.draw(*draw, short + more)
    assert len(longer) == short + more
    assert of.draw(*draw, short).tolist() == longer[:short].tolist()
    base = vocabulary["vocab_size"] - vocabulary["first_token_id"]
    assert all(0 <= digit < base for digit in longer.tolist())


def test_no_two_draws_begin_alike_even_with_a_small_vocabulary():
    begins = {
        tuple(tokens(seed).draw(kind, number, NUMBER_TOKENS).tolist())
        for seed in range(20)
        for kind in Kind
        for number in range(200)
    }
    assert len(begins) == 20 * len(Kind) * 200


def test_neighbours_differ_in_their_first_token():
    firsts = [int(tokens().draw(Kind.PROMPT, number, 1)[0]) for number in range(100)]
    assert len(set(firsts)) == 100


@given(st.sets(st.tuples(seeds, st.sampled_from(Kind), st.integers(0, 2**40)), min_size=2))
def test_no_two_draws_share_their_first_eight_tokens(drawn):
    begins = {
        tuple(tokens(seed, 32_000).draw(kind, number, 8).tolist()) for seed, kind, number in drawn
    }
    assert len(begins) == len(drawn)
