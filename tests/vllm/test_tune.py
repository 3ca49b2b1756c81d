"""A tuning of a real vLLM from end to end, killed on its way. Needs HARNESS_VLLM_PYTHON."""

import os
import time
from pathlib import Path

import pytest

from harness.tune.answer import Answer, Outcome, read
from harness.tune.screen import screen
from tests.harness.tune.small import conf
from tests.harness.whole_tool import Tool, wait_for_line

PYTHON = os.environ.get("HARNESS_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.long,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not PYTHON, reason="HARNESS_VLLM_PYTHON names no interpreter with vLLM"),
]
# How many tokens are in a chunk is known beforehand: at most 8 are better than 4 and than 1.
TUNE = """\
# @package _global_
# Three settings, the best of which is known.
load: {concurrency: 8, input_tokens: 32, output_tokens: {dist: uniform, min: 24, max: 40},
       warmup_s: 1, warmup_max_s: 5, ramp_s: 0.2, duration_s: 4}
engine: {max_model_len: 1024, enforce_eager: true}
client: {calibrate: false}
tune:
  maximise: tokens_per_chunk
  constraints: [requests_failed < 1]
  space:
    stream_interval: [4, 8]
  budget: {launches: 7, minutes: 60}
  proof: {launches: 2, ablation: false, allow: [client_busy, client_late]}
  screen: null
"""


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Tool:
    return Tool(tmp_path_factory.mktemp("tune"), limit_s=2400)


@pytest.fixture(scope="module")
def study(tool: Tool) -> Path:
    """Killed while its second server starts, and continued."""
    folder = str(conf(tool.folder, TUNE))
    words = ["--config-dir", folder, "tune=small", "model=tiny", f"engine.python={PYTHON}"]
    process = tool.start(*words)
    wait_for_line(process, "trial 0,")
    while len(list(tool.study("tune-small").glob("launches/*/server.log"))) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.communicate()
    assert tool.wait_until_gone(15.0) == []
    done = tool(*words)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, "proven"
    return tool.study("tune-small")


def answer_of(study: Path) -> Answer:
    found = read(study)
    assert found is not None
    return found


def test_the_best_is_found_and_proven(study: Path) -> None:
    found = answer_of(study)
    assert found.outcome is Outcome.PROVEN
    assert found.setting == {"stream_interval": 8}
    assert found.proof is not None
    (gain,) = found.proof.gains
    assert gain.low is not None
    assert gain.low > 1
    assert not found.simulated


def test_no_trial_is_lost_or_made_twice(study: Path) -> None:
    tried = answer_of(study).tried
    assert [one.state for one in tried] == ["ok"] * 3
    assert [one.setting.get("stream_interval") for one in tried].count(None) == 1
    lives = [path.name for path in (study / "launches").iterdir()]
    assert len(lives) == 4, "one of them was killed"


def test_the_answer_runs_vllm(tool: Tool, study: Path) -> None:
    command = screen(answer_of(study))
    assert "vllm serve /path/to/tiny" in command
    assert "--stream-interval 8" in command
    done = tool(
        *("--config-dir", str(study / "conf"), "sweep=single", "engine=tuned", "model=tiny"),
        *(f"engine.python={PYTHON}", "load.concurrency=4", "load.duration_s=2", "load.warmup_s=1"),
        *("load.input_tokens=32", "load.output_tokens=16", "client.calibrate=false"),
    )
    assert done.returncode == 0, done.stdout
    (launch,) = (tool.study("single") / "launches").glob("*/command.txt")
    assert "--stream-interval 8" in launch.read_text()
