import lzma
import sqlite3

import numpy as np
import pytest

from profiles.errors import BadTrace
from profiles.source import read
from profiles.trace import NOWHERE, StepKind
from tests.profiles.conftest import GEMM, NORM, NSYS


def test_both_ranks_are_read_with_all_that_they_ran(nsys_trace):
    assert [device.label for device in nsys_trace.devices] == ["GPU 0", "GPU 1"]
    assert {device.model for device in nsys_trace.devices} == {"NVIDIA H200"}
    # 28,185 kernels, 436 copies and 404 sets each; of them 25,231 nodes of graphs
    assert [len(device.activities) for device in nsys_trace.devices] == [29025, 29025]
    assert [int(device.activities.in_graph.sum()) for device in nsys_trace.devices] == [25231] * 2
    assert nsys_trace.profiler == "Nsight Systems 2025.3.2.0"
    assert len(nsys_trace.calls) == 22771
    assert len(nsys_trace.steps) == 140


def test_every_activity_has_the_call_that_launched_it_before_it_ran(nsys_trace):
    for device in nsys_trace.devices:
        call = device.activities.call
        assert np.all(call != NOWHERE)
        assert np.all(nsys_trace.calls.start_s[call] <= device.activities.start_s)
        assert set(nsys_trace.calls.process[call]) == {device.process}


def test_steps_are_read_with_their_requests_and_tokens(nsys_trace):
    first = nsys_trace.steps.of_process(nsys_trace.devices[0].process)
    assert first.kinds[:5] == [StepKind.PREFILL, *[StepKind.MIXED] * 4]
    assert first.context_tokens[:3].tolist() == [8192, 8176, 8161]
    assert first.generation_requests[1] == 16
    assert first.kinds[-1] == StepKind.EMPTY


def test_detailed_annotations_are_read_too(export, traced):
    export.work(0, 5)
    export.named(0, 5, "execute_70_context_2(sq64sk90sqsq9sqsk9)_generation_6(sq6sk900sqsq6sqsk9)")
    steps = traced(export).steps
    assert (steps.context_requests[0], steps.context_tokens[0]) == (2, 64)
    assert (steps.generation_requests[0], steps.generation_tokens[0]) == (6, 6)


def test_other_ranges_are_no_steps(export, traced):
    assert len(traced(export.work(0, 5).named(0, 5, "ncclAllReduce")).steps) == 0


def test_two_processes_that_both_say_device_0_may_mean_two_gpus(export, traced):
    export.work(0, 5, process=1).work(0, 7, process=2)
    export.gpu_of = {(1, 0): 0, (2, 0): 3}
    assert [device.label for device in traced(export).devices] == ["GPU 0", "GPU 3"]


def test_the_same_correlation_id_in_two_processes_is_two_calls(export, traced):
    export.call(0, 1, id=9, process=1).call(2, 3, id=9, process=2)
    export.work(1, 2, call=9, process=1).work(4, 5, call=9, process=2, device=1)
    one, two = traced(export).devices
    assert one.activities.call.tolist() == [0]
    assert two.activities.call.tolist() == [1]


def test_an_activity_without_a_call_says_so(export, traced):
    export.call(0, 1, id=9).work(1, 2, call=9).work(3, 4, call=8)
    assert traced(export).devices[0].activities.call.tolist() == [0, NOWHERE]


def test_graphs_traced_as_a_whole_count_as_busy_and_are_noted(export, traced):
    trace = traced(export.work(0, 5).graph(5, 100))
    assert len(trace.devices[0].activities) == 2
    assert trace.devices[0].activities.in_graph.tolist() == [False, True]
    assert "traced as a whole" in trace.notes[0]


def test_a_trace_without_calls_says_that_gaps_stay_unexplained(export, traced):
    assert any("no calls" in note for note in traced(export.work(0, 5)).notes)


def test_names_that_read_alike_are_one(export, traced):
    export.work(0, 1, f"void {GEMM}<int>(T1)").work(1, 2, f"void {GEMM}<float>(T1)").work(
        2, 3, NORM
    )
    assert traced(export).names.text == (GEMM, NORM)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.sqlite", None, "no such file"),
        ("notes.txt", b"hello", "no trace by its name"),
        ("junk.sqlite", b"x" * 4096, "no SQLite export"),
        ("cut.sqlite.xz", NSYS.read_bytes()[:5000], "cannot be unpacked"),
        ("junk.sqlite.gz", b"hello", "cannot be unpacked"),
        ("junk.json", b"hello", "no JSON that can be read"),
        ("list.json", b"[]", "no trace of the PyTorch profiler"),
        ("empty.json", b'{"traceEvents": []}', "neither GPU work nor operators"),
    ],
)
def test_what_is_no_trace_is_refused_in_one_sentence(tmp_path, name, content, says):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadTrace, match=says) as refusal:
        read(path)
    assert "\n" not in str(refusal.value)


def test_another_sqlite_file_is_no_export(tmp_path):
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        connection.execute("CREATE TABLE cats (name)")
    connection.close()
    with pytest.raises(BadTrace, match="no export of Nsight Systems"):
        read(tmp_path / "other.sqlite")


def test_a_capture_that_saw_no_gpu_work_is_empty(export, tmp_path):
    export.text("a name")
    with pytest.raises(BadTrace, match="the capture was empty"):
        read(export.write(tmp_path / "empty.sqlite"))


def test_packed_and_plain_are_the_same(tmp_path, export):
    plain = export.work(0, 5).work(7, 9).write(tmp_path / "a.sqlite")
    packed = tmp_path / "b.sqlite.xz"
    packed.write_bytes(lzma.compress(plain.read_bytes()))
    one, two = read(plain), read(packed)
    assert one.devices[0].activities.end_s.tolist() == two.devices[0].activities.end_s.tolist()
