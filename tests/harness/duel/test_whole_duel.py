"""`against=BASELINE` on the simulator, as people type it."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import run
from tests.harness.whole_tool import LIMIT_S, Tool, run_times, wait_for_line

# An imitated L4 is so slow that its steps are waited for, however busy this machine is.
SWEEP = [
    "sweep=single", "engine=sim", "engine.gpu=l4", "model=qwen2.5-1.5b",
    "load.concurrency=16", "load.input_tokens=32", "load.output_tokens=8", "load.warmup_s=0.1",
    "load.warmup_max_s=3", "load.ramp_s=0.1", "load.duration_s=0.6", "client.calibrate=false",
]  # fmt: skip
GUARD = ["metrics=output_tok_per_s", "allow=sim_late,client_busy,client_late"]


def sides(tool: Tool) -> tuple[Path, Path]:
    [mine] = (tool.folder / "results/single").glob("*-baseline")
    [theirs] = (tool.folder / "results/single").glob("*-candidate")
    return mine, theirs


def judged(tool: Tool, name: str) -> Any:
    return json.loads((tool.folder / name).read_text())


def test_a_slower_candidate_has_regressed_after_the_first_look(tool: Tool) -> None:
    # one request at a time instead of 16: no neighbour of this process hides that
    command = [*SWEEP, "engine.max_num_seqs=1", "against=defaults", "guard.max_launches=5", *GUARD]
    done = tool(*command, "json=found.json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "changed: engine.max_num_seqs: default → 1" in done.stdout
    assert "look 1 of 2, after 3 launches of each side: regressed (1 regressed)\n" in done.stdout
    assert "look 2" not in done.stdout
    assert "REGRESSED." in done.stdout
    found = judged(tool, "found.json")
    assert found["looks"] == 2
    assert found["notes"] == []
    [point] = found["points"]
    assert (point["launches"], point["paired"]) == ([3, 3], True)

    mine, theirs = sides(tool)
    assert (mine / "table.md").is_file()
    assert (theirs / "table.md").is_file()
    again = tool("compare", str(mine), str(theirs), *GUARD, "json=again.json")
    assert again.returncode == 1
    told = judged(tool, "again.json")
    assert told["points"] == found["points"], "the same evidence at the same error rate"

    before = [run_times(side) for side in sides(tool)]
    assert tool(*command).returncode == 1
    assert [run_times(side) for side in sides(tool)] == before, "nothing was left to do"


def test_the_same_twice_is_paired_and_half_a_block_is_run_again(tool: Tool) -> None:
    command = [*SWEEP, "against=defaults", "guard.max_launches=2", *GUARD, "json=found.json"]
    process = tool.start(*command)
    wait_for_line(process, "run 4/4")
    process.kill()  # the second block has its first half
    process.communicate(timeout=LIMIT_S)
    assert not tool.wait_until_gone()
    mine, theirs = sides(tool)
    before = run_times(mine) | {f"theirs {run}": at for run, at in run_times(theirs).items()}
    assert len(run_times(mine)) == 1
    assert len(run_times(theirs)) == 2

    done = tool(*command)
    assert done.returncode in (0, 2), done.stdout + done.stderr
    assert "nothing differs: this is an A/A comparison" in done.stdout
    assert "run 3/4" in done.stdout
    after = run_times(mine) | {f"theirs {run}": at for run, at in run_times(theirs).items()}
    kept = {run for run, at in after.items() if before.get(run) == at}
    assert {run[-3:] for run in kept} == {"1-1"}
    assert len(kept) == 2, "the whole block is kept, of the other half was run again"
    [point] = judged(tool, "found.json")["points"]
    assert point["verdict"] in ("unchanged", "inconclusive")
    assert (point["launches"], point["paired"]) == ([2, 2], True)


def test_a_candidate_that_never_starts_does_not_use_up_the_budget(tool: Tool) -> None:
    command = [*SWEEP, "engine.extra.fault=die_at_start", "against=defaults", *GUARD]
    done = tool(*command)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "look 1 of 4: refused" in done.stdout
    assert "candidate: 1x missing_package" in done.stdout
    assert "refused    died: no run / 1 of 1 runs" in done.stdout

    again = tool(*command)
    assert again.returncode == 2
    assert "launch " not in again.stdout, "what is refused stays refused"


def test_a_plan_tells_both_sides_in_their_order_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["engine.max_num_seqs=2", "against=defaults", "plan=true", "guard.max_launches=5"]
    assert run([*SWEEP, f"out={tmp_path / 'out'}", *words]) == 0
    shown = capsys.readouterr().out
    launches = [line.split()[2] for line in shown.splitlines() if "  launch " in line]
    assert launches == ["baseline", "candidate", "candidate", "baseline"] * 2 + [
        "baseline",
        "candidate",
    ]
    assert "a verdict after 3 and 5" in shown
    assert not (tmp_path / "out").exists()
