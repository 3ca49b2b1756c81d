"""The GPUs' probes, rehearsed on the CPU: PyTorch, gloo, Triton's interpreter. No numbers.

Needs HARNESS_VLLM_PYTHON, for any vLLM brings PyTorch.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from harness.hardware.saved import Validation
from tests.harness.whole_tool import Tool

PYTHON = os.environ.get("HARNESS_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not PYTHON, reason="HARNESS_VLLM_PYTHON names no interpreter with PyTorch"),
]


def has_triton() -> bool:
    command = [PYTHON, "-c", "import triton"]
    return bool(PYTHON) and subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Validation:
    tool = Tool(tmp_path_factory.mktemp("validate"), limit_s=2200)
    families = "gemm,memory,kernels,p2p,nccl,scaling,steady"
    done = tool(
        "validate", "rehearsal=true", f"python={PYTHON}", "seconds=1", "model=tiny",
        f"probes={families}",
    )  # fmt: skip
    print(done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert "REHEARSAL" in done.stdout
    assert not tool.wait_until_gone()
    (folder,) = (tool.folder / "results/validation").iterdir()
    return Validation.read(folder)


def test_every_probe_comes_to_its_end(rehearsed: Validation) -> None:
    failed = [told for told in rehearsed.document["probes"] if told["failure"]]
    assert not failed, json.dumps(failed, indent=1)


def test_every_result_is_right_by_its_reference(rehearsed: Validation) -> None:
    told = [m for m in rehearsed.measurements if m.value is not None]
    assert not [m.name for m in told if m.is_wrong]
    checked = {m.name.rpartition(".")[0] for m in told if m.error is not None}
    assert {"gemm.bf16", "gemm.fp16", "memory", "p2p", "nccl.all_reduce"} <= checked


@pytest.mark.skipif(not has_triton(), reason="that interpreter has no Triton")
def test_the_triton_kernels_compute_what_the_plain_forms_do(rehearsed: Validation) -> None:
    kernels = {m.name: m for m in rehearsed.measurements if m.how and "Triton" in m.how}
    wanted = {"rms_norm", "paged_decode", "resize_normalise", "resample", "all_reduce_rms_norm.4"}
    assert {f"kernels.{name}" for name in wanted} | {"memory.read"} <= kernels.keys()
    for kernel in kernels.values():
        assert kernel.error is not None
        assert kernel.error_limit is not None
        assert kernel.error <= kernel.error_limit, kernel.name


def test_collectives_have_the_bandwidths_of_nccl_tests(rehearsed: Validation) -> None:
    for told in rehearsed.measurements:
        if told.name.startswith("nccl.") and told.time_s:
            algbw = told.detail["bytes"] / told.time_s
            factor = {"all_reduce": 1.0, "broadcast": 1.0}.get(told.name.split(".")[1], 0.5)
            assert told.value == pytest.approx(algbw * factor), "two ranks"


def test_a_rehearsal_gives_no_verdict_and_plots_that_say_so(rehearsed: Validation) -> None:
    assert rehearsed.is_rehearsal
    assert rehearsed.card.verdict in ("NO VERDICT", "FAIL")
    assert "REHEARSAL" in (rehearsed.folder / "card.md").read_text()
    assert {path.name for path in Path(rehearsed.folder / "plots").iterdir()} == {
        "roofline.png",
        "steady_state.png",
    }
