"""When a duel ends, and what a look says."""

import pytest

from harness.duel.duel import is_settled, look_line
from harness.guard.comparison import compare
from harness.guard.outcome import Outcome
from tests.harness.guard.studies import STEADY, THROUGHPUT, baseline, candidate, guard, slower

TTFT = "ttft_p50_s"
WILD = (960.0, 1040.0, 1005.0, 970.0, 1030.0)


@pytest.mark.parametrize(
    ("values", "verdict", "settled"),
    [
        (STEADY[::-1], Outcome.PASS, True),
        (slower(0.2), Outcome.REGRESSED, True),
        (WILD, Outcome.INCONCLUSIVE, False),
    ],
)
def test_launches_are_added_only_while_the_verdict_is_open(
    values: tuple[float, ...], verdict: Outcome, settled: bool
) -> None:
    found = compare(baseline(), candidate(values), guard())
    assert (found.verdict, is_settled(found)) == (verdict, settled)


def test_one_regression_settles_it_whatever_else_is_open() -> None:
    mine, theirs = baseline(), candidate(slower(0.2))
    for side, wild in ((mine, WILD), (theirs, WILD[::-1])):
        for run, value in zip(side.runs, wild, strict=True):
            run.row[TTFT] = value / 1e4
    found = compare(mine, theirs, guard(THROUGHPUT, TTFT))
    assert found.verdict is Outcome.REGRESSED
    assert is_settled(found)
    line = look_line("look 2 of 4", found, 5, "")
    assert "regressed (1 regressed, 1 inconclusive); open: TTFT p50 ms" in line


def test_a_refusal_settles_it() -> None:
    found = compare(baseline(), candidate(measurement_version=1), guard())
    assert is_settled(found)
    assert look_line("look 2 of 4", found, 5, "") == "look 2 of 4: refused"


def test_a_look_says_what_is_open_and_how_it_goes_on() -> None:
    found = compare(baseline(), candidate(WILD), guard())
    line = look_line("look 2 of 4", found, 5, "on to 8 launches")
    assert line.startswith(
        "look 2 of 4, after 5 launches of each side: inconclusive (1 inconclusive); open: "
    )
    assert line.endswith("; on to 8 launches")
    assert "output tok/s at concurrency=8 (+" in line
