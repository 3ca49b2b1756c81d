"""Real traces, read once; and traces by hand, in whole microseconds.

A trace by hand is made of lines: `work` on a device, `call`s of the CPU, `step`s of the engine.
"""

import gzip
import json
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from profiles.findings import analyse
from profiles.source import read

DATA = Path(__file__).parent / "data"
NSYS = DATA / "nsys-tp2-qwen2.5-1.5b-vllm0.25.1.sqlite.xz"
TORCH_CPU = DATA / "torch-cpu-tiny-vllm0.32.0.pt.trace.json.gz"
US = 1000  # nanoseconds
GEMM, NORM, ALL_REDUCE = "nvjet_sm90_tst", "triton_red_fused_rms_norm_0", "ncclDevKernel_AllReduce"


@pytest.fixture(scope="session")
def nsys_trace():
    return read(NSYS)


@pytest.fixture(scope="session")
def nsys_findings(nsys_trace):
    return analyse(nsys_trace)


@pytest.fixture(scope="session")
def cpu_trace():
    return read(TORCH_CPU)


@dataclass
class Export:
    """Writes an export of Nsight Systems. Times are µs; process p has the one thread p."""

    kernels: list = field(default_factory=list)
    copies: list = field(default_factory=list)
    graphs: list = field(default_factory=list)
    calls: list = field(default_factory=list)
    ranges: list = field(default_factory=list)
    texts: dict = field(default_factory=dict)
    gpu_of: dict = field(default_factory=dict)  # (process, device) → GPU

    def text(self, text):
        return self.texts.setdefault(text, len(self.texts) + 1)

    def work(self, start, end, name=GEMM, *, call=0, device=0, process=1, node=None, stream=7):
        row = (start * US, end * US, device, process << 24, stream, call, node, self.text(name))
        self.kernels.append(row)
        return self

    def copy(self, start, end, *, call=0, device=0, process=1, kind=1):
        row = (start * US, end * US, device, process << 24, 7, call, None, kind)
        self.copies.append(row)
        return self

    def graph(self, start, end, *, call=0, device=0, process=1):
        self.graphs.append((start * US, end * US, device, process << 24, 7, call))
        return self

    def call(self, start, end, name="cudaLaunchKernel_v7000", *, id=0, process=1, thread=None):  # noqa: A002
        tid = (process << 24) | (thread or process)
        self.calls.append((start * US, end * US, tid, id, self.text(name)))
        return self

    def step(self, start, end, context=(0, 0), generation=(0, 0), *, process=1):
        text = f"execute_context_{context[0]}({context[1]})_generation_"
        text += f"{generation[0]}({generation[1]})"
        return self.named(start, end, text, process=process)

    def named(self, start, end, text, *, process=1):
        self.ranges.append((start * US, end * US, (process << 24) | process, text, None))
        return self

    def write(self, path):
        activity = "start, end, deviceId, globalPid, streamId, correlationId"
        call = "start, end, globalTid, correlationId, nameId"
        tables = {
            f"CUPTI_ACTIVITY_KIND_KERNEL ({activity}, graphNodeId, demangledName)": self.kernels,
            f"CUPTI_ACTIVITY_KIND_MEMCPY ({activity}, graphNodeId, copyKind)": self.copies,
            f"CUPTI_ACTIVITY_KIND_GRAPH_TRACE ({activity})": self.graphs,
            f"CUPTI_ACTIVITY_KIND_RUNTIME ({call})": self.calls,
            "NVTX_EVENTS (start, end, globalTid, text, textId)": self.ranges,
            "TARGET_INFO_CUDA_DEVICE (pid, cudaId, gpuId)": [
                (*key, gpu) for key, gpu in self.gpu_of.items()
            ],
        }
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE StringIds (id INTEGER, value TEXT)")
            connection.executemany(
                "INSERT INTO StringIds VALUES (?, ?)", [(n, text) for text, n in self.texts.items()]
            )
            for table, rows in tables.items():
                if rows:  # an export has no table without rows
                    connection.execute(f"CREATE TABLE {table}")
                    marks = ", ".join("?" * len(rows[0]))
                    connection.executemany(
                        f"INSERT INTO {table.split(' ')[0]} VALUES ({marks})", rows
                    )
        connection.close()
        return path


@pytest.fixture
def export():
    return Export()


@pytest.fixture
def traced(tmp_path):
    """The trace of an export by hand."""

    def build(export, name="made.sqlite"):
        return read(export.write(tmp_path / name))

    return build


@pytest.fixture
def found(traced):
    def build(export, name="made.sqlite"):
        return analyse(traced(export, name))

    return build


@pytest.fixture
def torch_file(tmp_path):
    """A trace of PyTorch's profiler with these events; times are µs."""

    def write(events, name="rank0.pt.trace.json.gz", **head):
        told = {"baseTimeNanoseconds": 0, "traceEvents": events, **head}
        path = tmp_path / name
        data = json.dumps(told).encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write
