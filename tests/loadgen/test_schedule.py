from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.config import Load
from loadgen.schedule import (
    gamma_offsets_s,
    offsets_s,
    poisson_offsets_s,
    ramp_offsets_s,
    ramped_poisson_offsets_s,
)

MOONCAKE = str(Path(__file__).parent / "data/mooncake.jsonl")

rates = st.floats(0.01, 1e4)
loads = st.one_of(
    st.builds(Load, arrival=st.sampled_from(["constant", "poisson"]), rate_rps=rates),
    st.builds(Load, arrival=st.just("gamma"), rate_rps=rates, burstiness=st.floats(0.05, 50)),
    st.builds(Load, arrival=st.just("ramp"), rate_rps=rates, rate_end_rps=rates),
)


def first(offsets, n):
    return np.array(list(islice(offsets, n)))


@given(load=loads, n=st.integers(0, 200), seed=st.integers(0, 2**64))
def test_offsets_ascend_and_longer_runs_share_a_prefix(load, n, seed):
    longer = first(offsets_s(load, seed), n + 50).tolist()
    assert longer == sorted(longer)
    assert longer[0] >= 0
    assert first(offsets_s(load, seed), n).tolist() == longer[:n]


@pytest.mark.parametrize(
    "load",
    [
        {"arrival": "poisson", "rate_rps": 1.0},
        {"arrival": "gamma", "rate_rps": 1.0, "burstiness": 2.0},
        {"arrival": "ramp", "rate_rps": 1.0, "rate_end_rps": 2.0},
    ],
)
def test_different_seeds_give_different_arrivals(load):
    assert next(offsets_s(Load(**load), 1)) != next(offsets_s(Load(**load), 2))


def test_constant_arrivals_are_even_and_keep_off_the_edges_of_the_window():
    load = Load(arrival="constant", rate_rps=4.0, warmup_s=1.0, duration_s=2.0)
    offsets = first(offsets_s(load, 1), 100_000)
    assert offsets[:5].tolist() == [0.125, 0.375, 0.625, 0.875, 1.125]
    assert offsets[-1] == pytest.approx(99_999.5 / 4)
    assert ((offsets >= 1.0) & (offsets < 3.0)).sum() == 4.0 * 2.0


def test_a_seed_keeps_its_poisson_arrivals():
    assert first(poisson_offsets_s(2.0, 7), 3) == pytest.approx(
        [0.195657, 0.277417, 0.803664], abs=1e-6
    )


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_have_the_mean_of_the_rate_and_the_spread_of_the_burstiness(burstiness):
    load = Load(arrival="gamma", rate_rps=50.0, burstiness=burstiness)
    gaps = np.diff(first(offsets_s(load, 7), 40_000))
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.03)


def test_poisson_is_gamma_with_a_burstiness_of_one():
    gamma, poisson = gamma_offsets_s(50.0, 1.0, 7), poisson_offsets_s(50.0, 7)
    assert first(gamma, 1000) == pytest.approx(first(poisson, 1000))


@given(rate=rates, until_s=st.floats(0.1, 1e4), seed=st.integers(0, 2**32))
def test_a_ramp_between_equal_rates_is_poisson(rate, until_s, seed):
    ramp = first(ramped_poisson_offsets_s(rate, rate, until_s, seed), 100)
    assert ramp == pytest.approx(first(poisson_offsets_s(rate, seed), 100), rel=1e-9)


@given(start=rates, end=rates, until_s=st.floats(0.1, 1e3), seed=st.integers(0, 2**32))
def test_a_ramps_arrivals_are_where_its_cumulated_rate_is_that_of_a_process_of_rate_one(
    start, end, until_s, seed
):
    at_s = first(ramped_poisson_offsets_s(start, end, until_s, seed), 300)
    ramped_s = np.minimum(at_s, until_s)
    cumulated = start * ramped_s + (end - start) / until_s * ramped_s**2 / 2
    cumulated += end * (at_s - ramped_s)
    assert cumulated == pytest.approx(first(poisson_offsets_s(1.0, seed), 300), rel=1e-6)


@pytest.mark.parametrize(("start", "end"), [(10.0, 200.0), (200.0, 10.0)])
def test_a_ramp_ends_with_the_window_and_keeps_its_last_rate(start, end):
    load = Load(arrival="ramp", rate_rps=start, rate_end_rps=end, warmup_s=40.0, duration_s=160.0)
    offsets = first(offsets_s(load, 3), 70_000)
    edges = [0.0, 20.0, 90.0, 110.0, 180.0, 200.0, 400.0]
    counts, _ = np.histogram(offsets[offsets < 400.0], edges)
    middles = np.minimum([10.0, 55.0, 100.0, 145.0, 190.0, 300.0], 200.0)
    expected = (start + (end - start) * middles / 200.0) * np.diff(edges)
    assert np.all(np.abs(counts - expected) < 4 * np.sqrt(expected))


def test_a_trace_is_played_at_its_speed_and_ends():
    trace = {"path": MOONCAKE, "speed": 2.0}
    load = Load(arrival="trace", trace=trace, warmup_s=0.0, duration_s=1.0)
    assert list(offsets_s(load, 1)) == [0.0, 0.0, 1.0, 1.75]


def test_a_closed_loop_has_no_schedule():
    with pytest.raises(ValueError, match="a closed loop has no schedule"):
        offsets_s(Load(arrival="closed", concurrency=1), 1)


def test_streams_start_evenly_and_before_the_ramps_end():
    assert ramp_offsets_s(4, 1.0) == [0.0, 0.25, 0.5, 0.75]
    assert ramp_offsets_s(3, 0.0) == [0.0, 0.0, 0.0]
    gaps = {b - a for a, b in pairwise(ramp_offsets_s(8, 2.0))}
    assert gaps == {0.25}
