"""Two sweeps and what `compare` says of them: on the simulator, as people type it.

That the same again has not changed is said by tests/harness/duel, which measures it in turns.
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.harness.whole_tool import Tool

# An imitated L4 is so slow that its steps are waited for, however busy this machine is.
SWEEP = [
    "sweep=single", "engine=sim", "engine.tensor_parallel_size=1", "model=qwen2.5-1.5b",
    "load.concurrency=2", "load.input_tokens=32", "load.output_tokens=16", "load.warmup_s=0.2",
    "load.warmup_max_s=3", "load.ramp_s=0.1", "load.duration_s=1", "client.calibrate=false",
    "repeats.launches=2",
]  # fmt: skip
COMPARE = ["metrics=tpot_p50_s", "allow=imitated_gpu,sim_late,client_busy,client_late"]


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Tool:
    return Tool(tmp_path_factory.mktemp("compare"))


def measured(tool: Tool, name: str, *words: str) -> str:
    done = tool(*SWEEP, *words, f"out={name}")
    assert done.returncode == 0, done.stdout + done.stderr
    [study] = (tool.folder / name / "single").glob("*-*")
    return str(study)


@pytest.fixture(scope="module")
def slow(tool: Tool) -> str:
    return measured(tool, "slow", "engine.gpu=l4")


def test_a_slower_gpu_has_regressed(tool: Tool, slow: str) -> None:
    fast = measured(tool, "fast", "engine.gpu=h200")
    assert tool("compare", fast, slow, "metrics=tpot_p50_s").returncode == 2, "another GPU"
    files = ("found.json", "found.xml", "found.md")
    words = [
        f"{name}={file}" for name, file in zip(("json", "junit", "markdown"), files, strict=True)
    ]
    done = tool("compare", fast, slow, *COMPARE, *words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "REGRESSED." in done.stdout
    for file in files:
        assert "SIMULATED" in (tool.folder / file).read_text()
    told = json.loads((tool.folder / "found.json").read_text())
    assert told["baseline"]["simulated"] is told["candidate"]["simulated"] is True
    [refusal] = [one for one in told["refusals"] if one["what"] == "imitated_gpu"]
    assert refusal["allowed"] is True


def test_a_simulated_study_is_not_compared_with_a_measured_one(tool: Tool, slow: str) -> None:
    pretended = Path(shutil.copytree(slow, tool.folder / "pretended"))
    for path in (pretended / "study.json", *pretended.glob("launches/*/launch.json")):
        text = path.read_text().replace('"simulated": true', '"simulated": false')
        path.write_text(text.replace('"vllm_version": "simulator', '"vllm_version": "0.25.1 '))
    for path in pretended.glob("runs/*/run.json"):  # not the same moment, or it were a copy
        path.write_text(path.read_text().replace('"clock_utc_ns": 1', '"clock_utc_ns": 2'))
    done = tool("compare", str(pretended), slow)
    assert done.returncode == 2
    assert "refused    simulated: measured / simulated" in done.stdout
