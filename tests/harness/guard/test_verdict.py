from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.guard.outcome import Verdict
from harness.guard.verdict import (
    Interval,
    Region,
    Sureness,
    deciding,
    drift_reach,
    interval,
    is_copy,
    judge,
    level,
    more_launches,
)

RATE = Region.around_one(0.03)
logs = st.lists(st.floats(5.0, 7.0), min_size=3, max_size=8).filter(lambda x: np.ptp(x) > 1e-3)


def verdict_of(low: float, high: float, *, higher_is_better: bool = True) -> Verdict:
    found = Interval(
        estimate=np.array((low + high) / 2), low=np.array(log(low)), high=np.array(log(high))
    )
    return Verdict(judge(found, RATE, higher_is_better=higher_is_better).item())


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.80, 0.969, Verdict.REGRESSED),
        (0.80, 0.971, Verdict.INCONCLUSIVE),
        (0.971, 1.029, Verdict.UNCHANGED),
        (0.969, 1.0, Verdict.INCONCLUSIVE),
        (1.031, 1.2, Verdict.IMPROVED),
        (0.5, 2.0, Verdict.INCONCLUSIVE),
    ],
)
def test_only_a_whole_interval_past_or_within_the_threshold_decides(
    low: float, high: float, says: Verdict
) -> None:
    assert verdict_of(low, high) is says


def test_higher_latencies_are_worse_and_higher_rates_are_better() -> None:
    assert verdict_of(1.1, 1.2, higher_is_better=False) is Verdict.REGRESSED
    assert verdict_of(1.1, 1.2, higher_is_better=True) is Verdict.IMPROVED


def test_drift_widens_what_points_to_a_change_and_nothing_else() -> None:
    scatter = np.array([-0.004, 0.004, 0.001, -0.001])
    sure = Sureness.of(0.05, 1)
    for shift, wider in ((0.0, 0.0), (-0.2, 0.1)):
        plain = deciding(scatter, scatter + shift, RATE, sure, paired=False)
        drifting = deciding(scatter, scatter + shift, RATE, sure, paired=False, reach=0.1)
        assert plain.low - drifting.low == pytest.approx(wider)
        assert drifting.high - plain.high == pytest.approx(wider)


def test_studies_apart_get_welchs_interval() -> None:
    mine, theirs = np.array([1.0, 1.2, 0.9]), np.array([2.0, 2.5, 2.1, 2.2])
    shares = mine.var(ddof=1) / 3, theirs.var(ddof=1) / 4
    freedom = sum(shares) ** 2 / (shares[0] ** 2 / 2 + shares[1] ** 2 / 3)
    half = stats.t.ppf(0.995, freedom) * sqrt(sum(shares))
    found = interval(mine, theirs, confidence=0.99, paired=False)
    difference = theirs.mean() - mine.mean()
    assert found.low == pytest.approx(difference - half)
    assert found.high == pytest.approx(difference + half)


def test_pairs_cancel_what_both_share() -> None:
    shared = np.linspace(0, 0.5, 6)
    wobble = np.array([1, -1, 1, -1, 1, -1]) * 0.001
    pairs = interval(shared, shared + wobble - 0.1, confidence=0.95, paired=True)
    apart = interval(shared, shared + wobble - 0.1, confidence=0.95, paired=False)
    assert pairs.high - pairs.low < 0.01 < 0.3 < apart.high - apart.low


@given(logs, logs, st.floats(-3, 3))
def test_an_interval_does_not_depend_on_the_unit(
    mine: list[float], theirs: list[float], shift: float
) -> None:
    sides = np.array(mine), np.array(theirs)
    found = interval(*sides, confidence=0.95, paired=False)
    scaled = interval(*(side + shift for side in sides), confidence=0.95, paired=False)
    assert scaled.low == pytest.approx(found.low, abs=1e-9)
    assert scaled.high == pytest.approx(found.high, abs=1e-9)


@given(logs, logs)
def test_exchanging_the_sides_turns_the_interval_round(
    mine: list[float], theirs: list[float]
) -> None:
    forth = interval(np.array(mine), np.array(theirs), confidence=0.95, paired=False)
    back = interval(np.array(theirs), np.array(mine), confidence=0.95, paired=False)
    assert forth.low == pytest.approx(-back.high, abs=1e-9)


def test_one_launch_makes_no_interval() -> None:
    with pytest.raises(ValueError, match="2 launches"):
        interval(np.array([1.0]), np.array([1.0, 2.0]), confidence=0.95, paired=False)


def test_many_comparisons_are_judged_at_once_as_one_by_one() -> None:
    random = np.random.default_rng(1)
    mine, theirs = random.normal(size=(4, 5)), random.normal(size=(4, 5))
    together = interval(mine, theirs, confidence=0.95, paired=False)
    alone = [
        interval(m, t, confidence=0.95, paired=False) for m, t in zip(mine, theirs, strict=True)
    ]
    assert together.low == pytest.approx([one.low for one in alone])


def test_intervals_of_a_family_share_its_error() -> None:
    assert level(0.05, 30) == pytest.approx(1 - 0.05 / 30)
    assert level(0.05, 30, looks=4) == pytest.approx(1 - 0.05 / 120)
    assert level(0.05, 0) == 0.95


def test_intervals_hold_their_confidence_together() -> None:
    random = np.random.default_rng(7)
    sides = [random.normal(size=(4000, 10, 4)) for _ in range(2)]
    found = interval(*sides, confidence=level(0.05, 10), paired=False)
    missed = ((found.low > 0) | (found.high < 0)).any(axis=1).mean()
    assert missed < 0.06


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("mean", [0.0, -0.05, 0.02])
def test_the_launches_asked_for_settle_it_and_one_less_does_not(paired: bool, mean: float) -> None:
    base, scatter = np.array([0.0, 0.02, -0.02, 0.01]), np.array([0.02, -0.02, 0.01, 0.0])
    mine, theirs = base - base.mean(), scatter - scatter.mean() + mean
    sure = Sureness(within=0.95, past=0.99)
    more = more_launches(mine, theirs, RATE, sure, paired=paired)
    assert more is not None
    distance = min(abs(mean - RATE.low), abs(mean - RATE.high))

    def half_width(launches: int) -> float:
        if paired:
            spread, freedom = np.var(theirs - mine, ddof=1) / launches, launches - 1
        else:
            shares = np.var(mine, ddof=1) / launches, np.var(theirs, ddof=1) / launches
            spread = sum(shares)
            freedom = spread**2 / sum(share**2 / (launches - 1) for share in shares)
        confidence = 0.99 if mean < RATE.low else 0.95
        return float(stats.t.ppf((1 + confidence) / 2, freedom) * sqrt(spread))

    assert half_width(4 + more) < distance
    assert more == 1 or half_width(3 + more) >= distance


def test_no_number_of_launches_settles_an_estimate_on_the_threshold() -> None:
    mine = np.array([0.0, 0.1, -0.1])
    assert more_launches(mine, mine + RATE.low, RATE, Sureness.of(0.05, 1), paired=False) is None


def test_a_trend_over_launches_reaches_as_far_as_it_has_gone() -> None:
    wobble = np.array([1, -2, 1, 2, -1, -1]) * 0.001
    time = np.arange(6) * 0.01
    reach = drift_reach(time + wobble, time + 0.06 + wobble)
    assert 0.06 < reach < 0.08, "six launches of 0.01 each, and its uncertainty"
    assert drift_reach(wobble, wobble - 0.1) == 0, "a step between studies is what is looked for"


def test_trends_of_pure_noise_are_found_at_their_rate() -> None:
    random = np.random.default_rng(3)
    found = drift_reach(random.normal(size=(4000, 5)), random.normal(size=(4000, 5))) > 0
    assert 0.03 < found.mean() < 0.07


def test_launches_that_do_not_differ_are_no_evidence() -> None:
    same = np.array([1.0, 1.0, 1.0])
    other = np.array([1.0, 1.1, 0.9])
    assert is_copy(same, same + 1, paired=False)
    assert not is_copy(same, other, paired=False)
    assert is_copy(other, other + 0.2, paired=True)


def test_a_threshold_is_a_share_of_the_baselines_value() -> None:
    assert exp(RATE.low) == pytest.approx(0.97)
    assert exp(RATE.high) == pytest.approx(1.03)


def test_a_limit_is_kept_on_one_side_of_it() -> None:
    values = np.array([-0.1, 0.1])
    assert Region.kept(is_floor=False).holds(values).tolist() == [True, False]
    assert Region.kept(is_floor=True).holds(values).tolist() == [False, True]


def test_a_change_needs_more_to_be_called_than_none() -> None:
    scatter = np.array([-0.004, 0.004, 0.001, -0.001])
    sure = Sureness.of(0.05, 30)
    near = deciding(scatter, scatter[::-1], RATE, sure, paired=False)
    far = deciding(scatter, scatter - 0.1, RATE, sure, paired=False)
    assert far.high - far.low > 2 * (near.high - near.low)
    assert near.high == interval(scatter, scatter[::-1], confidence=0.95, paired=False).high


def test_a_wrong_pass_is_as_rare_as_one_wrong_interval() -> None:
    """Half of the ten numbers have changed by just the threshold, the others not at all."""
    random = np.random.default_rng(11)
    truth = np.array([RATE.low] * 5 + [0.0] * 5)[:, None]
    mine, theirs = (random.normal(0, 0.01, size=(2000, 10, 8)) for _ in range(2))
    found = deciding(mine, theirs + truth, RATE, Sureness.of(0.05, 10), paired=False)
    verdicts = judge(found, RATE, higher_is_better=True)
    assert (verdicts == Verdict.UNCHANGED).all(axis=1).mean() <= 0.025
    assert (verdicts == Verdict.REGRESSED).any(axis=1).mean() <= 0.05
