import numpy as np
import pytest

from harness.guard.noise import components, launch_means


def test_a_launch_counts_once_whatever_its_runs() -> None:
    assert launch_means({"a": [1.0, 3.0, 2.0], "b": [5.0]}).tolist() == [2.0, 5.0]


def test_both_levels_of_noise_are_found_again() -> None:
    random = np.random.default_rng(5)
    launches = random.normal(0, 0.05, size=400)
    runs = {str(i): list(mean + random.normal(0, 0.02, size=4)) for i, mean in enumerate(launches)}
    found = components(runs)
    assert found.between == pytest.approx(0.05, rel=0.1)
    assert found.within == pytest.approx(0.02, rel=0.1)


def test_unequal_launches_are_weighed() -> None:
    random = np.random.default_rng(6)
    runs = {
        str(i): list(random.normal(0, 0.05) + random.normal(0, 0.02, size=1 + i % 4))
        for i in range(600)
    }
    found = components(runs)
    assert found.between == pytest.approx(0.05, rel=0.1)
    assert found.within == pytest.approx(0.02, rel=0.1)


def test_launches_alike_have_no_noise_between_them() -> None:
    found = components({"a": [0.0, 1.0], "b": [1.0, 0.0]})
    assert found.between == 0.0
    assert found.within == pytest.approx(0.5**0.5)


def test_one_run_a_launch_cannot_tell_the_levels_apart() -> None:
    found = components({"a": [1.0], "b": [2.0]})
    assert found.within is None
    assert found.between == pytest.approx(0.5**0.5)


def test_one_launch_shows_no_noise_between_launches() -> None:
    assert components({"a": [1.0, 2.0]}).between is None
    assert components({"a": [1.0]}).between is None
    assert components({"a": [1.0]}).within is None
