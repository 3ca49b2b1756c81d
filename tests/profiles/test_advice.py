from dataclasses import replace

import pytest

from profiles.advice import (
    communication_exposed,
    gpu_bound,
    graphs_off,
    mixed_outside_graphs,
    prefill_stalls_decode,
    ranks_apart,
    scheduling_in_series,
    small_steps,
    stalls,
)
from profiles.devices import Communication


@pytest.fixture
def device(nsys_findings):
    """GPU 0 of the fixture, with fields replaced; `decode` and `mixed` are those of its steps."""

    def build(decode=None, mixed=None, **fields):
        base = nsys_findings.devices[0]
        changes = {"decode": decode or {}, "mixed": mixed or {}}
        kinds = tuple(replace(g, **changes.get(g.kind, {})) for g in base.step_kinds)
        return replace(base, step_kinds=kinds, **fields)

    return build


def communicating(waiting_s):
    return Communication(
        time_s=1.0, frac=0.3, exposed_s=0.9, exposed_frac=0.27, waiting_s=waiting_s
    )


def test_a_stall_between_steps_points_at_what_feeds_the_workers(device):
    told = stalls(device())
    assert "1 gap of 10.0 ms or more between engine steps, 43.3 ms or 13.1 %" in told.evidence
    assert stalls(device(longest_gaps=device().longest_gaps[1:])) is None


def test_waits_for_the_cpu_ask_for_graphs_where_there_are_none(device):
    single = device().launches[:1]
    assert "CUDA graphs" in graphs_off(device(launches=single)).try_
    assert graphs_off(device()) is None
    assert graphs_off(device(launches=single, decode={"cpu_wait_total_s": 0.001})) is None


def test_steps_with_prompts_that_wait_for_their_launches_ask_for_larger_graphs(device):
    steps = device().launches[0].activities / 200
    mixed = {"cpu_wait_total_s": 0.2, "cpu_wait_mean_s": 0.006, "time_total_s": 0.3}
    mixed |= {"num_steps": max(3, int(steps))}
    assert "max_cudagraph_capture_size" in mixed_outside_graphs(device(mixed=mixed)).try_
    assert mixed_outside_graphs(device(mixed=mixed | {"cpu_wait_total_s": 0.001})) is None
    assert mixed_outside_graphs(device(mixed=mixed | {"num_steps": 10**6})) is None
    assert mixed_outside_graphs(device(mixed=mixed, launches=device().launches[:1])) is None


def test_steps_that_take_little_of_the_time_are_no_reason_for_advice(device):
    rare = {"time_total_s": 0.01, "cpu_wait_total_s": 0.009, "overlapped_frac": 0.0}
    assert scheduling_in_series(device(decode=rare)) is None


def test_steps_begun_one_after_the_other_ask_for_asynchronous_scheduling(device):
    assert "async" in scheduling_in_series(device(decode={"overlapped_frac": 0.0})).try_
    assert scheduling_in_series(device()) is None
    eager = device(decode={"overlapped_frac": 0.0}, launches=device().launches[:1])
    assert scheduling_in_series(eager) is None, "launching kernel by kernel, it cannot run ahead"


def test_larger_steps_are_asked_for_only_where_nothing_else_is_left(device):
    assert small_steps(device()) is not None
    assert small_steps(device(launches=device().launches[:1])) is None
    assert small_steps(device(decode={"overlapped_frac": 0.0})) is None
    assert small_steps(device(decode={"cpu_wait_total_s": None})) is None


def test_communication_is_either_waiting_or_transfer(device):
    skewed, slow = (
        device(communication=communicating(0.8)),
        device(communication=communicating(0.1)),
    )
    assert ranks_apart(skewed) is not None
    assert communication_exposed(skewed) is None
    assert ranks_apart(slow) is None
    assert communication_exposed(slow) is not None
    assert communication_exposed(device(communication=None)) is None


def test_prefill_that_stalls_decoding_needs_steps_enough_to_say_so(device):
    assert prefill_stalls_decode(device()) is not None
    assert prefill_stalls_decode(device(mixed={"num_steps": 2})) is None
    assert prefill_stalls_decode(device(mixed={"busy_p50_s": 0.003})) is None


def test_a_busy_gpu_is_told_to_do_less(device):
    assert gpu_bound(device()) is None
    assert "fp8" in gpu_bound(device(busy_frac=0.97)).try_
