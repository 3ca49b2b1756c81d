import numpy as np
import pytest

from profiles.errors import BadTrace
from profiles.findings import analyse
from profiles.intervals import covered_s
from profiles.source import read
from profiles.torch_trace import own_s
from tests.profiles.conftest import GEMM

STEP = "execute_context_0(0)_generation_4(4)"


def event(cat, name, ts, dur, **args):
    where = {"pid": args.pop("pid", 1), "tid": args.pop("tid", 1)}
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "args": args, **where}


def gpu_events(device=0, shift=0):
    """A kernel that was launched by itself, and two nodes of a graph, 20 µs later."""
    return [
        event("user_annotation", STEP, shift + 0, 30),
        event("cuda_runtime", "cudaLaunchKernel", shift + 1, 4, correlation=5),
        event(
            "kernel", f"void {GEMM}<int>()", shift + 10, 5, device=device, stream=7, correlation=5
        ),
        event("cuda_runtime", "cudaGraphLaunch", shift + 20, 15, correlation=6),
        event("kernel", GEMM, shift + 36, 2, device=device, stream=7, correlation=6),
        event("kernel", GEMM, shift + 40, 2, device=device, stream=7, correlation=6),
        event("gpu_memcpy", "Memcpy DtoH", shift + 43, 1, device=device, stream=7, correlation=7),
        {"ph": "i", "name": "a mark", "ts": 0},
    ]


def test_gpu_work_is_joined_with_the_calls_that_launched_it(torch_file):
    path = torch_file(gpu_events(), deviceProperties=[{"id": 0, "name": "NVIDIA H200"}])
    trace = read(path)
    device = trace.devices[0]
    assert (device.label, device.model, device.is_gpu) == ("GPU 0", "NVIDIA H200", True)
    assert device.activities.in_graph.tolist() == [False, True, True, False]
    assert device.activities.call.tolist() == [0, 1, 1, -1]
    assert trace.call_names == ("cudaLaunchKernel", "cudaGraphLaunch")
    told = analyse(trace).devices[0]
    assert told.busy_s == pytest.approx(10e-6)
    # 15 to 35 µs: the graph's launch was not through before; from there on it is the GPU's own
    assert told.waits.cpu_s == pytest.approx(20e-6)
    assert told.step_kinds[0].kind == "decode"


def test_a_folder_is_one_capture_with_a_file_for_each_rank(torch_file, tmp_path):
    torch_file(gpu_events(0), "rank0.json.gz", baseTimeNanoseconds=1_000_000)
    torch_file(gpu_events(1), "rank1.json", baseTimeNanoseconds=1_003_000)
    torch_file([], "api_server.json.gz")
    zero, one = read(tmp_path).devices
    assert (zero.label, one.label) == ("GPU 0", "GPU 1")
    assert one.activities.start_s - zero.activities.start_s == pytest.approx(3e-6)
    assert zero.process != one.process


def test_a_folder_without_traces_is_refused(tmp_path):
    with pytest.raises(BadTrace, match="a folder without a trace"):
        read(tmp_path)


def test_a_trace_of_the_cpu_build_is_one_of_operators_and_says_so(cpu_trace):
    device = cpu_trace.devices[0]
    assert (device.label, device.is_gpu) == ("CPU of rank 0", False)
    assert "no GPU in this trace" in cpu_trace.notes[0]
    told = analyse(cpu_trace).devices[0]
    assert told.waits is None
    assert told.launches == ()
    assert [(group.kind, group.num_steps) for group in told.step_kinds] == [
        ("prefill", 1),
        ("mixed", 1),
        ("decode", 8),
    ]


def test_the_operators_own_times_are_the_time_in_which_any_of_them_ran(cpu_trace):
    activities = cpu_trace.devices[0].activities
    busy_s = covered_s(activities.intervals)
    assert activities.self_s.sum() == pytest.approx(busy_s, rel=1e-3)
    assert (activities.end_s - activities.start_s).sum() > 1.2 * busy_s  # operators call operators


def test_what_an_operator_calls_is_not_its_own_time_nor_is_what_other_threads_do():
    start = np.array([0.0, 1.0, 2.0, 4.0, 5.0])
    end = np.array([10.0, 4.0, 3.0, 6.0, 7.0])
    thread = np.array([1, 1, 1, 1, 2])
    assert own_s(start, end, thread).tolist() == [5.0, 2.0, 1.0, 2.0, 2.0]
