import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from time import perf_counter, sleep

import numpy as np
import psutil
import pytest

from monitors.config import Monitor
from monitors.sampler import Sampler, Targets, column_names, completed, samples

FAST = Monitor(gpu_interval_s=0.01, server_interval_s=0.02, host_interval_s=0.02)
LIMIT_S = 30.0

OWNER = """
import os, sys
from monitors.config import Monitor
from monitors.sampler import Sampler, Targets
with Sampler(Monitor(), Targets(root_pids=(os.getpid(),))) as sampler:
    sampler.start()
    print(sampler._process.pid, flush=True)
    sys.stdin.read()
"""


def wait_until(condition) -> None:
    deadline_s = perf_counter() + LIMIT_S
    while not condition():
        assert perf_counter() < deadline_s
        sleep(0.02)


def record(config, targets, enough):
    """Recordings are repeated, each longer, until one is `enough`: no machine is too slow."""
    with Sampler(config, targets) as sampler:
        for seconds in (0.2, 0.5, 2, 10):
            sampler.start()
            sleep(seconds)
            taken = sampler.stop()
            if enough(taken):
                return taken
    pytest.fail(f"not enough samples: {taken}")


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def test_server_and_host_are_recorded_on_one_ascending_clock(serve_page, vllm_page):
    targets = Targets(metrics_urls=(serve_page(vllm_page.encode()),), root_pids=(os.getpid(),))
    before_s = perf_counter()
    taken = record(FAST, targets, lambda t: len(t.server["at_s"]) > 2 and len(t.host["at_s"]) > 2)
    for columns in (taken.server, taken.host):
        assert before_s < columns["at_s"][0]
        assert columns["at_s"][-1] < perf_counter()
        assert (np.diff(columns["at_s"]) >= 0).all()
        assert {len(values) for values in columns.values()} == {len(columns["at_s"])}
    assert set(taken.server["generation_tokens_total"]) == {22400}
    assert os.getpid() in taken.host["pid"]
    assert set(taken.host["role"]) == {"other"}


def test_a_page_is_asked_for_with_the_headers_and_they_are_not_shown(serve_page, vllm_page):
    targets = Targets(
        metrics_urls=(serve_page(vllm_page.encode(), key="Bearer sk-secret"),),
        metrics_headers={"Authorization": "Bearer sk-secret"},
    )
    taken = record(FAST, targets, lambda t: len(t.server["at_s"]))
    assert len(taken.server["at_s"])
    assert "sk-secret" not in f"{targets} {taken.notes}"


def test_without_gpus_one_note_says_so_and_the_columns_are_empty(serve_page, vllm_page):
    targets = Targets(metrics_urls=(serve_page(vllm_page.encode()),), root_pids=(os.getpid(),))
    taken = record(FAST, targets, lambda t: len(t.host["at_s"]))
    assert [note for note in taken.notes if note.startswith("gpu")] == [
        "gpu: not sampled, there is none to watch"
    ]
    assert set(taken.gpu) == set(column_names("gpu"))
    assert all(len(values) == 0 for values in taken.gpu.values())


def test_gpus_that_cannot_be_reached_are_a_note():
    taken = record(
        FAST, Targets(gpu_uuids=("GPU-none",), root_pids=(os.getpid(),)), lambda t: t.notes
    )
    assert any(note.startswith("gpu: ") for note in taken.notes)
    assert len(taken.gpu["at_s"]) == 0


def test_a_metrics_page_that_hangs_does_not_stop_the_host_samples(serve_page):
    targets = Targets(metrics_urls=(serve_page(None),), root_pids=(os.getpid(),))
    taken = record(FAST, targets, lambda t: len(np.unique(t.host["at_s"])) > 5)
    assert len(taken.server["at_s"]) == 0
    assert any(note.startswith("server: the last sample did not arrive") for note in taken.notes)


@pytest.mark.parametrize(
    ("page", "status", "said"),
    [
        (b"\xff\xfe<html>" * 100, 200, "none of vLLM's metrics"),
        (b"vllm:num_requests_running{ 3", 200, "ValueError"),
        (b"busy", 503, "503"),
    ],
    ids=["garbage", "malformed", "error"],
)
def test_a_bad_metrics_page_is_a_note(serve_page, page, status, said):
    taken = record(
        FAST,
        Targets(metrics_urls=(serve_page(page, status),), root_pids=(os.getpid(),)),
        lambda t: any(said in note for note in t.notes),
    )
    assert len(taken.server["at_s"]) == 0
    assert len(taken.host["at_s"]) > 0


def test_a_server_process_that_is_gone_is_a_note():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    taken = record(FAST, Targets(root_pids=(process.pid,)), lambda t: t.notes)
    assert any("NoSuchProcess" in note for note in taken.notes)


def test_recordings_do_not_overlap():
    with Sampler(FAST, Targets(root_pids=(os.getpid(),))) as sampler:
        sampler.start()
        first = sampler.stop()
        sampler.start()
        second = sampler.stop()
    assert first.host["at_s"].max() < second.host["at_s"].min()


def test_a_late_reply_is_not_taken_for_another(monkeypatch):
    with Sampler(FAST, Targets(root_pids=(os.getpid(),))) as sampler:
        monkeypatch.setattr("monitors.sampler.REPLY_TIMEOUT_S", 0.0)
        sampler.start()  # the process is still starting, so its reply comes too late
        monkeypatch.setattr("monitors.sampler.REPLY_TIMEOUT_S", LIMIT_S)
        assert len(sampler.stop().host["at_s"]) > 0


def test_a_dead_sampler_is_not_waited_for_and_gives_empty_columns_and_a_note(monkeypatch):
    monkeypatch.setattr("monitors.sampler.REPLY_TIMEOUT_S", 1e6)
    with Sampler(FAST, Targets(root_pids=(os.getpid(),))) as sampler:
        sampler.start()
        sampler._process.kill()
        taken = sampler.stop()
        sampler.start()
        again = sampler.stop()
    for one in (taken, again):
        assert len(one.host["at_s"]) == 0
        (note,) = one.notes
        assert "died" in note


def test_a_sampler_that_is_switched_off_has_no_process():
    with Sampler(Monitor(enabled=False), Targets(root_pids=(os.getpid(),))) as sampler:
        sampler.start()
        taken = sampler.stop()
        assert sampler._process.pid is None
    assert len(taken.host["at_s"]) == 0
    assert taken.notes == ("monitoring was switched off (monitor.enabled)",)


def test_leaving_the_block_ends_the_process():
    with Sampler(FAST, Targets(root_pids=(os.getpid(),))) as sampler:
        sampler.start()
    assert not sampler._process.is_alive()
    assert sampler._process.exitcode == 0


def test_the_sampler_dies_with_its_parent_though_that_is_killed(owner):
    sampler = psutil.Process(int(owner.stdout.readline()))
    owner.kill()
    owner.wait()
    wait_until(lambda: not sampler.is_running() or sampler.status() == psutil.STATUS_ZOMBIE)


def test_an_interrupt_is_the_parents_business_also_while_the_sampler_starts():
    with Sampler(FAST, Targets(root_pids=(os.getpid(),))) as sampler:
        os.kill(sampler._process.pid, signal.SIGINT)
        sampler.start()
        os.kill(sampler._process.pid, signal.SIGINT)
        assert len(sampler.stop().host["at_s"]) > 0
    assert sampler._process.exitcode == 0
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_rows_become_typed_columns():
    row = np.array([1.0, 42, 2, 0.5, 2**40, 0.001, 0]).tobytes()
    host = samples({"host": row}, []).host
    assert host["pid"].dtype == np.int64
    assert host["role"].tolist() == ["engine_core"]
    assert host["rss_bytes"].tolist() == [2**40]
    assert host["late_s"].tolist() == [0.001]


def test_a_recording_from_before_a_column_was_there_has_nan_in_it():
    old = {"at_s": np.array([1.0, 2.0]), "power_instant_w": np.array([300.0, 310.0])}
    gpu = completed("gpu", old)
    assert set(gpu) == set(samples({}, []).gpu)
    assert gpu["power_instant_w"].tolist() == [300, 310]
    assert np.isnan(gpu["sm_activity_frac"]).all()
    assert all(len(values) == 0 for values in completed("server", {}).values())


def test_every_throttle_bit_survives_the_way_through_float64():
    bits = [1 << 62 | 0, 0x7FF, 0]
    names = column_names("gpu")
    rows = np.zeros((3, len(names)))
    rows[:, names.index("throttle_reasons")] = bits
    reasons = samples({"gpu": rows.tobytes()}, []).gpu["throttle_reasons"]
    assert reasons.dtype == np.int64
    assert reasons.tolist() == bits


@pytest.mark.parametrize("name", ["gpu_interval_s", "server_interval_s", "host_interval_s"])
def test_intervals_below_10_ms_are_refused(name):
    assert getattr(Monitor(**{name: 0.01}), name) == 0.01
    with pytest.raises(ValueError, match=name):
        Monitor(**{name: 0.009})
