import io
from pathlib import Path

import pytest
from rich.console import Console

from harness.plan import Plan
from harness.screen import print_table
from harness.study import Study
from harness.tables import points_table, runs_table
from tests.harness.builders import fill, plan, study


def printed(kept: Study, made: Plan, width: int) -> list[str]:
    """The table's lines, all of which fit."""
    out = io.StringIO()
    points = points_table(runs_table(kept), made.axes)
    print_table(Console(file=out, width=width), points, kept.about)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return lines


def head_of(lines: list[str]) -> set[str]:
    """The words of the table's head, over however many lines."""
    first = next(
        number for number, line in enumerate(lines) if line.split()[:1] in (["4"], ["512"])
    )
    return {word for line in lines[:first] for word in line.split()}


@pytest.mark.parametrize("width", [60, 80, 140, 240])
def test_the_table_fits_on_the_screen_and_keeps_what_matters(tmp_path: Path, width: int) -> None:
    made = plan("engine.max_num_seqs=4,8", "load.concurrency=2")
    kept = study(tmp_path, made, simulated=True)
    fill(kept, made)
    lines = printed(kept, made, width)
    assert any("SIMULATED" in line for line in lines)
    head = head_of(lines)
    assert {"output", "tok/s", "validity"} <= head
    assert any(line.split()[:2] == ["8", "560"] for line in lines)
    assert ("gain" in head) == (width >= 140)
    assert "power" not in head, "no GPU was sampled"


@pytest.mark.parametrize("width", [60, 100, 240])
def test_a_sweeps_own_columns_are_given_up_from_the_last(tmp_path: Path, width: int) -> None:
    made = plan("engine.max_num_seqs=4,8", "load.concurrency=2")
    kept = study(tmp_path, made)
    fill(kept, made)
    asked = ["output_tok_per_s", "speedup", "ttft_p50_s", "tpot_p50_s", "requests_per_s"]
    kept.add(options={"columns": asked})
    lines = printed(kept, made, width)
    head = head_of(lines)
    assert {"output", "tok/s", "validity"} <= head
    assert "gain" not in head, "it was not asked for"
    assert ("requests" in head) == (width >= 100), "the last is given up first"


@pytest.mark.parametrize("width", [60, 80])
def test_long_names_of_settings_leave_room_for_what_was_measured(
    tmp_path: Path, width: int
) -> None:
    made = plan("engine.max_num_batched_tokens=512,8192", "engine.max_num_seqs=4,8")
    kept = study(tmp_path, made)
    fill(kept, made)
    lines = printed(kept, made, width)
    assert {"batched_", "seqs", "output", "tok/s", "validity"} <= head_of(lines)


def test_however_narrow_the_first_measure_stays(tmp_path: Path) -> None:
    made = plan("engine.max_num_seqs=4,8", "load.concurrency=2")
    kept = study(tmp_path, made)
    fill(kept, made)
    kept.add(options={"columns": ["tpot_p50_s", "output_tok_per_s"]})
    *_, first, second, third, _, _ = printed(kept, made, 20)
    assert [line.split() for line in (first, second, third)] == [
        ["max_", "TPOT"],
        ["num_", "p50"],
        ["seqs", "ms"],
    ]
