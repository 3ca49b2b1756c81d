"""Verdicts on a real vLLM, and traces of what regressed: nine starts of a tiny model.

Needs HARNESS_VLLM_PYTHON.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.guard.comparison import compare
from harness.guard.config import read_guard
from harness.guard.evidence import Evidence, read_evidence
from harness.guard.outcome import Outcome, Verdict
from tests.harness.whole_tool import Tool

PYTHON = os.environ.get("HARNESS_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not PYTHON, reason="HARNESS_VLLM_PYTHON names no interpreter with vLLM"),
]
SWEEP = [
    "sweep=single", "engine=vllm", f"engine.python={PYTHON}", "model=tiny", "engine.dtype=float32",
    "engine.enforce_eager=true", "engine.max_model_len=2048", "load.concurrency=16",
    "load.input_tokens=32", "load.output_tokens=32", "load.warmup_s=1", "load.warmup_max_s=10",
    "load.duration_s=3", "client.calibrate=false",
]  # fmt: skip
METRICS = ("output_tok_per_s", "ttft_p50_s")
BUSY = ("client_busy", "client_late")  # server and client share two cores here


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Tool:
    return Tool(tmp_path_factory.mktemp("guard"), limit_s=1000)


@pytest.fixture(scope="module")
def wide(tool: Tool) -> Path:
    return measured(tool, "wide", "engine.max_num_seqs=16", "repeats.launches=4")


@pytest.fixture(scope="module")
def narrow(tool: Tool) -> Path:
    return measured(tool, "narrow", "engine.max_num_seqs=2", "repeats.launches=3")


def measured(tool: Tool, name: str, *words: str) -> Path:
    done = tool(*SWEEP, *words, f"out={name}")
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    [study] = (tool.folder / name / "single").glob("*-*")
    return study


def launches(study: Path, repeats: set[int]) -> Evidence:
    """Part of a study, as if it had been one of its own."""
    whole = read_evidence(study)
    runs = tuple(run for run in whole.runs if run.launch_repeat in repeats)
    return replace(whole, folder=study / "-".join(map(str, repeats)), runs=runs)


def test_the_same_configuration_has_not_changed(wide: Path) -> None:
    guard = read_guard("default")
    guard.metrics = list(METRICS)
    found = compare(launches(wide, {1, 4}), launches(wide, {2, 3}), guard, allow=BUSY)
    print(found.to_json())
    assert {judgement.verdict for judgement in found.points} <= {
        Verdict.UNCHANGED,
        Verdict.INCONCLUSIVE,
    }
    assert found.verdict in (Outcome.PASS, Outcome.INCONCLUSIVE)
    assert not found.simulated


def test_a_batch_of_2_instead_of_16_has_regressed(tool: Tool, wide: Path, narrow: Path) -> None:
    done = tool(
        "compare", str(wide), str(narrow), f"metrics={','.join(METRICS)}", f"allow={','.join(BUSY)}"
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 1
    assert "changed    engine.max_num_seqs: 16 → 2" in done.stdout
    assert "REGRESSED." in done.stdout
    assert "SIMULATED" not in done.stdout


def test_a_report_captures_both_sides_of_what_regressed_once(
    tool: Tool, wide: Path, narrow: Path
) -> None:
    words = [
        "report", str(narrow), f"against={wide}", f"allow={','.join(BUSY)}", "profile=torch",
        "profile.seconds=1",
    ]  # fmt: skip
    done = tool(*words)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "2 traces to capture" in done.stdout
    for study in (wide, narrow):
        (record,) = study.glob("runs/*/profile/torch/profile.json")
        told = json.loads(record.read_text())
        assert told["status"] == "ok", told
        assert told["output_tok_per_s"] > 0
    page = (narrow / "report.html").read_text()
    assert "From baseline to candidate" in page
    assert "A decode step takes" in page
    assert page.count("python -m profiles ") >= 2, "the traces are linked with what opens them"
    assert not tool.wait_until_gone()

    again = tool(*words)
    assert again.returncode == 0
    assert "all traces are there" in again.stdout
