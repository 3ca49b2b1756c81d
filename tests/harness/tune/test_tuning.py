"""Where a tuning's searches of a rate begin."""

from pathlib import Path

from harness.config import compose
from harness.overrides import parse
from harness.tune.tuning import begun_near
from tests.harness.whole_tool import Tool

EXPECTED = [{"capacity_rps": 201.1}]


def start_rps(expected: list[dict[str, float]] | None, *words: str) -> float | None:
    config = begun_near(compose(parse(["tune=capacity", "engine=sim", *words])), expected)
    (load,) = config.loads
    assert load.search is not None
    return load.search.start_rps


def test_a_search_begins_at_half_of_what_the_prior_expects_of_the_defaults() -> None:
    assert start_rps(EXPECTED) == 100


def test_what_is_asked_for_stands() -> None:
    assert start_rps(EXPECTED, "load.search.start_rps=7") == 7


def test_without_an_expectation_it_begins_with_one_request_at_a_time() -> None:
    assert start_rps(None) is None
    assert start_rps([{"capacity_rps": 0.0}]) is None


def test_a_load_that_searches_nothing_is_left_as_it_is() -> None:
    config = compose(parse(["tune=throughput", "engine=sim"]))
    assert begun_near(config, EXPECTED) == config


def test_the_plan_says_where_searches_begin(tmp_path: Path) -> None:
    done = Tool(tmp_path)("tune=capacity", "engine=sim", "plan=true")
    assert done.returncode == 0, done.stderr
    assert "searched in 8 runs at most, from " in done.stdout
