"""The capacity of a real vLLM, found in one launch. Needs HARNESS_VLLM_PYTHON."""

import os

import pandas as pd
import pytest

from tests.harness.whole_tool import Tool

PYTHON = os.environ.get("HARNESS_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not PYTHON, reason="HARNESS_VLLM_PYTHON names no interpreter with vLLM"),
]


def test_one_launch_finds_its_capacity(tmp_path_factory: pytest.TempPathFactory) -> None:
    tool = Tool(tmp_path_factory.mktemp("capacity"), limit_s=2200)
    words = ["load.search.probes=6", "load.duration_s=5", "slo.share_frac=0.8"]
    done = tool("sweep=capacity", f"engine.python={PYTHON}", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    study = tool.study("capacity")
    assert len(list(study.glob("launches/*"))) == 1
    runs = pd.read_parquet(study / "table.parquet")
    probes = runs[runs["case"] == "rate"]
    assert (probes["capacity_probes"] == len(probes)).all()
    assert probes["capacity_rps"].notna().all()
    held = probes[probes["at_capacity"].astype(bool)].iloc[0]
    assert held["slo_met_frac"] >= 0.8
    assert not held["simulated"]
    assert "kept at" in (study / "capacity.md").read_text()
