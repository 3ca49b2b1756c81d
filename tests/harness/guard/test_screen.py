from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from harness.guard.comparison import compare
from harness.guard.screen import print_comparison
from tests.harness.guard.studies import STEADY, THROUGHPUT, evidence, guard, measured, slower

TTFT = "ttft_p50_s"


def shown(width: int) -> list[str]:
    """A comparison of two points and two metrics, as a terminal of this width has it."""

    def side(values: Any, begun_at_s: float, **engine: Any) -> list[Any]:
        return [
            measured(
                i, value, point=str(seqs), begun_at_s=begun_at_s + i, row={TTFT: 1 / value},
                engine={"max_num_seqs": seqs} | engine,
            )
            for i, value in enumerate(values, 1)
            for seqs in (16, 64)
        ]  # fmt: skip

    theirs = side([*slower(0.1)[:3], 900.0, 700.0], 9e3, enforce_eager=True)
    found = compare(
        evidence(side(STEADY, 0)), evidence(theirs, "candidate"), guard(THROUGHPUT, TTFT)
    )
    text = StringIO()
    print_comparison(Console(file=text, width=width), found)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_it_says_what_was_compared_what_changed_and_the_verdict_last() -> None:
    lines = shown(140)
    assert lines[0] == "baseline   baseline  vLLM 0.25.1 on 1x NVIDIA H200, 5 launches"
    assert lines[2] == "changed    engine.enforce_eager: default → true"
    assert lines[3] == "at         concurrency=8", "what all points share is told once"
    verdict = " ".join(lines[-2:])
    assert verdict.startswith("INCONCLUSIVE. 4 inconclusive of 4 (2 points × 2 metrics)")
    assert any(line.startswith("4 inconclusive: the interval holds") for line in lines)


def test_what_no_number_of_launches_settles_is_said_below_the_table() -> None:
    one = evidence([measured(1, 1000.0)])
    found = compare(one, evidence([measured(1, 900.0, begun_at_s=9e3)], "candidate"), guard())
    text = StringIO()
    print_comparison(Console(file=text, width=140), found)
    assert text.getvalue().count("1 inconclusive that 100 more launches would not settle") == 1


def test_a_wide_screen_shows_every_column() -> None:
    [head] = [line for line in shown(140) if line.startswith("max_num_seqs")]
    assert head.split() == [
        "max_num_seqs", "metric", "baseline", "candidate", "change", "interval", "matters",
        "launches", "verdict", "more",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [80, 100])
def test_a_narrow_screen_gives_up_columns_and_never_the_verdict(width: int) -> None:
    lines = shown(width)
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if line.lstrip().startswith(("16 ", "64 "))]
    assert len(rows) == 4, "no row is broken over two lines"
    assert all("inconclusive" in row and " to " in row for row in rows)


def test_axes_that_do_not_fit_stand_in_one_column_by_name() -> None:
    names = ("max_num_batched_tokens", "enable_chunked_prefill", "async_scheduling")

    def side(begun_at_s: float) -> list[Any]:
        settings: list[dict[str, Any]] = [{}, *({name: 512} for name in names)]
        return [
            measured(i, value, point=str(setting), begun_at_s=begun_at_s + i,
                     engine=dict.fromkeys(names) | setting)
            for i, value in enumerate(STEADY, 1)
            for setting in settings
        ]  # fmt: skip

    text = StringIO()
    found = compare(evidence(side(0)), evidence(side(9e3), "candidate"), guard(THROUGHPUT))
    print_comparison(Console(file=text, width=80), found)
    lines = text.getvalue().splitlines()
    [head] = [line for line in lines if line.startswith("at  ") and "metric" in line]
    rows = lines[lines.index(head) + 1 :][:4]
    assert [row.split()[0] for row in rows] == ["default", *(f"{name}=512" for name in names)]
    assert all(row.split()[-1] in ("unchanged", "inconclusive") for row in rows), (
        "no word is broken"
    )


def test_one_launch_is_not_told_as_several() -> None:
    one = [
        evidence([measured(1, 1000.0, begun_at_s=at)], name) for name, at in (("a", 0), ("b", 9))
    ]
    text = StringIO()
    found = compare(*one, guard())
    print_comparison(Console(file=text, width=140), found)
    assert "1 launches" not in text.getvalue()
    assert text.getvalue().count(", 1 launch\n") == 2
