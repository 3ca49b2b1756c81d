import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.capacity.share import (
    EFFECT,
    Share,
    Verdict,
    design_effect,
    is_hopeless,
    share_of,
)


def share(kept: int, count: int) -> Share:
    return Share(kept=(float(kept),), counts=(float(count),))


@given(st.integers(0, 500), st.integers(0, 500), st.floats(1, 30))
def test_the_interval_holds_the_share(kept: int, broken: int, effect: float) -> None:
    one = share(kept, kept + broken)
    low, high = one.interval(effect)
    assert 0 <= low <= high <= 1
    if one.frac is not None:
        assert low <= one.frac + 1e-12
        assert one.frac <= high + 1e-12


@given(st.integers(1, 500), st.integers(0, 500))
def test_requests_that_hang_together_say_less(kept: int, broken: int) -> None:
    narrow, wide = (share(kept, kept + broken).interval(effect) for effect in (1.0, 8.0))
    assert wide[0] <= narrow[0] + 1e-12
    assert wide[1] >= narrow[1] - 1e-12


def test_of_no_request_nothing_is_known() -> None:
    assert Share().interval(1.0) == (0.0, 1.0)
    assert Share().frac is None
    assert Share().verdict(0.99, 1.0) == Verdict.UNRESOLVED


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (share(300, 300), Verdict.MET),
        (share(200, 200), Verdict.UNRESOLVED),  # too few to tell 99 % from 98 %
        (share(297, 300), Verdict.UNRESOLVED),
        (share(270, 300), Verdict.MISSED),
        (share(0, 5), Verdict.MISSED),
    ],
)
def test_a_share_is_judged_by_all_of_its_interval(one: Share, verdict: Verdict) -> None:
    assert one.verdict(0.99, 1.0) == verdict


def test_the_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    intervals = [share(int(kept), 400).interval(1.0) for kept in random.binomial(400, 0.95, 2000)]
    covered = np.mean([low <= 0.95 <= high for low, high in intervals])
    assert covered == pytest.approx(0.9, abs=0.03)


def test_a_run_is_cut_into_batches_in_order() -> None:
    one = share_of(np.array([True] * 6 + [False] * 3))
    assert one == Share(kept=(3.0, 3.0, 0.0), counts=(3.0, 3.0, 3.0))
    assert share_of(np.array([], dtype=bool)) == Share()


def test_bursts_of_misses_have_a_larger_design_effect_than_single_ones() -> None:
    random = np.random.default_rng(2)
    single = [share_of(random.random(600) > 0.1) for _ in range(50)]
    bursts = [share_of(np.repeat(random.random(20) > 0.1, 30)) for _ in range(50)]
    assert design_effect(single) < 3
    assert design_effect(bursts) > 10


def test_without_a_miss_the_design_effect_is_what_is_assumed() -> None:
    assert design_effect([share_of(np.ones(100, dtype=bool))]) == EFFECT
    assert design_effect([]) == EFFECT


@given(st.integers(0, 300), st.floats(10, 5000), st.floats(0.5, 0.999))
def test_more_misses_leave_no_more_hope(broken: int, planned: float, share_frac: float) -> None:
    assert is_hopeless(broken, planned, share_frac) <= is_hopeless(broken + 1, planned, share_frac)


def test_hope_is_given_up_only_past_a_clear_margin() -> None:
    assert not is_hopeless(10, 500, 0.99)  # twice what is allowed
    assert is_hopeless(100, 500, 0.99)
