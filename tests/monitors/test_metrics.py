from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.metrics import summarise
from monitors.sampler import column_names, samples


def recording(**sources):
    """Samples of the given columns; what a source is not given is NaN, or 0 for whole numbers."""
    rows = {}
    for name, columns in sources.items():
        num_rows = len(columns["at_s"])
        table = [
            np.broadcast_to(
                columns.get(column, 0 if column in ("gpu", "role", "pid") else np.nan), num_rows
            )
            for column in column_names(name)
        ]
        rows[name] = np.array(table, dtype=np.float64).T.tobytes()
    return samples(rows, [])


def gpu(**columns):
    return recording(gpu={"throttle_reasons": 0, **columns})


def test_nothing_sampled_is_none_everywhere():
    assert set(asdict(summarise(recording(), 0.0, 1.0)).values()) == {None}


def test_only_the_window_counts():
    taken = gpu(
        at_s=[0, 1, 2, 3, 4], sm_clock_hz=[9, 1, 2, 3, 9], temperature_c=[99, 50, 51, 52, 99]
    )
    summary = summarise(taken, 1.0, 3.0)
    assert summary.sm_clock_mean_hz == 2
    assert summary.sm_clock_min_hz == 1
    assert summary.temperature_max_c == 52


def test_power_adds_up_over_gpus_while_utilization_is_averaged_and_memory_is_the_fullest():
    taken = gpu(
        at_s=[0, 0, 1, 1],
        gpu=[0, 1, 0, 1],
        power_instant_w=[100, 300, 200, 500],
        utilization_frac=[0.5, 1, 0.5, 1],
        memory_used_bytes=[1, 2, 3, 8],
    )
    summary = summarise(taken, 0.0, 1.0)
    assert summary.gpu_power_w == 150 + 400
    assert summary.gpu_util_frac == 0.75
    assert summary.gpu_memory_used_bytes == 8


def test_a_gpu_with_fewer_samples_weighs_no_less():
    taken = gpu(at_s=[0, 1, 2, 2], gpu=[0, 0, 0, 1], power_instant_w=[100, 100, 100, 300])
    assert summarise(taken, 0.0, 2.0).gpu_power_w == 400


def test_energy_is_the_counters_increase_shared_out_by_power():
    # 100 W for 10 s and 300 W for 10 s are 4000 J; this counter says 10 % more
    taken = gpu(
        at_s=[0, 10, 10.000001, 20],
        power_instant_w=[100, 100, 300, 300],
        energy_j=[5000, np.nan, np.nan, 9400],
    )
    assert summarise(taken, 0.0, 20.0).gpu_energy_j == pytest.approx(4400)
    assert summarise(taken, 0.0, 10.0).gpu_energy_j == pytest.approx(1100, rel=1e-4)
    assert summarise(taken, 15.0, 20.0).gpu_energy_j == pytest.approx(1650, rel=1e-4)


@given(
    power_w=st.lists(st.floats(1, 1000), min_size=3, max_size=30),
    cut=st.floats(0.01, 0.99),
)
def test_energies_of_two_windows_add_up_to_the_counter(power_w, cut):
    at_s = np.arange(len(power_w)) / 10
    energy_j = np.full(len(power_w), np.nan)
    energy_j[[0, -1]] = 100, 350
    taken = gpu(at_s=at_s, power_instant_w=power_w, energy_j=energy_j)
    middle_s = cut * at_s[-1]
    first = summarise(taken, 0.0, middle_s).gpu_energy_j
    second = summarise(taken, middle_s, at_s[-1]).gpu_energy_j
    assert first + second == pytest.approx(250)


def test_without_the_counter_there_is_no_energy():
    assert summarise(gpu(at_s=[0, 1], power_instant_w=[1, 1]), 0.0, 1.0).gpu_energy_j is None


def test_energy_of_one_gpu_of_two_is_not_passed_off_as_the_energy_of_both():
    taken = gpu(
        at_s=[0, 0, 1, 1],
        gpu=[0, 1, 0, 1],
        power_instant_w=1,
        energy_j=[0, 0, 10, np.nan],
    )
    assert summarise(taken, 0.0, 1.0).gpu_energy_j is None


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        ([0x1, 0x2, 0x10, 0x100], 0.0),
        ([0x4, 0x8, 0x20, 0x40 | 0x1, 0x80], 1.0),
        ([0x4, 0, 0x1, 0], 0.25),
        ([0x4, 1 << 62], 1.0),
        ([1 << 62], None),
    ],
    ids=["settings", "power_or_heat", "some", "unknown_left_out", "all_unknown"],
)
def test_throttled_is_power_or_heat_and_nothing_else(reasons, expected):
    taken = gpu(at_s=np.arange(len(reasons)), throttle_reasons=reasons)
    assert summarise(taken, 0.0, 10.0).throttled_frac == expected


def test_throttle_reasons_are_named_with_their_shares():
    taken = gpu(at_s=[0, 1, 2, 3, 4], throttle_reasons=[0x4, 0x4 | 0x40, 0x1, 0, 1 << 62])
    assert (
        summarise(taken, 0.0, 10.0).throttle_reasons
        == "sw_power_cap 0.5, hw_thermal_slowdown 0.25, gpu_idle 0.25"
    )
    assert summarise(gpu(at_s=[0]), 0.0, 1.0).throttle_reasons == ""
    assert summarise(gpu(at_s=[0], throttle_reasons=1 << 62), 0.0, 1.0).throttle_reasons is None


def test_activity_is_a_mean_over_time_and_gpus_and_what_a_card_lacks_is_left_out():
    taken = gpu(
        at_s=[0, 0, 1, 1],
        gpu=[0, 1, 0, 1],
        sm_activity_frac=[0.2, 0.8, 0.4, 0.6],
        dram_bandwidth_frac=[0.1, np.nan, 0.3, np.nan],
    )
    summary = summarise(taken, 0.0, 1.0)
    assert summary.sm_activity_frac == pytest.approx(0.5)
    assert summary.dram_bandwidth_frac == pytest.approx(0.2)
    assert summary.nvlink_rx_bytes_per_s is None


def test_the_servers_own_times_are_differences_over_the_window():
    first = {"ttft_le_0.1_total": 90, "ttft_le_0.25_total": 100, "ttft_le_0.5_total": 100}
    later = {"ttft_le_0.1_total": 95, "ttft_le_0.25_total": 145, "ttft_le_0.5_total": 150}
    taken = recording(
        server={
            "at_s": [0, 1, 2, 3],
            "ttft_total": [0, 100, 150, 900],
            "ttft_sum_s": [0, 5, 15, 900],
            "queue_total": [0, 10, 30, 30],
            "queue_sum_s": [0, 1, 2, 2],
            "decode_total": 4,
            "decode_sum_s": 8,
            **{name: [0, first[name], later[name], 900] for name in first},
        }
    )
    summary = summarise(taken, 1.0, 2.0)
    assert summary.server_ttft_mean_s == pytest.approx(10 / 50)
    assert summary.server_queue_mean_s == pytest.approx(1 / 20)
    assert summary.server_decode_mean_s is None, "nothing was observed"
    # 5 came within 0.1 s, 40 more within 0.25 s: the 25th lies in that bucket, halfway
    assert summary.server_ttft_p50_s == pytest.approx(0.1 + 0.15 * 20 / 40)
    assert summary.server_ttft_p99_s == pytest.approx(0.25 + 0.25 * 4.5 / 5)


def test_steps_are_counted_over_the_time_between_the_scrapes_around_the_window():
    taken = recording(server={"at_s": [0, 1, 3, 4], "steps_total": [0, 100, 500, 600]})
    assert summarise(taken, 1.5, 2.5).server_steps_per_s == pytest.approx(200)


def test_waiting_share_is_the_share_of_samples_with_a_request_waiting():
    taken = recording(server={"at_s": [0, 1, 2, 3], "requests_waiting": [0, 3, 1, np.nan]})
    assert summarise(taken, 0.0, 3.0).requests_waiting_frac == pytest.approx(2 / 3)


def test_each_roles_busiest_process_is_told():
    taken = recording(
        host={
            "at_s": [0, 0, 0, 0, 0],
            "pid": [1, 2, 3, 4, 5],
            "role": [1, 1, 2, 3, 3],
            "cpu_frac": [0.7, 0.9, 0.4, 1.0, 0.99],
            "rss_bytes": 1,
        }
    )
    summary = summarise(taken, 0.0, 1.0)
    assert summary.api_server_cpu_frac == 0.9
    assert summary.engine_core_cpu_frac == 0.4
    assert summary.worker_cpu_frac == 1.0


def test_jitter_is_the_latest_sources_and_missed_deadlines_are_added_up():
    taken = recording(
        gpu={"throttle_reasons": 0, "at_s": [0, 1, 2, 3], "late_s": 0.001, "missed": [9, 1, 0, 2]},
        host={"at_s": [1, 1, 2], "late_s": [0.004, np.nan, 0.002], "missed": [1, np.nan, 0]},
    )
    summary = summarise(taken, 0.5, 2.5)
    assert summary.monitor_jitter_p99_s == pytest.approx(0.004, rel=0.02)
    assert summary.monitor_missed == 1 + 0 + 2 + 1, "the first after the window tells of its end"


def test_counters_grow_between_the_samples_that_enclose_the_window():
    taken = recording(
        server={
            "at_s": [0, 1, 2, 3, 4],
            "preemptions_total": [5, 6, 7, 9, 20],
            "prefix_cache_queries_total": [0, 100, 200, 300, 400],
            "prefix_cache_hits_total": [0, 0, 50, 100, 100],
        }
    )
    summary = summarise(taken, 1.5, 2.5)
    assert summary.preemptions == 9 - 6
    assert summary.prefix_cache_hit_frac == 0.5
    assert summarise(taken, 3.5, 9.0).preemptions == 20 - 9


def test_a_counter_that_falls_belongs_to_another_server():
    taken = recording(server={"at_s": [0, 1, 2], "preemptions_total": [5, 0, 7]})
    assert summarise(taken, 0.0, 2.0).preemptions is None


def test_a_prefix_cache_that_nobody_asked_has_no_hit_rate():
    taken = recording(
        server={"at_s": [0, 1], "prefix_cache_queries_total": 7, "prefix_cache_hits_total": 0}
    )
    assert summarise(taken, 0.0, 1.0).prefix_cache_hit_frac is None


def test_queue_and_kv_cache_are_means_and_peak():
    taken = recording(
        server={
            "at_s": [0, 1],
            "kv_cache_usage_frac": [0.25, 0.75],
            "requests_running": [10, 20],
            "requests_waiting": [0, 4],
        }
    )
    summary = summarise(taken, 0.0, 1.0)
    assert (summary.kv_cache_usage_mean_frac, summary.kv_cache_usage_peak_frac) == (0.5, 0.75)
    assert (summary.requests_running_mean, summary.requests_waiting_mean) == (15, 2)


def test_the_busiest_process_is_so_over_the_window_and_memory_peaks_together():
    taken = recording(
        host={
            "at_s": [0, 0, 1, 1, 1, 2, 2],
            "pid": [1, 2, 1, 2, 3, 1, 2],
            "role": [1, 2, 1, 2, 0, 1, 2],
            "cpu_frac": [np.nan, np.nan, 0.5, 1.0, 1.8, 0.5, 1.0],
            "rss_bytes": [100, 100, 100, 100, 50, 120, 110],
        }
    )
    summary = summarise(taken, 0.0, 2.0)
    assert summary.server_cpu_max_frac == 1.0  # not the 1.8 of pid 3, which came and went
    assert summary.server_cpu_max_role == "engine_core"
    assert summary.server_rss_bytes == 250


def test_the_longest_gap_counts_a_card_that_was_lost_and_the_windows_edges():
    steady = np.arange(0, 11) * 1.0
    both = gpu(at_s=np.repeat(steady, 2), gpu=np.tile([0, 1], 11))
    assert summarise(both, 0.0, 10.0).monitor_gap_max_s == 1
    lost = gpu(at_s=[*steady, 0, 1, 2], gpu=[0] * 11 + [1] * 3)
    assert summarise(lost, 0.0, 10.0).monitor_gap_max_s == 8
    assert summarise(both, 0.0, 14.0).monitor_gap_max_s == 4
