from typing import Any

import pytest

from harness.validity import CODES, codes, instrument_codes, longer_window


def good(**changes: Any) -> dict[str, Any]:
    """A row that nothing is wrong with."""
    row = {
        "status": "ok",
        "simulated": False,
        "arrival": "closed",
        "requests_ok": 5000,
        "requests_failed": 0,
        "requests_cut": 64,
        "first_generation_done": True,
        "lengths_off_frac": 0.0,
        "tokens_per_chunk": 1.0,
        "prefix_cache_hit_frac": 0.0,
        "shares_prompts": False,
        "preemptions": 0.0,
        "throttled_frac": 0.0,
        "sm_clock_min_hz": 1.98e9,
        "sm_clock_mean_hz": 1.98e9,
        "foreign_processes": [],
        "monitor_gap_max_s": 0.2,
        "not_monitored": [],
        "send_lag_p99_s": 0.001,
        "client_cpu_frac": 0.3,
        "client_loop_lag_p99_s": 0.001,
        "client_clean_chunks_per_s": 60_000.0,
        "chunks_per_s": 20_000.0,
        "itl_p50_s": 0.01,
        "drift_frac": 0.01,
        "e2e_p50_s": 0.5,
        "window_s": 20.0,
        "sim_lag_frac": None,
    }
    return row | changes


def test_a_good_row_has_no_code() -> None:
    assert codes(good()) == []


def test_what_was_not_sampled_raises_no_code() -> None:
    names = ["prefix_cache_hit_frac", "preemptions", "throttled_frac", "sm_clock_min_hz"]
    names += [
        "drift_frac",
        "e2e_p50_s",
        "chunks_per_s",
        "monitor_gap_max_s",
        "tokens_per_chunk",
        "client_cpu_frac",
    ]
    assert codes(good(**dict.fromkeys(names))) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"simulated": True}, "simulated"),
        ({"requests_failed": 1}, "failures"),
        ({"requests_ok": 0}, "no_samples"),
        ({"requests_ok": 661}, "few_samples"),
        ({"first_generation_done": False}, "not_steady"),
        ({"arrival": "poisson"}, "cut"),
        ({"lengths_off_frac": 0.02}, "lengths_off"),
        ({"tokens_per_chunk": 1.06}, "token_bundles"),
        ({"itl_p50_s": 0.0}, "token_bundles"),
        ({"prefix_cache_hit_frac": 0.02}, "prefix_hits"),
        ({"preemptions": 1.0}, "preempted"),
        ({"throttled_frac": 0.02}, "throttled"),
        ({"sm_clock_min_hz": 1.8e9}, "clock_moved"),
        ({"foreign_processes": [4711]}, "foreign_gpu_process"),
        ({"monitor_gap_max_s": 2.5}, "monitor_gap"),
        ({"not_monitored": ["server"]}, "not_monitored"),
        ({"send_lag_p99_s": 0.02}, "client_late"),
        ({"client_cpu_frac": 0.9}, "client_busy"),
        ({"client_loop_lag_p99_s": 0.03}, "client_busy"),
        ({"drift_frac": -0.12}, "not_steady"),
        ({"e2e_p50_s": 20.1}, "short_window"),
        ({"chunks_per_s": 60_001.0}, "client_limit"),
        ({"client_clean_chunks_per_s": None}, "not_calibrated"),
        ({"sim_lag_frac": 0.03}, "sim_late"),
        ({"at_capacity": True, "capacity_doubts": "client_busy"}, "instrument_bound"),
        ({"stopped": "over-saturated", "requests_ok": None}, "stopped"),
        ({"status": "failed", "failure": "hangs"}, "died"),
        ({"status": "failed", "failure": "not_possible"}, "not_possible"),
        ({"status": "failed", "failure": "harness"}, "harness_fault"),
    ],
)
def test_each_flaw_raises_its_code_alone(changes: dict[str, Any], code: str) -> None:
    assert codes(good(**changes)) == [code]


def test_a_stopped_run_tells_whether_our_own_side_was_too_slow() -> None:
    slow = good(stopped="missed", requests_ok=None, send_lag_p99_s=0.02, sim_lag_frac=0.03)
    assert codes(slow) == ["client_late", "sim_late", "stopped"]
    assert instrument_codes(slow) == ("client_late", "sim_late")


def test_a_search_is_in_doubt_only_where_its_result_stands() -> None:
    assert codes(good(at_capacity=False, capacity_doubts="client_busy")) == []
    assert codes(good(at_capacity=True, capacity_doubts=None)) == []


def test_every_code_has_a_meaning_and_a_test() -> None:
    parameters = test_each_flaw_raises_its_code_alone.pytestmark[0].args[1]
    assert {code for _, code in parameters} == set(CODES)


def test_hits_that_the_load_asks_for_are_no_flaw() -> None:
    assert codes(good(prefix_cache_hit_frac=0.5, shares_prompts=True)) == []


def test_waves_of_long_replies_are_no_drift() -> None:
    assert codes(good(drift_frac=0.3, e2e_p50_s=4.0)) == []
    assert codes(good(drift_frac=0.5, e2e_p50_s=4.0)) == ["not_steady"]


def test_a_window_that_holds_a_part_of_a_wave_is_not_excused_by_it() -> None:
    assert codes(good(drift_frac=0.3, e2e_p50_s=18.0)) == ["not_steady"]
    assert codes(good(drift_frac=0.05, e2e_p50_s=18.0)) == [], "requests may wait in a steady queue"


def test_an_open_loop_may_drift() -> None:
    assert codes(good(arrival="poisson", requests_cut=0, drift_frac=0.5)) == []


def test_requests_of_an_open_loop_may_be_longer_than_its_window() -> None:
    assert codes(good(arrival="poisson", requests_cut=0, e2e_p50_s=21.0)) == []


@pytest.mark.parametrize(
    ("changes", "reply_s", "says"),
    [
        ({}, 0.5, None),
        ({}, 18.0, None),
        ({"drift_frac": 0.3}, 0.5, None),
        ({"drift_frac": 0.3}, 6.0, "replies took 6 s, the window 20 s: load.duration_s=24"),
        ({"window_s": 8.0, "e2e_p50_s": 18.2}, 18.04,
         "replies took 18 s, the window 8 s: load.duration_s=73"),
        ({"window_s": 8.0, "e2e_p50_s": None, "requests_ok": 0}, 18.0,
         "replies took 18 s, the window 8 s: load.duration_s=72"),
        ({"window_s": 8.0, "e2e_p50_s": 9.0, "first_generation_done": False, "warmup_s": 30.0},
         18.0, "replies took 18 s, the window 8 s: load.duration_s=72 load.warmup_max_s=36"),
        ({"first_generation_done": False}, 18.0,
         "replies took 18 s, the window 20 s: load.warmup_max_s=36"),
        ({"first_generation_done": False}, 2.0, None),
        ({"e2e_p50_s": None, "requests_ok": 0, "warmup_s": 30.0}, None,
         "no reply ended in 50 s: make load.warmup_max_s and load.duration_s longer"),
        ({"e2e_p50_s": None, "requests_ok": 0, "requests_failed": 9}, None, None),
        ({"arrival": "poisson", "requests_ok": 0}, 18.0, None),
        ({"status": "failed", "failure": "hangs"}, 18.0, None),
    ],
)  # fmt: skip
def test_a_window_that_is_too_short_for_its_replies_is_told_with_the_numbers(
    changes: dict[str, Any], reply_s: float | None, says: str | None
) -> None:
    assert longer_window(good(**{"warmup_s": 5.0, **changes}), reply_s) == says
