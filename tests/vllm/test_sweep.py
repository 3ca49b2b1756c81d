"""Sweeps against a real vLLM, as their users type them. Needs HARNESS_VLLM_PYTHON."""

import json
import os
import shlex
from pathlib import Path

import pandas as pd
import pytest

from tests.harness.whole_tool import Tool

PYTHON = os.environ.get("HARNESS_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not PYTHON, reason="HARNESS_VLLM_PYTHON names no interpreter with vLLM"),
]


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Tool:
    return Tool(tmp_path_factory.mktemp("sweep"), limit_s=2200)


@pytest.fixture(scope="module")
def study(tool: Tool) -> Path:
    """The sweep as the CPU scales it down, every second launch with a dtype that does not exist."""
    done = tool("sweep=batching", f"engine.python={PYTHON}", "engine.dtype=bfloat16,float7")
    print(done.stdout, done.stderr)
    assert done.returncode == 1, "runs failed"
    assert done.stdout.startswith("engine: vllm (vLLM ")
    assert "Traceback" not in done.stderr
    return tool.study("batching")


@pytest.fixture(scope="module")
def runs(study: Path) -> pd.DataFrame:
    return pd.read_parquet(study / "table.parquet")


def test_failed_launches_cost_their_own_runs_only(runs: pd.DataFrame) -> None:
    assert runs["max_num_seqs"].tolist() == [2, 2, 16, 16]
    assert runs["dtype"].tolist() == ["bfloat16", "float7"] * 2
    assert runs["status"].tolist() == ["ok", "failed"] * 2
    assert runs["failure"].tolist()[1::2] == ["bad_argument"] * 2


def test_good_runs_are_measured_whole(runs: pd.DataFrame) -> None:
    good = runs[runs["status"] == "ok"]
    assert (good["requests_failed"] == 0).all()
    assert (good["requests_ok"] > 0).all()
    assert (good["lengths_off_frac"] == 0).all()
    assert (good["output_tok_per_s"] > 0).all()
    assert (good["ttft_p50_s"] > 0).all()
    assert good["tpot_p99_s"].notna().all()
    assert not good["simulated"].any()


def test_the_server_was_sampled(runs: pd.DataFrame) -> None:
    good = runs[runs["status"] == "ok"]
    assert good["kv_cache_usage_peak_frac"].notna().all()
    assert (good["preemptions"].fillna(0) == 0).all()
    assert (good["prefix_cache_hit_frac"].fillna(0) == 0).all(), "every prompt is unique"
    assert (good["server_cpu_max_frac"] > 0).all()
    assert (good["max_num_batched_tokens"] > 0).all(), "left to vLLM, told by the server"


def test_the_server_was_started_with_the_swept_setting(runs: pd.DataFrame) -> None:
    good = runs[runs["status"] == "ok"]
    assert (good["requests_running_mean"] <= good["max_num_seqs"]).all()


def test_tables_and_plots_are_there(study: Path) -> None:
    assert "SIMULATED" not in (study / "table.md").read_text()
    assert (study / "plots" / "over_max_num_seqs.png").is_file()


def test_nothing_is_left_running(tool: Tool, study: Path) -> None:
    assert study.is_dir()
    assert not tool.wait_until_gone()


@pytest.fixture(scope="module")
def baseline(tool: Tool) -> Path:
    """One server: a closed loop, an open loop at half of its capacity, and two checks."""
    words = ["sweep=baseline", f"engine.python={PYTHON}", "load.concurrency=8"]
    words += ["load.rate_frac=0.5", "load.duration_s=4", "load.warmup_s=1"]
    words += ["checks.offline.prompts=64", "checks.longest_context={start_tokens: 1000}"]
    done = tool(*words)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    return tool.study("baseline")


def test_an_open_loop_gets_its_share_of_what_the_server_can_do(baseline: Path) -> None:
    closed, half = pd.read_parquet(baseline / "table.parquet").to_dict("records")
    assert half["rate_rps"] == pytest.approx(closed["requests_per_s"] / 2)
    assert half["requests_failed"] == 0
    assert len(list(baseline.glob("launches/*"))) == 1


def test_vllm_without_a_server_is_measured_with_the_same_lengths(baseline: Path) -> None:
    (path,) = baseline.glob("checks/*/offline.json")
    found = json.loads(path.read_text())
    assert found["status"] == "ok", found
    assert found["prompts"] == 64
    assert found["input_tokens"] == 64 * 64
    assert 64 * 16 <= found["output_tokens"] <= 64 * 48
    assert found["output_tok_per_s"] == pytest.approx(found["output_tokens"] / found["elapsed_s"])
    rows = pd.read_parquet(baseline / "table.parquet")
    assert (rows["offline_output_tok_per_s"] == found["output_tok_per_s"]).all()


def test_the_longest_context_is_what_vllm_was_started_with(baseline: Path) -> None:
    (path,) = baseline.glob("checks/*/longest_context.json")
    found = json.loads(path.read_text())
    assert (found["status"], found["tokens"]) == ("ok", 2048)
    assert found["refused_cleanly"], found["tries"][-1]


def test_a_finished_sweep_with_checks_starts_nothing(tool: Tool, baseline: Path) -> None:
    (command,) = {json.loads((baseline / "study.json").read_text())["command"]}
    done = tool(*shlex.split(command)[3:])
    assert "all runs are done; fresh=true measures again" in done.stdout
    assert len(list(baseline.glob("launches/*"))) == 1
    assert not tool.wait_until_gone()
