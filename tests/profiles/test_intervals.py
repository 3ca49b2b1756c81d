import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.intervals import (
    EMPTY,
    covered_s,
    gaps,
    intervals,
    joined,
    only_s,
    overlap_s,
    span_s,
    union,
)

TIMES = st.tuples(st.integers(0, 200), st.integers(0, 40)).map(lambda each: (each[0], sum(each)))
SETS = st.lists(TIMES, max_size=30)


def made(pairs):
    return intervals([start for start, _ in pairs], [end for _, end in pairs])


def seconds(pairs):
    """The whole seconds that are covered, counted one by one."""
    return {second for start, end in pairs for second in range(start, end)}


@given(SETS)
def test_a_union_covers_what_counting_seconds_finds(pairs):
    assert covered_s(made(pairs)) == len(seconds(pairs))


@given(SETS)
def test_a_union_is_disjoint_ascending_and_no_longer_than_the_span(pairs):
    busy = union(made(pairs))
    assert np.all(busy.start_s < busy.end_s)
    assert np.all(busy.end_s[:-1] < busy.start_s[1:])
    assert covered_s(busy) <= span_s(made(pairs))


@given(SETS)
def test_busy_and_idle_make_the_span(pairs):
    solid = [pair for pair in pairs if pair[1] > pair[0]]
    assert covered_s(made(solid)) + gaps(made(solid)).length_s.sum() == span_s(made(solid))


@given(SETS, st.randoms(use_true_random=False))
def test_order_and_duplication_do_not_matter(pairs, random):
    other = pairs * 2
    random.shuffle(other)
    one, two = union(made(pairs)), union(made(other))
    np.testing.assert_array_equal(one.start_s, two.start_s)
    np.testing.assert_array_equal(one.end_s, two.end_s)


@given(SETS, SETS)
def test_overlap_is_what_counting_seconds_finds(pairs, others):
    each = overlap_s(made(pairs), made(others))
    covered = seconds(others)
    expected = [len(set(range(*pair)) & covered) for pair in sorted(pairs, key=lambda p: p[0])]
    assert each == pytest.approx(expected)


@given(SETS, SETS)
def test_only_is_what_the_others_do_not_hide(pairs, others):
    assert only_s(made(pairs), made(others)) == len(seconds(pairs) - seconds(others))


def test_nothing_is_covered_by_nothing():
    assert covered_s(EMPTY) == span_s(EMPTY) == only_s(EMPTY, EMPTY) == 0
    assert len(joined([])) == len(gaps(EMPTY)) == 0
    assert overlap_s(made([(1, 3)]), EMPTY) == [0]


def test_what_ends_before_it_starts_is_left_out():
    assert covered_s(intervals([5.0, 1.0], [4.0, 2.0])) == 1
