"""A capture of a real vLLM server by PyTorch's profiler. Needs HARNESS_VLLM_PYTHON."""

import json
import os

import pytest

from tests.harness.whole_tool import Tool

PYTHON = os.environ.get("HARNESS_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not PYTHON, reason="HARNESS_VLLM_PYTHON names no interpreter with vLLM"),
]


def test_a_torch_profile_ends_in_findings_and_leaves_the_measured_run_alone(tmp_path):
    tool = Tool(tmp_path, limit_s=2200)
    words = [
        "sweep=single", "engine=vllm", f"engine.python={PYTHON}", "model=tiny",
        "engine.enforce_eager=true", "engine.max_model_len=2048", "load.concurrency=4",
        "load.input_tokens=32", "load.output_tokens=32", "load.warmup_s=1", "load.duration_s=3",
        "client.calibrate=false",
    ]  # fmt: skip
    first = tool(*words)
    assert first.returncode == 0, first.stdout + first.stderr
    [run] = tool.study("single").glob("runs/*")
    measured = (run / "run.json").stat().st_mtime_ns

    done = tool(*words, "profile=torch", "profile.points=best", "profile.seconds=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (run / "run.json").stat().st_mtime_ns == measured, "it was not measured again"
    told = json.loads((run / "profile/torch/profile.json").read_text())
    assert told["status"] == "ok", told
    assert told["output_tok_per_s"] > 0
    page = (run / "profile/torch/findings.md").read_text()
    assert "no GPU in this trace" in page
    assert "A decode step on CPU of rank 0 takes" in page
    assert not tool.wait_until_gone()

    again = tool(*words, "profile=torch", "profile.points=best", "profile.seconds=1")
    assert again.returncode == 0
    assert "findings.md" in done.stdout
    assert "findings.md" not in again.stdout, "it is there already"
