import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.findings import from_json
from profiles.gaps import Doing, gaps_of
from profiles.intervals import Intervals, gaps
from profiles.steps import device_steps, ownership
from profiles.trace import NOWHERE, Activities, Calls
from tests.profiles.conftest import ALL_REDUCE, GEMM, NORM

US = 1e-6
NO_CALLS = Calls(
    start_s=np.empty(0),
    end_s=np.empty(0),
    name=np.empty(0, np.int64),
    process=np.empty(0, np.int64),
    thread=np.empty(0, np.int64),
)


def activities(pairs):
    pairs = sorted(pairs)
    start, end = (np.array([pair[i] for pair in pairs], np.float64) for i in (0, 1))
    zeros = np.zeros(len(pairs), np.int64)
    return Activities(
        start_s=start,
        end_s=end,
        self_s=end - start,
        name=zeros,
        stream=zeros,
        in_graph=zeros.astype(bool),
        call=zeros + NOWHERE,
    )


def us(seconds):
    return pytest.approx(seconds * US)


def test_the_fixtures_busy_shares_and_longest_gaps_are_those_found_independently(nsys_findings):
    zero, one = nsys_findings.devices
    assert zero.busy_frac == pytest.approx(0.735, abs=0.001)
    assert one.busy_frac == pytest.approx(0.753, abs=0.001)
    for device in (zero, one):
        assert device.busy_frac + device.idle_frac == pytest.approx(1)
        assert device.longest_gaps[0].length_s == pytest.approx(0.0433, abs=1e-4)
        assert len(device.longest_gaps) == 10


def test_the_longest_gap_of_the_fixture_opens_a_step_that_came_late(nsys_findings):
    longest = nsys_findings.devices[0].longest_gaps[0]
    assert (longest.before, longest.after) == ("memcpy Device-to-Host", "memcpy Host-to-Device")
    assert (longest.step_kind, longest.step_requests, longest.opens_step) == ("mixed", 48, True)
    assert longest.doing == Doing.BETWEEN
    assert longest.cpu_s == longest.length_s


def test_steps_make_the_devices_span_and_gaps_its_idle_time(nsys_trace, nsys_findings):
    for device, told in zip(nsys_trace.devices, nsys_findings.devices, strict=True):
        found = gaps_of(device.activities, nsys_trace.calls)
        steps = device_steps(device, ownership(device, nsys_trace), found)
        assert steps.time_s.sum() == pytest.approx(told.span_s)
        assert steps.idle_s.sum() == pytest.approx(told.idle_frac * told.span_s)
        assert steps.cpu_wait_s.sum() == pytest.approx(told.waits.cpu_s)
        assert sum(each.total_s for each in told.gap_bins) == pytest.approx(steps.idle_s.sum())
        assert sum(told.waits.by_doing_s.values()) == pytest.approx(told.waits.cpu_s)
        assert [g.num_steps for g in told.step_kinds] == [1, 4, 63]


def test_kernels_and_classes_hold_all_activities_and_all_their_time(nsys_findings):
    for told in nsys_findings.devices:
        assert sum(each.count for each in told.kernels) == told.activities
        assert sum(each.count for each in told.classes) == told.activities
        times = [sum(each.time_s for each in uses) for uses in (told.kernels, told.classes)]
        assert times[0] == pytest.approx(times[1])
        assert sum(each.frac for each in told.classes) == pytest.approx(1)


def test_matched_collectives_end_together_on_both_ranks(nsys_findings):
    (skew,) = nsys_findings.skews
    assert skew.devices == ("GPU 0", "GPU 1")
    assert skew.collectives == 3944
    assert skew.skew_p50_s < 2e-6 < skew.skew_max_s
    for device, waiting_s in zip(nsys_findings.devices, skew.waiting_s, strict=True):
        assert device.communication.waiting_s == waiting_s < device.communication.time_s
        assert device.communication.exposed_s <= device.communication.time_s


def test_findings_are_what_their_json_says(nsys_findings):
    text = nsys_findings.as_json()
    assert from_json(text) == nsys_findings
    assert json.loads(text)["devices"][0]["label"] == "GPU 0"


def test_findings_of_another_version_are_refused(nsys_findings):
    told = json.loads(nsys_findings.as_json()) | {"version": 0}
    with pytest.raises(ValueError, match="version 0"):
        from_json(json.dumps(told))


TIMES = st.tuples(st.integers(0, 300), st.integers(0, 30)).map(lambda each: (each[0], sum(each)))


@given(st.lists(TIMES, min_size=1, max_size=40))
def test_gaps_with_their_neighbours_are_the_gaps_of_the_union(pairs):
    solid = [pair for pair in pairs if pair[1] > pair[0]]
    made = activities(solid)
    found, expected = gaps_of(made, NO_CALLS), gaps(Intervals(made.start_s, made.end_s))
    np.testing.assert_array_equal(found.start_s, expected.start_s)
    np.testing.assert_array_equal(found.end_s, expected.end_s)
    np.testing.assert_array_equal(made.end_s[found.before], found.start_s)
    np.testing.assert_array_equal(made.start_s[found.after], found.end_s)


def test_a_gap_is_the_cpus_until_the_next_launch_is_through(export, found):
    export.call(0, 5, id=1).call(30, 40, id=2)
    export.work(5, 20, call=1).work(48, 60, call=2)
    told = found(export).devices[0]
    assert told.idle_frac * told.span_s == us(28)
    assert told.waits.cpu_s == us(20)  # 20 to 40; from 40 to 48 the work was there
    assert told.waits.queued_s == us(8)
    assert told.waits.by_doing_s[Doing.LAUNCH] == us(10)
    assert told.waits.by_doing_s[Doing.BETWEEN] == us(10)


def test_work_that_was_queued_before_the_gap_is_no_wait_for_the_cpu(export, found):
    export.call(0, 2, id=1).call(3, 5, id=2).work(5, 20, call=1).work(30, 40, call=2)
    assert found(export).devices[0].waits.cpu_s == 0


def test_gaps_between_nodes_of_one_graph_are_not_the_cpus(export, found):
    export.call(0, 50, "cudaGraphLaunch_v10000", id=1)
    export.work(10, 20, call=1, node=1).work(25, 30, call=1, node=2)
    told = found(export).devices[0]
    assert told.waits.cpu_s == 0
    assert told.waits.queued_s == us(5)


def test_what_the_cpu_does_in_a_gap_is_told_by_the_thread_that_launches(export, found):
    export.step(0, 60, (0, 0), (4, 4)).step(85, 130, (0, 0), (4, 4))
    export.call(0, 5, id=1).work(5, 10, call=1)
    export.call(12, 22, "cudaStreamSynchronize_v3020").call(30, 33, "cudaMemcpyAsync_v3020")
    export.call(40, 41, "cudaEventRecord_v3020").call(10, 100, "cudaEventSynchronize", thread=99)
    export.call(90, 100, id=2).work(100, 110, call=2)
    waits = found(export).devices[0].waits
    assert waits.by_doing_s == {
        Doing.SYNCHRONISE: us(10),
        Doing.LAUNCH: us(10),
        Doing.COPY: us(3),
        Doing.MEMORY: 0,
        Doing.CALL: us(1),
        Doing.IN_STEP: us(60 - 10 - 14 + 5),
        Doing.BETWEEN: us(25),
    }


def test_sampling_after_its_range_belongs_to_the_step(export, found):
    export.step(0, 10, (1, 64), (0, 0)).step(50, 60, (0, 0), (1, 1))
    export.call(1, 2, id=1).work(2, 20, call=1)
    export.call(15, 16, id=2).work(21, 30, "_gumbel_sample_kernel", call=2)
    export.call(51, 52, id=3).work(55, 70, call=3)
    told = found(export).devices[0]
    prefill, decode = told.step_kinds
    assert (prefill.kind, decode.kind) == ("prefill", "decode")
    assert prefill.time_mean_s == us(28)
    assert prefill.busy_mean_s == us(27)
    assert decode.time_mean_s == us(40)
    assert decode.cpu_wait_mean_s == us(22)
    sampling = next(each for each in told.kernels if each.class_name == "sampling")
    assert sampling.step_kind == "prefill"
    assert decode.overlapped_frac == 0


def test_the_first_work_of_the_device_counts_for_its_own_step(export, found):
    """Step 1 ran nothing there; in floating point, (3 + (25.5 − 3)) µs // 25.5 µs is 0."""
    export.step(0, 1, (1, 64), (0, 0)).step(1, 20, (0, 0), (1, 1))
    export.call(2, 3, id=1).work(3, 20, call=1)
    (decode,) = found(export).devices[0].step_kinds
    assert decode.busy_mean_s == us(17)


def test_what_was_launched_before_the_first_step_is_outside(export, found):
    export.call(0, 1, id=1).work(1, 4, call=1).step(5, 9, (1, 8), (0, 0))
    export.call(6, 7, id=2).work(7, 9, call=2)
    told = found(export).devices[0]
    assert {each.step_kind for each in told.kernels} == {"outside", "prefill"}


def test_exposed_communication_is_what_nothing_hides(export, found):
    export.work(0, 10, ALL_REDUCE).work(4, 7, GEMM, stream=8).work(10, 20, NORM)
    told = found(export).devices[0].communication
    assert (told.time_s, told.exposed_s) == (us(10), us(7))
    assert told.waiting_s is None  # there is no other rank


def test_the_rank_that_comes_first_waits_for_the_last(export, found):
    for at in (0, 100, 200):
        export.work(at, at + 30, ALL_REDUCE, device=0, process=1)
        export.work(at + 20, at + 30, ALL_REDUCE, device=1, process=2)
    findings = found(export)
    (skew,) = findings.skews
    assert skew.skew_p50_s == us(20)
    assert skew.waiting_s == (us(60), pytest.approx(0))
    assert findings.devices[0].communication.waiting_s == us(60)


def test_replicas_that_communicate_at_other_times_are_no_ranks_of_one_model(export, found):
    for at in (0, 100, 200):
        export.work(at, at + 30, ALL_REDUCE, device=0, process=1)
        export.work(at + 50, at + 80, ALL_REDUCE, device=1, process=2)
    assert found(export).skews == ()


def test_launches_are_told_one_by_one_and_as_nodes(export, found):
    export.call(0, 8, id=1).work(8, 9, call=1)
    export.call(10, 30, "cudaGraphLaunch_v10000", id=2)
    for start in range(30, 40, 2):
        export.work(start, start + 1, call=2, node=start)
    single, graphs = found(export).devices[0].launches
    assert (single.activities, single.calls, single.call_s_per_activity) == (1, 1, us(8))
    assert (graphs.activities, graphs.calls, graphs.call_s_per_activity) == (5, 1, us(4))
    assert graphs.idle_s == us(21 + 4)


def test_without_calls_nothing_is_said_of_the_cpu(export, found):
    told = found(export.work(0, 5).work(9, 12).step(0, 4, (1, 8), (0, 0))).devices[0]
    assert told.waits is None
    assert told.launches == ()
    assert told.longest_gaps[0].cpu_s is told.longest_gaps[0].doing is None


def test_one_activity_is_a_trace(export, found):
    told = found(export.work(3, 5)).devices[0]
    assert (told.busy_frac, told.gap_count, told.longest_gaps) == (1.0, 0, ())


def test_copies_on_another_stream_make_the_device_busy_once(export, found):
    told = found(export.work(0, 10).copy(5, 15)).devices[0]
    assert told.busy_s == told.span_s == us(15)
