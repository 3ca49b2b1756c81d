from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.schedule import poisson_offsets_s, ramp_offsets_s


@given(rate=st.floats(0.01, 1e4), n=st.integers(0, 200), seed=st.integers(0, 2**32))
def test_poisson_offsets_ascend_and_longer_runs_share_a_prefix(rate, n, seed):
    shorter = list(islice(poisson_offsets_s(rate, seed), n))
    longer = list(islice(poisson_offsets_s(rate, seed), n + 50))
    assert longer[:n] == shorter
    assert longer == sorted(longer)
    assert longer[0] > 0


def test_poisson_gaps_have_the_mean_and_the_spread_of_the_rate():
    offsets = list(islice(poisson_offsets_s(50.0, 7), 20_000))
    gaps = [b - a for a, b in pairwise(offsets)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(1 / 50, rel=0.05)
    assert variance**0.5 == pytest.approx(mean, rel=0.05)  # exponential: both are 1/rate


def test_different_seeds_give_different_arrivals():
    assert next(poisson_offsets_s(1.0, 1)) != next(poisson_offsets_s(1.0, 2))


def test_a_ramp_is_even_and_ends_before_its_time():
    assert ramp_offsets_s(4, 1.0) == [0.0, 0.25, 0.5, 0.75]
    assert ramp_offsets_s(3, 0.0) == [0.0, 0.0, 0.0]
