from dataclasses import replace
from math import isnan

import pynvml
import pytest

from monitors.gpm import METRICS
from monitors.nvml import (
    UNKNOWN_REASONS,
    GpuProcess,
    GpuReadings,
    driver,
    foreign_processes,
    gpus,
    memory_used_bytes,
    throttle_names,
)

LOST, UNSUPPORTED = 15, 3
UUIDS = ("GPU-0", "GPU-1")


def read(readings, *, edge=False):
    """Rows as dicts."""
    return [dict(zip(readings.columns, row, strict=True)) for row in readings.sample(edge=edge)]


def test_without_a_driver_there_is_nothing_and_no_error(fake_nvml):
    library = fake_nvml(has_driver=False)
    assert gpus(library) == ()
    assert driver(library) is None
    assert memory_used_bytes(UUIDS, library) == {}
    assert foreign_processes(UUIDS, [], library) == ()


def test_without_a_driver_readings_give_no_rows_and_one_note(fake_nvml):
    readings = GpuReadings(UUIDS, 0.1, fake_nvml(has_driver=False))
    assert read(readings) == read(readings) == []
    assert readings.notes == ["NVML is not available, so no GPU is sampled"]


def test_a_gpu_is_described_in_base_units(fake_nvml):
    first, second = gpus(fake_nvml())
    assert first.uuid == "GPU-0"
    assert first.memory_total_bytes == 150_754_820_096
    assert first.power_limit_w == 700.0
    assert first.sm_clock_max_hz == 1.98e9
    assert first.ecc is True
    assert first.compute_capability == (9, 0)
    assert second == replace(first, index=1, uuid="GPU-1")


def test_what_a_gpu_cannot_say_is_none_and_a_lost_gpu_is_left_out(fake_nvml):
    library = fake_nvml()
    library.broken = {("ecc", 0): UNSUPPORTED, ("limit", 0): UNSUPPORTED, ("all", 1): LOST}
    library.broken["capability", 0] = UNSUPPORTED
    (gpu,) = gpus(library)
    assert (gpu.ecc, gpu.power_limit_w, gpu.compute_capability) == (None, None, None)


def test_cuda_version_is_read_as_major_and_minor(fake_nvml):
    assert driver(fake_nvml()).cuda_version == "13.2"


def test_used_memory_does_not_count_the_drivers_reserve(fake_nvml):
    assert memory_used_bytes(UUIDS, fake_nvml()) == {"GPU-0": 2**30, "GPU-1": 2**30}


def test_foreign_processes_are_those_of_others(fake_nvml):
    library = fake_nvml()
    library.processes = {0: [10, 11], 1: [12]}
    assert foreign_processes(UUIDS, {10, 12}, library) == (
        GpuProcess(gpu=0, pid=11, memory_used_bytes=2**20),
    )


def test_every_call_closes_the_library_that_it_opened(fake_nvml):
    library = fake_nvml()
    library.broken = {("all", 1): LOST}
    gpus(library), driver(library), memory_used_bytes(UUIDS, library)
    foreign_processes(UUIDS, [], library)
    assert library.num_open == 0


def test_a_reading_is_in_base_units(fake_nvml):
    row = read(GpuReadings(("GPU-1",), 0.1, fake_nvml()))[0]
    assert row.pop("at_s") > 0
    assert isnan(row.pop("energy_j"))
    assert all(isnan(row.pop(name)) for name in METRICS)  # nothing to compare with yet
    assert row == {
        "gpu": 1,
        "utilization_frac": 0.51,
        "memory_used_bytes": 2**30,
        "sm_clock_hz": 1.98e9,
        "memory_clock_hz": 3.201e9,
        "power_instant_w": 654.321,
        "temperature_c": 61,
        "throttle_reasons": 0x4,
    }


def test_the_energy_counter_is_read_at_edges_only(fake_nvml):
    library = fake_nvml()
    readings = GpuReadings(("GPU-0",), 0.1, library)
    assert read(readings, edge=True)[0]["energy_j"] == 1500.0
    assert isnan(read(readings)[0]["energy_j"])
    assert read(readings, edge=True)[0]["energy_j"] == 2000.0


def test_without_instant_power_the_average_is_taken_and_noted(fake_nvml):
    library = fake_nvml()
    library.broken = {("power_instant", 0): UNSUPPORTED}
    readings = GpuReadings(UUIDS, 0.1, library)
    assert [row["power_instant_w"] for row in read(readings)] == [600.0, 654.321]
    (note,) = readings.notes
    assert note.startswith("GPU 0: no instant power")


def test_activity_is_that_between_two_readings_as_shares_and_bytes(fake_nvml):
    readings = GpuReadings(("GPU-1",), 0.1, fake_nvml())
    first, second, third = (read(readings)[0] for _ in range(3))
    assert all(isnan(first[name]) for name in METRICS)
    assert {name: second[name] for name in METRICS} == {
        "sm_activity_frac": 0.75,
        "tensor_activity_frac": pytest.approx(0.2),
        "dram_bandwidth_frac": 0.6,
        "nvlink_rx_bytes_per_s": 1000 * 2**20,
        "nvlink_tx_bytes_per_s": 500 * 2**20,
    }
    assert third["sm_activity_frac"] == 0.75
    assert readings.notes == []


def test_a_card_without_gpm_has_no_activity_and_one_note(fake_nvml):
    library = fake_nvml()
    library.has_gpm = False
    readings = GpuReadings(("GPU-0",), 0.1, library)
    rows = [read(readings)[0] for _ in range(3)]
    assert all(isnan(row[name]) for row in rows for name in METRICS)
    assert rows[0]["temperature_c"] == 61
    (note,) = readings.notes
    assert note.startswith("GPU 0: no GPM counters, which Hopper and later have (sm_activity_frac")


def test_a_gpm_counter_that_the_card_lacks_is_nan_and_noted(fake_nvml):
    library = fake_nvml()
    library.missing_gpm = {60, 61}
    readings = GpuReadings(("GPU-0",), 0.1, library)
    row = [read(readings)[0] for _ in range(3)][-1]
    assert row["sm_activity_frac"] == 0.75
    assert isnan(row["nvlink_rx_bytes_per_s"])
    assert readings.notes == [
        "GPU 0: no such GPM counter (nvlink_rx_bytes_per_s, nvlink_tx_bytes_per_s)"
    ]


def test_gpm_that_fails_is_a_note_and_the_other_sensors_go_on(fake_nvml):
    library = fake_nvml()
    library.broken = {("gpm", 0): UNSUPPORTED}
    readings = GpuReadings(("GPU-0",), 0.1, library)
    row = [read(readings)[0] for _ in range(2)][-1]
    assert isnan(row["sm_activity_frac"])
    assert row["power_instant_w"] == 654.321
    (note,) = readings.notes
    assert note.startswith("GPU 0: Not Supported (sm_activity_frac")


def test_gpm_metrics_are_the_drivers():
    ids = [getattr(pynvml, name) for name, _ in METRICS.values()]
    assert ids == [2, 5, 10, 60, 61]


@pytest.mark.parametrize(
    ("function", "column"), [("temperature", "temperature_c"), ("energy", "energy_j")]
)
def test_a_sensor_that_is_not_there_is_nan_and_noted_once(fake_nvml, function, column):
    library = fake_nvml()
    library.broken = {(function, 1): UNSUPPORTED}
    readings = GpuReadings(UUIDS, 0.1, library)
    for _ in range(3):
        first, second = read(readings, edge=True)
        assert not isnan(first[column])
        assert isnan(second[column])
    assert readings.notes == [f"GPU 1: Not Supported ({column})"]


def test_unreadable_throttle_reasons_do_not_look_like_none(fake_nvml):
    library = fake_nvml()
    library.broken = {("reasons", 0): UNSUPPORTED}
    reasons = int(read(GpuReadings(("GPU-0",), 0.1, library))[0]["throttle_reasons"])
    assert reasons == UNKNOWN_REASONS
    assert throttle_names(reasons) == ("unknown",)


def test_a_lost_card_has_no_more_rows_and_one_note_while_the_other_goes_on(fake_nvml):
    library = fake_nvml()
    readings = GpuReadings(UUIDS, 0.1, library)
    assert len(read(readings)) == 2
    library.broken = {("all", 1): LOST}
    assert [row["gpu"] for row in read(readings) + read(readings)] == [0, 0]
    (note,) = readings.notes
    assert note.startswith("GPU 1: GPU is lost")


def test_a_lost_card_is_not_asked_again(fake_nvml):
    library = fake_nvml()
    readings = GpuReadings(UUIDS, 0.1, library)
    library.broken = {("temperature", 1): LOST}
    assert len(read(readings)) == 1
    library.broken = {}
    before_mj = library.energy_mj
    assert len(read(readings, edge=True)) == 1
    assert library.energy_mj == before_mj + 500_000  # one card's counter was read, not two


def test_a_card_that_cannot_be_opened_does_not_keep_the_other_from_being_read(fake_nvml):
    library = fake_nvml()
    library.broken = {("handle", 0): LOST}
    readings = GpuReadings(UUIDS, 0.1, library)
    assert [row["gpu"] for row in read(readings)] == [1]
    assert readings.notes == ["GPU-0 cannot be opened (GPU is lost)"]


def test_throttle_names_decode_every_bit():
    assert throttle_names(0) == ()
    assert throttle_names(0x1 | 0x4 | 0x80) == (
        "gpu_idle",
        "sw_power_cap",
        "hw_power_brake_slowdown",
    )
