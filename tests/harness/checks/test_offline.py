"""A script that says what it is told to takes the place of vLLM."""

import sys
from pathlib import Path

import pytest

from harness.checks import offline
from harness.engines.failure import EngineFailed, FailureKind
from loadgen.config import Load

GOOD = """
import json, sys
task = json.load(open(sys.argv[1]))
output = sum(reply for _, reply in task["lengths"])
told = {"prompts": len(task["lengths"]), "input_tokens": 1, "output_tokens": output}
told |= {"elapsed_s": 2.0, "output_tok_per_s": output / 2.0}
open(sys.argv[2], "w").write(json.dumps(told))
"""
HABITS = {
    "good": GOOD,
    "crashes at its end": GOOD + "raise SystemExit(134)",
    "lacks a package": "raise ModuleNotFoundError(\"No module named 'flashinfer'\")",
    "hangs": "import time; time.sleep(1000)",
}


@pytest.fixture
def measure(tmp_path, monkeypatch):
    def with_habit(habit, timeout_s=60.0):
        script = tmp_path / "script.py"
        script.write_text(HABITS[habit])
        monkeypatch.setattr(offline, "SCRIPT", script)
        monkeypatch.setattr(offline, "STOP_S", 0.5)
        work = [(3, 2), (5, 4)]
        return offline.measure(sys.executable, [], {}, work, 512, tmp_path / "o", timeout_s)

    return with_habit


@pytest.mark.parametrize("habit", ["good", "crashes at its end"])
def test_what_vllm_told_counts_however_it_ends(measure, habit):
    assert measure(habit).output_tok_per_s == 3.0


def test_vllm_that_does_not_end_is_ended(measure):
    with pytest.raises(EngineFailed, match=r"not done within 1 s: see checks.offline.timeout_s"):
        measure("hangs", timeout_s=1.0)


def test_why_it_failed_is_read_in_its_log_and_not_in_that_of_a_try_before(measure, tmp_path):
    with pytest.raises(EngineFailed) as caught:
        measure("lacks a package")
    assert caught.value.failure.kind is FailureKind.MISSING_PACKAGE
    measure("good")
    assert "flashinfer" not in (tmp_path / "o" / "offline.log").read_text()


def test_a_failed_try_does_not_find_what_an_earlier_one_told(measure):
    measure("good")
    with pytest.raises(EngineFailed):
        measure("lacks a package")


def closed(**changes):
    return Load(arrival="closed", concurrency=2, **changes)


def test_lengths_are_drawn_as_the_load_draws_them_and_the_same_each_time():
    load = closed(input_tokens={"dist": "uniform", "min": 5, "max": 9}, output_tokens=7)
    drawn = offline.lengths(load, 200, seed=3)
    assert drawn == offline.lengths(load, 200, seed=3) != offline.lengths(load, 200, seed=4)
    assert {prompt for prompt, _ in drawn} == {5, 6, 7, 8, 9}
    assert {reply for _, reply in drawn} == {7}


def test_only_prompts_that_share_nothing_can_be_given_to_vllm_at_once():
    assert offline.has_lengths(closed())
    for changes in (
        {"prompts": {"kind": "shared_prefix", "groups": 2, "hit_frac": 0.5}},
        {"endpoint": "chat", "conversation": {"turns": 2}},
        {"ignore_eos": False},
    ):
        assert not offline.has_lengths(closed(**changes))
    assert not offline.has_lengths(Load(arrival="trace", trace={"path": str(Path("x.jsonl"))}))
