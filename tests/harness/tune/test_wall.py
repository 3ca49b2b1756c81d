from typing import Any

from harness.tune.wall import sentences, wall_of


def row(
    api: float | None, core: float | None, worker: float | None, sm: float | None
) -> dict[str, Any]:
    return {
        "api_server_cpu_frac": api,
        "engine_core_cpu_frac": core,
        "worker_cpu_frac": worker,
        "sm_activity_frac": sm,
    }


def test_a_full_core_of_the_api_server_is_the_limit_while_gpus_wait() -> None:
    assert wall_of([row(1.0, 1.0, 1.0, 0.4)]) == "api_server"


def test_of_gpus_and_an_api_server_that_are_both_full_neither_is_named_alone() -> None:
    full = [row(0.98, 1.0, 1.0, 0.914)]
    assert wall_of(full) == "both"
    assert "the GPUs and the API server process are both near their limit" in sentences(full, [])[0]


def test_gpus_that_always_have_work_are_the_limit() -> None:
    assert wall_of([row(0.5, 1.0, 1.0, 0.9)]) == "gpu"


def test_a_worker_that_computes_on_the_cpu_does_not_spin() -> None:
    assert wall_of([row(0.2, 0.6, 1.5, None) | {"gpus": "CPU"}]) == "compute"
    assert wall_of([row(0.2, 0.6, 1.5, None) | {"gpus": "1x NVIDIA L4"}]) == "between"


def test_neither_leaves_what_lies_between() -> None:
    assert wall_of([row(0.8, 1.0, 1.0, 0.7)]) == "between"


def test_a_server_with_nothing_to_do_waits_for_the_load() -> None:
    assert wall_of([row(0.1, 0.2, 0.2, 0.1)]) == "load"


def test_what_was_not_measured_is_no_limit() -> None:
    assert wall_of([row(None, 1.0, 1.0, None)]) is None
    assert wall_of([]) is None
    assert sentences([], []) == ()


def test_the_median_of_the_launches_decides() -> None:
    assert wall_of([row(1.0, 1, 1, 0.5), row(0.5, 1, 1, 0.5), row(0.6, 1, 1, 0.5)]) == "between"


def test_the_sentences_hold_the_numbers() -> None:
    before, after = sentences([row(1.01, 1.0, 1.0, 0.504)], [row(0.83, 1.0, 1.0, 0.71)])
    assert before == (
        "With the defaults the API server process is the limit (API server 1.01 of a core, engine"
        " core 1.00 of a core, worker 1.00 of a core, SM activity 50.4 %)."
    )
    assert after.startswith("Tuned, neither API server nor GPUs are the limit")


def test_the_same_limit_is_still_the_limit() -> None:
    assert sentences([row(0.5, 1, 1, 0.9)], [row(0.5, 1, 1, 0.9)])[1].startswith("Tuned, still")
