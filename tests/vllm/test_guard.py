"""Verdicts on a real vLLM, and traces of what regressed: twelve starts of a tiny model.

Needs HARNESS_VLLM_PYTHON.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.harness.whole_tool import Tool

PYTHON = os.environ.get("HARNESS_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.long,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not PYTHON, reason="HARNESS_VLLM_PYTHON names no interpreter with vLLM"),
]
# What the server needs here is said by a sweep: the command line's engine settings are the change.
TINY = """\
# @package _global_
# A tiny model on a CPU.
engine: {dtype: float32, enforce_eager: true, max_model_len: 2048}
load: {concurrency: 32, input_tokens: 32, output_tokens: 64}
client: {calibrate: false}
"""
METRICS = ("output_tok_per_s", "ttft_p50_s")
BUSY = ("client_busy", "client_late")  # server and client share two cores here


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Tool:
    folder = tmp_path_factory.mktemp("guard")
    (folder / "conf/sweep").mkdir(parents=True)
    (folder / "conf/sweep/tiny.yaml").write_text(TINY)
    return Tool(folder, limit_s=2400)


def judged(tool: Tool, *words: str) -> tuple[int, str, Any]:
    """Exit code, output and JSON of a candidate against the defaults."""
    done = tool(
        "--config-dir=conf", "sweep=tiny", "engine=vllm", f"engine.python={PYTHON}", "model=tiny",
        "against=defaults", f"metrics={','.join(METRICS)}", f"allow={','.join(BUSY)}",
        "json=found.json",
        # longer than the seconds for which a server of two sequences stands still on two cores
        "load.warmup_s=1", "load.warmup_max_s=10", "load.duration_s=9", *words,
    )  # fmt: skip
    print(done.stdout, done.stderr)
    assert done.returncode in (0, 1, 2)
    return done.returncode, done.stdout, json.loads((tool.folder / "found.json").read_text())


def test_the_same_configuration_has_not_changed(tool: Tool) -> None:
    # at alpha=0.05 this test would be wrong once in twenty times, as any comparison of equals
    code, _, found = judged(tool, "guard.max_launches=2", "guard.alpha=0.002")
    assert code in (0, 2)
    assert {point["verdict"] for point in found["points"]} <= {"unchanged", "inconclusive"}
    assert [point["launches"] for point in found["points"]] == [[2, 2]] * len(METRICS)
    assert all(point["paired"] for point in found["points"])
    assert not found["candidate"]["simulated"]


@pytest.fixture(scope="module")
def slower(tool: Tool) -> tuple[int, str, Any]:
    return judged(tool, "engine.max_num_seqs=2", "guard.max_launches=3", "out=slower")


def test_a_batch_of_2_instead_of_the_default_has_regressed(slower: tuple[int, str, Any]) -> None:
    code, shown, found = slower
    assert code == 1
    assert found["verdict"] == "regressed"
    assert "changed    engine.max_num_seqs: default → 2" in shown
    assert "REGRESSED." in shown
    assert "SIMULATED" not in shown


def test_a_report_captures_both_sides_of_what_regressed_once(
    tool: Tool, slower: tuple[int, str, Any]
) -> None:
    baseline, candidate = (Path(slower[2][side]["study"]) for side in ("baseline", "candidate"))
    baseline, candidate = tool.folder / baseline, tool.folder / candidate
    words = [
        "report", str(candidate), f"against={baseline}", f"allow={','.join(BUSY)}",
        "profile=torch", "profile.seconds=1",
    ]  # fmt: skip
    done = tool(*words)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "2 traces to capture" in done.stdout
    for study in (baseline, candidate):
        (record,) = study.glob("runs/*/profile/torch/profile.json")
        told = json.loads(record.read_text())
        assert told["status"] == "ok", told
        assert told["output_tok_per_s"] > 0
    page = (candidate / "report.html").read_text()
    assert "From baseline to candidate" in page
    assert "A decode step takes" in page
    assert page.count("python -m profiles ") >= 2, "the traces are linked with what opens them"
    assert not tool.wait_until_gone()

    again = tool(*words)
    assert again.returncode == 0
    assert "all traces exist already" in again.stdout
