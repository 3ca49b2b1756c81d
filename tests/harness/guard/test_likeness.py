from typing import Any

import pytest

from harness.guard.evidence import Evidence
from harness.guard.likeness import ALLOWABLE, NEVER, changes, refusals, refusals_of_one
from harness.guard.outcome import Refusal
from harness.guard.pairing import match, points
from tests.harness.guard.studies import ENVIRONMENT, LOAD, STEADY, baseline, candidate


def refused(mine: Evidence, theirs: Evidence, *allow: str) -> list[Refusal]:
    return list(refusals(mine, theirs, match(mine, theirs), allow))


def environment(**changes: Any) -> dict[str, Any]:
    return {"environment": ENVIRONMENT | changes}


GPU = ENVIRONMENT["gpus"][0]  # type: ignore[index]
UNLIKE = {
    "driver_version": (environment(driver_version="590.1"), "580.159.04", "590.1"),
    "gpus": (environment(gpus=[GPU | {"name": "NVIDIA H100"}]), "H200", "H100"),
    "gpu_cards": (environment(gpus=[GPU | {"uuid": "GPU-2"}]), "GPU-1", "GPU-2"),
    "host": (environment(host={"num_cpus_usable": 8}), "32", "8"),
    "environment": ({"environment": None}, "recorded", "not recorded"),
    "model": ({"model": {"name": "large", "path": None}}, "tiny", "large"),
    "measurement_version": ({"measurement_version": 1}, "2", "1"),
    "seed": ({"options": {"seed": 1, "client": {"workers": None}}}, "0", "1"),
    "client": ({"options": {"seed": 0, "client": {"workers": 4}}}, "default", "4"),
}


def test_studies_alike_are_not_refused() -> None:
    assert refused(baseline(), candidate()) == []


@pytest.mark.parametrize("what", UNLIKE)
def test_a_difference_is_refused_by_its_name_and_allowed_by_it(what: str) -> None:
    changed, mine, theirs = UNLIKE[what]
    [refusal] = refused(baseline(), candidate(**changed))
    assert refusal.what == what
    assert mine in refusal.baseline
    assert theirs in refusal.candidate
    assert not refusal.allowed
    [allowed] = refused(baseline(), candidate(**changed), what)
    assert allowed.allowed
    assert what in ALLOWABLE


def test_models_with_other_names_are_told_by_these_and_with_the_same_by_what_differs() -> None:
    def told(name: str, **shape: int) -> tuple[str, str]:
        other = {"name": name, "path": None, "shape": {"num_hidden_layers": 2} | shape}
        mine = {"name": "tiny", "path": None, "shape": {"num_hidden_layers": 2}}
        [refusal] = refused(baseline(model=mine), candidate(model=other))
        return refusal.baseline, refusal.candidate

    assert told("large", num_hidden_layers=80) == ("tiny", "large")
    assert "num_hidden_layers 3" in told("tiny", num_hidden_layers=3)[1]


def test_other_gpus_are_refused_once() -> None:
    other = candidate(**environment(gpus=[GPU | {"name": "NVIDIA H100", "uuid": "GPU-2"}]))
    assert [refusal.what for refusal in refused(baseline(), other)] == ["gpus"]


def test_simulated_against_measured_is_refused_whatever_is_allowed() -> None:
    [refusal] = refused(baseline(), candidate(simulated=True), "simulated")
    assert (refusal.what, refusal.baseline, refusal.candidate) == (
        "simulated",
        "measured",
        "simulated",
    )
    assert not refusal.allowed
    assert "simulated" in NEVER


def test_two_simulated_studies_are_compared_on_one_imitated_gpu_alone() -> None:
    mine = candidate(run={"engine": {"gpu": "h200"}}, simulated=True)
    theirs = candidate(run={"engine": {"gpu": "l4"}}, simulated=True)
    assert refused(mine, mine) == []
    assert [refusal.what for refusal in refused(mine, theirs)] == ["imitated_gpu"]


def test_an_aggregate_without_samples_is_refused() -> None:
    [refusal] = refused(baseline(), candidate(run={"has_samples": False}), *ALLOWABLE)
    assert (refusal.what, refusal.allowed) == ("raw_samples", False)
    [empty] = refused(baseline(), candidate([]))
    assert empty.what == "raw_samples"


def test_all_that_refuses_is_named_also_without_samples() -> None:
    other = environment(gpus=[GPU | {"name": "NVIDIA H100"}])
    found = {r.what: (r.baseline, r.candidate) for r in refused(candidate([], **other), baseline())}
    assert found["raw_samples"] == ("none: an aggregate cannot be judged", "there")
    assert "H100" in found["gpus"][0]
    both = refused(candidate([], simulated=True), candidate([]))
    assert [refusal.what for refusal in both] == ["raw_samples", "simulated"]
    assert both[0].baseline == "none"


def test_what_is_absent_is_none_and_of_a_study_without_runs_no_setting_is_told() -> None:
    mine, theirs = candidate([], **environment(packages={"vllm": "0.25.1"})), baseline()
    [change] = changes(mine, theirs, match(mine, theirs))
    assert (change.what, change.baseline, change.candidate) == ("torch", "none", "2.11.0")


def test_fatal_codes_are_refused_with_their_runs() -> None:
    [refusal] = refused(baseline(), candidate(run={"validity": ("throttled", "failures")}))
    assert refusal.what == "failures"
    assert refusal.baseline == "no run"
    assert refusal.candidate == "5 of 5 runs: p-1-1, p-2-1, p-3-1 and 2 more"


def test_a_failed_launch_is_refused_and_not_left_out_in_silence() -> None:
    died = candidate([None], run={"row": {"status": "failed"}, "validity": ("died",)})
    assert [refusal.what for refusal in refused(baseline(), died)] == ["died"]


def test_prompts_that_differ_under_one_seed_are_refused() -> None:
    [refusal] = refused(baseline(), candidate(run={"prompts": {0: (65, 16), 7: (1, 1)}}))
    assert refusal.what == "prompts"
    assert refusal.baseline == "request 0 has 64 tokens and asks for 16"


def test_nothing_in_common_is_refused_with_what_is_apart() -> None:
    other = candidate(run={"load": LOAD | {"concurrency": 9}})
    [refusal] = refused(baseline(), other, *ALLOWABLE)
    assert (refusal.what, refusal.allowed) == ("points", False)
    assert refusal.baseline == "load.concurrency=8"
    assert refusal.candidate == "load.concurrency=9"


def test_engine_settings_and_versions_are_changes_and_no_refusals() -> None:
    monitor = {"monitor": {"gpu_interval_s": 0.2}}
    newer = {"packages": {"torch": "2.12.0", "vllm": "0.26.0"}, "variables": {"VLLM_X": "1"}}
    run = {"engine": {"enforce_eager": True}, "row": {"vllm_version": "0.26.0"}}
    mine, theirs = baseline(), candidate(run=run, **environment(**newer), **monitor)
    assert refused(mine, theirs) == []
    found = {c.what: (c.baseline, c.candidate) for c in changes(mine, theirs, match(mine, theirs))}
    assert found == {
        "monitor": ("default", "gpu_interval_s 0.2"),
        "engine.enforce_eager": ("default", "true"),
        "vllm_version": ("0.25.1", "0.26.0"),
        "torch": ("2.11.0", "2.12.0"),
        "VLLM_X": ("none", "1"),
    }


def test_one_study_needs_samples_and_good_runs() -> None:
    good, void = candidate(), candidate(run={"validity": ("client_late",)})
    bare = candidate(STEADY, run={"has_samples": False})
    assert refusals_of_one(good, points(good), ()) == ()
    [refusal] = refusals_of_one(void, points(void), ())
    assert refusal.what == "client_late"
    [refusal] = refusals_of_one(bare, points(bare), ())
    assert refusal.what == "raw_samples"
