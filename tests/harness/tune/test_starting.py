"""Where a launch's searches of a capacity begin."""

from dataclasses import replace

from harness.tune.starting import starts_at, starts_of
from loadgen.config import Load, Search

RATE = Load(arrival="poisson", search=Search())
STREAMS = Load(arrival="closed", search=Search())
CLOSED = Load(arrival="closed", concurrency=8)
DEFAULT, OTHER = (("max_num_seqs", None),), (("max_num_seqs", 8),)
FORECAST = {
    DEFAULT: [{"capacity_rps": 200.0}, {"capacity_concurrency": 30.0}],
    OTHER: [{"capacity_rps": 500.0}, {"capacity_concurrency": 10.0}],
}
LOADS = (RATE, STREAMS)


def test_the_defaults_begin_at_half_of_what_is_expected_of_them() -> None:
    assert starts_of(LOADS, DEFAULT, DEFAULT, FORECAST) == [(RATE, 100.0), (STREAMS, 15.0)]


def test_others_begin_at_what_the_defaults_have_times_the_expected_gain() -> None:
    rows = [{"capacity_rps": 71.3}, {"capacity_concurrency": 60.0}]
    assert starts_of(LOADS, OTHER, DEFAULT, FORECAST, rows) == [(RATE, 180.0), (STREAMS, 20.0)]


def test_without_a_forecast_they_begin_at_what_the_defaults_have() -> None:
    assert starts_of(LOADS, OTHER, DEFAULT, None, [{"capacity_rps": 71.3}]) == [(RATE, 71.0)]
    assert starts_of(LOADS, DEFAULT, DEFAULT, None) == []


def test_what_was_found_is_where_the_proof_begins_and_never_below_one_stream() -> None:
    rows = [{"capacity_rps": 71.3}, {"capacity_concurrency": 0.3}]
    assert starts_at(LOADS, rows) == [(RATE, 71.0), (STREAMS, 1.0)]


def test_nothing_is_said_where_nothing_is_searched_or_was_found() -> None:
    assert starts_at((CLOSED, RATE), [{"capacity_concurrency": 8.0}, {"capacity_rps": None}]) == []
    assert starts_at((replace(RATE, search=None, rate_rps=3.0),), [{"capacity_rps": 5.0}]) == []


def test_what_is_asked_for_stands() -> None:
    asked = replace(RATE, search=Search(start_rps=7.125))
    assert starts_of((asked,), DEFAULT, DEFAULT, FORECAST) == [(asked, 7.125)]
