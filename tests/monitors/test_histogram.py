import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.histogram import quantile

BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5)


def histogram(values):
    return {bound: float(sum(value <= bound for value in values)) for bound in BOUNDS}


def test_a_quantile_is_linear_inside_its_bucket():
    assert quantile({1.0: 0, 2.0: 10, 4.0: 20}, 20, 0.25) == pytest.approx(1.5)
    assert quantile({1.0: 0, 2.0: 10, 4.0: 20}, 20, 0.75) == pytest.approx(3.0)


def test_above_the_last_bound_a_quantile_is_that_bound():
    assert quantile({1.0: 1, 2.0: 1}, 10, 0.9) == 2.0


@pytest.mark.parametrize(("counts", "total"), [({}, 3), ({1.0: 0}, 0)])
def test_of_nothing_there_is_no_quantile(counts, total):
    assert quantile(counts, total, 0.5) is None


@given(
    values=st.lists(st.floats(0.001, 2.5), min_size=1, max_size=50),
    q=st.floats(0.01, 1.0),
)
def test_an_estimate_is_in_the_bucket_of_the_true_quantile(values, q):
    estimate = quantile(histogram(values), len(values), q)
    true = np.quantile(values, q, method="inverted_cdf")
    upper = min(bound for bound in BOUNDS if bound >= true)
    lower = max((bound for bound in BOUNDS if bound < true), default=0.0)
    assert lower - 1e-9 <= estimate <= upper + 1e-9


@given(values=st.lists(st.floats(0.001, 5.0), min_size=1, max_size=50))
def test_quantiles_do_not_fall(values):
    estimates = [quantile(histogram(values), len(values), q) for q in (0.1, 0.5, 0.9, 0.99)]
    assert estimates == sorted(estimates)
