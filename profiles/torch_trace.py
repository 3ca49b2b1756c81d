"""Reads the Chrome traces of PyTorch's profiler, one file per rank, as vLLM writes them.

With a GPU, kernels, copies and sets are the activities, and cuda_runtime and cuda_driver events the
calls; correlation ids join them. Without one, operators on the CPU are the activities. Operators
call operators, so each has its own time (`self_s`) besides its length. Engine steps are user
annotations. Times in the files are in microseconds.
"""

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from profiles.errors import BadTrace
from profiles.intervals import Floats, Ints
from profiles.kernels import KernelClass
from profiles.trace import (
    NOWHERE,
    Activities,
    Calls,
    Device,
    NamePool,
    StepRow,
    Trace,
    launcher,
    steps_of,
)

GPU_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")
CALL_CATEGORIES = ("cuda_runtime", "cuda_driver")
GRAPH_LAUNCH = "GraphLaunch"

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """An activity, before it goes into the columns."""

    start_s: float
    end_s: float
    name: int
    stream: int
    in_graph: bool
    call: int


@dataclass(slots=True)
class Reading:
    """What has been read from the files so far."""

    pool: NamePool = field(default_factory=NamePool)
    gpu_rows: dict[int, list[Row]] = field(default_factory=dict)
    models: dict[int, str] = field(default_factory=dict)
    operators: dict[int, list[Event]] = field(default_factory=dict)  # by rank
    calls: list[tuple[float, float, int, int, int]] = field(default_factory=list)
    call_names: dict[str, int] = field(default_factory=dict)
    steps: list[StepRow] = field(default_factory=list)
    zero_s: float | None = None  # UTC of the first file's first event
    version: str = ""

    def add(self, told: dict[str, Any], process: int) -> None:
        events = [event for event in told["traceEvents"] if event.get("ph") == "X"]
        if not events:
            return
        base_s = told.get("baseTimeNanoseconds", 0) * 1e-9
        first_us = min(event["ts"] for event in events)
        if self.zero_s is None:
            self.zero_s = base_s + first_us * 1e-6
        shift_us = (base_s - self.zero_s) * 1e6
        for event in events:
            event["ts"] = event["ts"] + shift_us
        by_category: dict[str, list[Event]] = {}
        for event in events:
            by_category.setdefault(event.get("cat", ""), []).append(event)
        self._add_steps(by_category.get("user_annotation", []), process)
        if any(by_category.get(category) for category in GPU_CATEGORIES):
            self._add_gpu(by_category, process)
            for device in told.get("deviceProperties", []):
                self.models[device["id"]] = device["name"]
        elif operators := by_category.get("cpu_op"):
            rank = told.get("distributedInfo", {}).get("rank", process)
            self.operators.setdefault(rank, []).extend(operators)
            for event in operators:
                event["process"] = process
        if version := told.get("vllm_version"):
            self.version = f" of vLLM {version}"

    def _add_steps(self, annotations: Iterable[Event], process: int) -> None:
        self.steps += [(*_span_s(event), process, event["name"]) for event in annotations]

    def _add_gpu(self, by_category: dict[str, list[Event]], process: int) -> None:
        by_correlation: dict[int, int] = {}
        graph_launches = set()
        for category in CALL_CATEGORIES:
            for event in by_category.get(category, ()):
                correlation = event.get("args", {}).get("correlation")
                if correlation is not None:
                    by_correlation.setdefault(correlation, len(self.calls))
                if GRAPH_LAUNCH in event["name"]:
                    graph_launches.add(len(self.calls))
                name = self.call_names.setdefault(event["name"], len(self.call_names))
                self.calls.append((*_span_s(event), name, process, _number(event["tid"])))
        for category in GPU_CATEGORIES:
            klass = None if category == "kernel" else KernelClass.COPY
            for event in by_category.get(category, ()):
                args = event.get("args", {})
                call = by_correlation.get(args.get("correlation"), NOWHERE)
                row = Row(
                    *_span_s(event),
                    name=self.pool.number(event["name"], klass),
                    stream=_number(args.get("stream", event["tid"])),
                    in_graph=call in graph_launches,
                    call=call,
                )
                self.gpu_rows.setdefault(args.get("device", event["pid"]), []).append(row)

    def trace(self, source: str) -> Trace:
        """Everything read, as one trace."""
        calls, order = self._calls()
        devices = [
            self._gpu(index, rows, calls, order) for index, rows in sorted(self.gpu_rows.items())
        ]
        devices += [self._cpu(rank, events) for rank, events in sorted(self.operators.items())]
        if not devices:
            raise BadTrace(
                f"{source}: neither GPU work nor operators in it; the capture was empty (was the"
                " server busy between /start_profile and /stop_profile?)"
            )
        return Trace(
            source=source,
            profiler=f"the PyTorch profiler{self.version}",
            names=self.pool.names(),
            devices=tuple(devices),
            calls=calls,
            call_names=tuple(self.call_names),
            steps=steps_of(self.steps),
            notes=self._notes(),
        )

    def _calls(self) -> tuple[Calls, dict[int, int]]:
        """The calls in order of start, and the new index of each old one."""
        table = np.array(self.calls, np.float64).reshape(-1, 5)
        by_start = np.argsort(table[:, 0], kind="stable")
        table = table[by_start]
        calls = Calls(
            start_s=table[:, 0],
            end_s=table[:, 1],
            name=table[:, 2].astype(np.int64),
            process=table[:, 3].astype(np.int64),
            thread=table[:, 4].astype(np.int64),
        )
        moved_to = {int(old): new for new, old in enumerate(by_start)}
        return calls, moved_to | {NOWHERE: NOWHERE}

    def _gpu(self, index: int, rows: list[Row], calls: Calls, moved_to: dict[int, int]) -> Device:
        rows.sort(key=lambda row: row.start_s)
        start_s = np.array([row.start_s for row in rows])
        end_s = np.array([row.end_s for row in rows])
        activities = Activities(
            start_s=start_s,
            end_s=end_s,
            self_s=end_s - start_s,
            name=np.array([row.name for row in rows], np.int64),
            stream=np.array([row.stream for row in rows], np.int64),
            in_graph=np.array([row.in_graph for row in rows], np.bool_),
            call=np.array([moved_to[row.call] for row in rows], np.int64),
        )
        process, thread = launcher(activities, calls)
        return Device(
            label=f"GPU {index}",
            model=self.models.get(index),
            is_gpu=True,
            process=process,
            thread=thread,
            activities=activities,
        )

    def _cpu(self, rank: int, events: list[Event]) -> Device:
        events.sort(key=lambda event: (event["ts"], -event.get("dur", 0.0)))
        spans = np.array([_span_s(event) for event in events])
        threads = np.array([_number(event["tid"]) for event in events], np.int64)
        activities = Activities(
            start_s=spans[:, 0],
            end_s=spans[:, 1],
            self_s=own_s(spans[:, 0], spans[:, 1], threads),
            name=np.array([self.pool.number(event["name"]) for event in events], np.int64),
            stream=threads,
            in_graph=np.zeros(len(events), np.bool_),
            call=np.full(len(events), NOWHERE),
        )
        return Device(
            label=f"CPU of rank {rank}",
            model=None,
            is_gpu=False,
            process=events[0]["process"],
            thread=int(threads[0]),
            activities=activities,
        )

    def _notes(self) -> tuple[str, ...]:
        if self.gpu_rows:
            return ()
        return (
            "no GPU in this trace: what follows are PyTorch operators on the CPU, and idle time is"
            " time in which the process ran none (Python, scheduling, waiting)",
        )


def read(paths: Sequence[Path], source: str) -> Trace:
    """The trace in the files of one capture, one per rank. Raises BadTrace."""
    reading = Reading()
    for process, path in enumerate(paths):
        reading.add(_loaded(path), process)
    return reading.trace(source)


def own_s(start_s: Floats, end_s: Floats, thread: Ints) -> Floats:
    """The length of each operator, minus what it calls on the same thread.

    They must be in order of start, the longest first.
    """
    own = (end_s - start_s).tolist()
    starts, ends = start_s.tolist(), end_s.tolist()
    open_on: dict[int, list[int]] = {}
    for index, on in enumerate(thread.tolist()):
        stack = open_on.setdefault(on, [])
        while stack and ends[stack[-1]] <= starts[index]:
            stack.pop()
        if stack:
            own[stack[-1]] -= ends[index] - starts[index]
        stack.append(index)
    return np.maximum(np.array(own, np.float64), 0.0)


def _loaded(path: Path) -> dict[str, Any]:
    opened = gzip.open if path.name.endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            told = json.load(file)
    except (OSError, EOFError, ValueError) as error:
        raise BadTrace(f"{path}: no JSON that can be read ({error})") from None
    if not isinstance(told, dict) or not isinstance(told.get("traceEvents"), list):
        raise BadTrace(f"{path}: JSON, but no trace of the PyTorch profiler (no traceEvents)")
    return told


def _span_s(event: Event) -> tuple[float, float]:
    start_us = float(event["ts"])
    return start_us * 1e-6, (start_us + float(event.get("dur", 0.0))) * 1e-6


def _number(thread: Any) -> int:
    """A number for a thread or stream; most are numbers already."""
    return thread if isinstance(thread, int) else abs(hash(str(thread))) % 2**31
