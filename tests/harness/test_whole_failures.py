"""What is cut off, dies or cannot be costs itself only: on the simulator, as typed."""

import json
import os
import signal

import pytest

from tests.harness.whole_tool import LIMIT_S, QUICK, Tool, run_times, table, wait_for_line


def test_a_killed_sweep_is_continued_where_it_was(tool: Tool) -> None:
    command = ["sweep=single", *QUICK, "engine.max_num_seqs=2,4", "load.concurrency=2,4"]
    process = tool.start(*command)
    wait_for_line(process, "run 2/4")
    process.kill()
    process.communicate(timeout=LIMIT_S)
    assert not tool.wait_until_gone(), "processes outlived the harness' SIGKILL"

    study = tool.study("single")
    before = run_times(study)
    assert 1 <= len(before) < 4
    done = tool(*command)
    assert done.returncode == 0, done.stderr
    after = run_times(study)
    assert len(after) == 4
    assert before.items() <= after.items(), "finished runs were run again"
    assert len(table(study)) == 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_sweep_keeps_and_tabulates_what_is_done(
    tool: Tool, number: signal.Signals, code: int
) -> None:
    process = tool.start("sweep=single", *QUICK, "load.concurrency=1,2,4", start_new_session=True)
    wait_for_line(process, "run 2/3")
    os.killpg(process.pid, number)  # as a terminal does: the whole foreground group
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "the same command continues" in out
    assert len(table(tool.study("single"))) >= 1
    assert not tool.wait_until_gone()


def test_a_launch_that_fails_costs_its_runs_only_and_requests_that_fail_void_their_row(
    tool: Tool,
) -> None:
    done = tool(
        "sweep=single",
        *QUICK,
        "engine.extra.fault=null,die_at_start,'error_chunk_every=3'",
        "load.concurrency=1,2",
    )
    assert done.returncode == 1, done.stderr
    assert "FAILED (missing_package)" in done.stdout
    runs = table(tool.study("single"))
    assert runs["status"].tolist() == ["ok"] * 2 + ["failed"] * 2 + ["ok"] * 2
    assert runs["failure"].tolist()[2:4] == ["missing_package"] * 2
    (failed,) = [
        launch
        for path in tool.study("single").glob("launches/*/launch.json")
        if (launch := json.loads(path.read_text())).get("failure")
    ]
    assert any("flashinfer" in line for line in failed["failure"]["evidence"])
    good, bad = runs.iloc[:2], runs.iloc[4:]
    assert (good["requests_failed"] == 0).all()
    assert not good["validity"].str.contains("failures").any()
    assert (bad["requests_failed"] > 0).all()
    assert bad["validity"].str.contains("failures").all()


def test_a_server_that_dies_in_a_run_costs_that_run_only(tool: Tool) -> None:
    # each server lives for 5,000 tokens: a run of one stream makes fewer, one of 64 makes more
    done = tool(
        "sweep=single",
        *QUICK,
        "load.output_tokens=100",
        "engine.gpu=l4",
        "engine.extra.fault='die_after_tokens=5000'",
        "load.concurrency=1,64,2",
    )
    assert done.returncode == 1
    runs = table(tool.study("single"))
    assert runs["status"].tolist() == ["ok", "failed", "ok"]
    assert runs["failure"].tolist()[1] == "died_under_load"
    assert len(list(tool.study("single").glob("launches/*/launch.json"))) == 2
    assert not tool.wait_until_gone()


def test_a_replica_that_dies_costs_its_run_only(tool: Tool) -> None:
    # long enough to be hit in the run
    words = [*QUICK, "engine.replicas=2", "load.concurrency=2,4", "load.duration_s=3"]
    process = tool.start("sweep=single", *words)
    wait_for_line(process, "run 1/2")
    servers = [p for p in tool.processes() if "harness.sim" in p.cmdline()]
    servers = [p for p in servers if "keeper.py" not in " ".join(p.cmdline())]
    assert len(servers) == 2
    servers[-1].kill()
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1, err
    assert "FAILED (died_under_load): replica " in out
    assert table(tool.study("single"))["status"].tolist() == ["failed", "ok"]
    assert len(list(tool.study("single").glob("launches/*/launch.json"))) == 2
    assert not tool.wait_until_gone()


def test_what_is_not_possible_here_is_told_and_costs_nothing_else(tool: Tool) -> None:
    command = ["sweep=single", *QUICK, "engine.tensor_parallel_size=1,3", "load.concurrency=1"]
    told = "not possible here: engine.tensor_parallel_size=3: the heads of tiny"
    assert told in tool(*command, "plan=true").stdout
    done = tool(*command)
    assert done.returncode == 1
    assert f"FAILED (not_possible): {told}" in done.stdout
    runs = table(tool.study("single"))
    assert runs["status"].tolist() == ["ok", "failed"]
    assert runs["validity"].tolist()[1] == "simulated not_possible"
    assert len(list(tool.study("single").glob("launches/*/launch.json"))) == 2
    assert len(list(tool.study("single").glob("launches/*/server.log"))) == 1


def test_a_sweep_of_which_nothing_is_possible_here_is_refused(tool: Tool) -> None:
    done = tool("sweep=single", *QUICK, "engine.tensor_parallel_size=3,5", "load.concurrency=1")
    assert done.returncode == 2
    assert done.stderr.count("harness: not possible here: engine.tensor_parallel_size") == 2
    assert list(tool.folder.iterdir()) == []
