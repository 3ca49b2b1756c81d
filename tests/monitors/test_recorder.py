from array import array
from math import isclose, isnan
from multiprocessing import Pipe
from queue import Queue
from threading import Event, Semaphore, Thread
from threading import enumerate as enumerate_threads
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.nvml import GpuReadings
from monitors.recorder import TIMING, Recording, next_number, serve


class FakeSource:
    """Counts its samples, and can fail or hang."""

    columns = ("at_s", "edge")

    def __init__(self, interval_s=0.001, fails=False, hangs=False):
        self.interval_s = interval_s
        self.notes = []
        self.samples = Semaphore(0)
        self.released = Event()
        self._fails = fails
        self._hangs = hangs

    def sample(self, *, edge):
        self.samples.release()
        if self._hangs:
            self.released.wait()
        if self._fails:
            raise ConnectionRefusedError("nobody there")
        yield perf_counter(), edge

    def wait_for(self, num_samples):
        for _ in range(num_samples):
            assert self.samples.acquire(timeout=30)


def table(source, rows):
    values = array("d")
    values.frombytes(rows)
    width = len(source.columns) + len(TIMING)
    return [tuple(values[i : i + width]) for i in range(0, len(values), width)]


@given(
    number=st.integers(0, 10**6),
    elapsed_s=st.floats(0, 1e5),
    interval_s=st.floats(1e-3, 10),
)
def test_the_next_deadline_is_a_later_one_and_at_most_one_interval_off(
    number, elapsed_s, interval_s
):
    following = next_number(number, elapsed_s, interval_s)
    assert following > number
    assert following * interval_s >= elapsed_s or isclose(following * interval_s, elapsed_s)
    assert following == number + 1 or (following - 1) * interval_s <= elapsed_s


def test_lateness_does_not_add_up():
    number, now_s, due_at_s = 0, 0.0, []
    for _ in range(10):
        number = next_number(number, now_s, 0.1)
        due_at_s.append(number * 0.1)
        now_s = due_at_s[-1] + 0.09  # every sample takes nearly its whole interval
    assert due_at_s == pytest.approx([0.1 * n for n in range(1, 11)])


def test_first_and_last_samples_are_the_edges_and_times_ascend():
    source = FakeSource()
    recording = Recording({"gpu": source})
    source.wait_for(5)
    rows, notes = recording.finish()
    at_s, edges, late_s, missed = zip(*table(source, rows["gpu"]), strict=True)
    assert list(at_s) == sorted(at_s)
    assert edges[0] == edges[-1] == 1
    assert not any(edges[1:-1])
    assert len(edges) >= 5
    assert isnan(late_s[0])
    assert isnan(late_s[-1])
    assert all(late >= 0 for late in late_s[1:-1])
    assert missed[0] == 0
    assert all("failed" not in note for note in notes)


def test_a_recording_can_follow_another():
    source = FakeSource()
    before, _ = Recording({"gpu": source}).finish()
    after, _ = Recording({"gpu": source}).finish()
    assert table(source, before["gpu"])[-1][0] < table(source, after["gpu"])[0][0]


def test_failures_are_counted_in_one_note_and_the_others_go_on():
    good, bad = FakeSource(), FakeSource(fails=True)
    recording = Recording({"gpu": good, "server": bad})
    bad.wait_for(3)
    good.wait_for(3)
    rows, notes = recording.finish()
    assert rows["server"] == b""
    assert len(table(good, rows["gpu"])) >= 3
    (note,) = [note for note in notes if "failed" in note]
    assert note.startswith("server: ")
    assert note.endswith("samples failed: ConnectionRefusedError: nobody there")


def test_a_source_that_hangs_delays_nothing_and_is_noted(monkeypatch):
    monkeypatch.setattr("monitors.recorder.STOP_TIMEOUT_S", 0.05)
    good, stuck = FakeSource(), FakeSource(hangs=True)
    recording = Recording({"server": stuck, "gpu": good})
    good.wait_for(5)
    rows, notes = recording.finish()
    assert len(table(good, rows["gpu"])) >= 5
    assert rows["server"] == b""
    assert any(note.startswith("server: the last sample did not arrive") for note in notes)
    stuck.released.set()


def test_samples_left_out_for_being_late_are_counted():
    turns = Queue()

    class Slow(FakeSource):
        def sample(self, *, edge):
            yield from super().sample(edge=edge)
            turns.get(timeout=30)

    source = Slow(interval_s=1e-6)  # whatever the test's own speed, many deadlines pass
    recording = Recording({"host": source})
    for _ in range(3):
        turns.put(None)
    source.wait_for(4)
    for _ in range(1000):
        turns.put(None)
    rows, notes = recording.finish()
    assert any(note.startswith("host: ") and "late and skipped" in note for note in notes)
    assert sum(row[-1] for row in table(source, rows["host"])) >= 3


def test_only_the_first_row_of_a_sample_tells_its_timing():
    class Two(FakeSource):
        def sample(self, *, edge):
            yield from super().sample(edge=edge)
            yield perf_counter(), edge

    source = Two()
    recording = Recording({"gpu": source})
    source.wait_for(4)
    rows, _ = recording.finish()
    timing = [row[-1] for row in table(source, rows["gpu"])]
    assert not any(map(isnan, timing[::2]))
    assert all(map(isnan, timing[1::2]))


def test_a_sample_that_failed_is_missed_and_told_by_the_next_that_did_not():
    class Flaky(FakeSource):
        def sample(self, *, edge):
            self.count = getattr(self, "count", 0) + 1
            if self.count in (2, 3):
                self.samples.release()
                raise TimeoutError
            yield from super().sample(edge=edge)

    source = Flaky(interval_s=0.05)
    recording = Recording({"server": source})
    source.wait_for(4)
    rows, _ = recording.finish()
    assert table(source, rows["server"])[1][-1] >= 2


def test_a_recording_that_nobody_took_ends_with_the_next_start():
    pipe, child_pipe = Pipe()
    server = Thread(target=serve, args=({"forgotten": FakeSource()}, child_pipe), daemon=True)
    server.start()
    for number, command in enumerate(["start", "start", "stop"]):
        pipe.send((number, command))
        assert pipe.recv()[0] == number
    assert "forgotten" not in [thread.name for thread in enumerate_threads()]
    pipe.close()
    server.join()
    child_pipe.close()


def test_gpu_readings_are_recorded_with_energy_at_both_edges(fake_nvml):
    source = GpuReadings(("GPU-0", "GPU-1"), 0.01, fake_nvml())
    rows, notes = Recording({"gpu": source}).finish()
    energy = source.columns.index("energy_j")
    energies = [row[energy] for row in table(source, rows["gpu"]) if not isnan(row[energy])]
    assert len(energies) == 4
    assert notes == []
