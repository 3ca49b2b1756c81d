from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.config import Empirical, LogNormal, Uniform
from loadgen.lengths import longest_tokens, sampler

LENGTHS = Empirical(path=str(Path(__file__).parent / "data/lengths.txt"))


def drawn(length, times, seed=0):
    random, draw = np.random.default_rng(seed), sampler(length)
    return [draw(random) for _ in range(times)]


@given(seed=st.integers(0, 2**32), sigma=st.floats(0, 3))
def test_drawn_lengths_keep_their_bounds(seed, sigma):
    for length in (
        Uniform(min=3, max=5), LogNormal(median=4, sigma=sigma, min=3, max=5), LENGTHS, 11,
    ):  # fmt: skip
        assert max(drawn(length, 5, seed)) <= longest_tokens(length)
    assert longest_tokens(LENGTHS) == 3000
    assert min(drawn(Uniform(min=3, max=5), 5, seed)) >= 3
    assert drawn(11, 5, seed) == [11] * 5


def test_lognormal_lengths_have_the_median_asked():
    lengths = drawn(LogNormal(median=100, sigma=0.5, min=1, max=10_000), 4000)
    assert np.median(lengths) == pytest.approx(100, rel=0.05)
    assert np.std(np.log(lengths)) == pytest.approx(0.5, rel=0.05)


def test_lengths_of_a_file_are_drawn_each_as_often():
    lengths, counts = np.unique(drawn(LENGTHS, 3000), return_counts=True)
    assert lengths.tolist() == [45, 120, 3000]
    assert counts == pytest.approx([1000, 1000, 1000], rel=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("12\n0\n", r"lengths:2: '0', expected a number of tokens, 1 or more"),
        ("12.5", r"lengths:1: '12.5', expected"),
        ("-3", r"lengths:1: '-3', expected"),
        ("# none\n", r"lengths: no length in it, expected one number of tokens a line"),
    ],
)
def test_a_malformed_file_of_lengths_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "lengths").write_text(text)
    with pytest.raises(ValueError, match=message):
        sampler(Empirical(path=str(tmp_path / "lengths")))
