import numpy as np
import pytest

from harness.capacity.backlog import Backlog, backlog

AT_S = np.arange(0.0, 20.0, 0.25)
# vLLM on two H200s at 100 req/s, every quarter of a second; each request kept its limits, and other
# launches of the same configuration carried 400 req/s.
UP_AND_DOWN = [73, 51, 57, 33, 47, 54, 72, 82, 64, 50, 43, 40, 43, 56, 79, 80, 77, 94, 96, 118]
UP_AND_DOWN += [129, 126, 128, 136, 138, 136, 131, 127, 143, 143, 152, 147, 159, 156, 153, 140]
UP_AND_DOWN += [143, 146, 139, 126]


def test_steady_growth_is_found_with_its_rate() -> None:
    found = backlog(AT_S, 10 + 5 * AT_S, 100 + 40 * AT_S, 45.0)
    assert found is not None
    assert found.growth_rps == pytest.approx(5)
    assert found.in_flight == 108


def test_a_constant_number_is_no_backlog() -> None:
    assert backlog(AT_S, np.full(len(AT_S), 500.0), 1000 + 40 * AT_S, 40.0) is None


def test_a_load_that_fills_the_server_is_none() -> None:
    """Every request takes 10 s: until then all that came is in flight, and none has ended."""
    in_flight = 40 * np.minimum(AT_S, 10)
    ended = 40 * np.maximum(AT_S - 10, 0)
    assert backlog(AT_S, in_flight, ended, 40.0) is None


def test_what_falls_again_is_none() -> None:
    in_flight = 10 + 5 * np.minimum(AT_S, 20 - AT_S)
    assert backlog(AT_S, in_flight, 1000 + 40 * AT_S, 40.0) is None


@pytest.mark.parametrize("seconds", [0.5, 1.0])
def test_a_moment_says_nothing(seconds: float) -> None:
    brief = np.arange(0.0, seconds, 0.05)
    assert backlog(brief, 10 + 50 * brief, 1000 + 40 * brief, 90.0) is None


def test_chance_is_seldom_taken_for_growth() -> None:
    """In flight wander freely at the very edge: arrivals and ends are both Poisson of one rate."""
    random, rate_rps, found = np.random.default_rng(3), 40.0, 0
    for _ in range(300):
        steps = random.poisson(rate_rps * 0.25, len(AT_S)) - random.poisson(
            rate_rps * 0.25, len(AT_S)
        )
        in_flight = np.maximum(0, 60 + np.cumsum(steps)).astype(float)
        found += backlog(AT_S, in_flight, 1000 + rate_rps * AT_S, rate_rps) is not None
    assert found < 30


def test_a_server_that_is_now_faster_now_slower_has_none() -> None:
    at_s, in_flight = np.linspace(0.0, 10.0, len(UP_AND_DOWN)), np.array(UP_AND_DOWN, dtype=float)
    assert backlog(at_s, in_flight, 300 + 100 * at_s, 100.0) is None
    regular = np.linspace(in_flight[0], in_flight[-1] + 60, len(UP_AND_DOWN))
    assert backlog(at_s, regular, 300 + 100 * at_s, 100.0) is not None


def test_a_speed_that_wanders_is_seldom_taken_for_growth() -> None:
    """In flight come back to 120, within about 3 s, and stray from it by 40."""
    random, found, level = np.random.default_rng(5), 0, 120.0
    kept = np.exp(-0.25 / 3.0)
    for _ in range(300):
        levels = []
        for shock in random.normal(scale=40 * np.sqrt(1 - kept**2), size=len(AT_S) // 2):
            level = 120 + kept * (level - 120) + shock
            levels.append(max(0.0, level))
        at_s = AT_S[: len(levels)]
        found += backlog(at_s, np.array(levels), 1000 + 100 * at_s, 100.0) is not None
    assert found < 6


def test_it_is_told_in_words() -> None:
    told = str(Backlog(in_flight=212, growth_rps=9.14))
    assert told == "212 requests in flight, and 9.1 more each second"
