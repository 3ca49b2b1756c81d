"""The sampler process, as its parent sees it: started with a launch, it makes a recording per run.

It is a separate process so that the load generator and the harness do not delay it, nor it them. It
ends when its pipe closes, so it cannot outlive its parent, however that dies.
"""

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from monitors.config import Monitor
from monitors.host import ROLES, ProcessTree
from monitors.nvml import GpuReadings
from monitors.recorder import TIMING, Source, serve
from monitors.vllm_metrics import VllmMetrics

Columns = dict[str, npt.NDArray[Any]]

REPLY_TIMEOUT_S = 10.0  # the first reply waits for the process to start
EXIT_TIMEOUT_S = 1.0
# How long one source's thread may hold the interpreter while another waits. Parsing a page takes
# longer than this.
SWITCH_INTERVAL_S = 0.0005
SOURCES: Mapping[str, type[Source]] = {
    "gpu": GpuReadings,
    "server": VllmMetrics,
    "host": ProcessTree,
}
INTEGERS = ("gpu", "throttle_reasons", "pid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What to sample; with replicas, the pages and process trees of all of them.

    `metrics_headers` go with every request for a page. They may hold secrets, and are never shown.
    """

    gpu_uuids: tuple[str, ...] = ()
    metrics_urls: tuple[str, ...] = ()
    metrics_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    root_pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One recording: columns of equal length for each source, and a sentence for each problem."""

    gpu: Columns
    server: Columns
    host: Columns
    notes: tuple[str, ...]


class Sampler:
    """Context manager over one sampler process; `start` and `stop` enclose each recording."""

    def __init__(self, config: Monitor, targets: Targets) -> None:
        self._enabled = config.enabled
        self._sources: dict[str, Source] = {}
        self._absent: list[str] = []
        if targets.gpu_uuids:
            self._sources["gpu"] = GpuReadings(targets.gpu_uuids, config.gpu_interval_s)
        else:
            self._absent.append("gpu: not sampled, there is none to watch")
        if targets.metrics_urls:
            self._sources["server"] = VllmMetrics(
                targets.metrics_urls, config.server_interval_s, targets.metrics_headers
            )
        else:
            self._absent.append("server: not sampled, no /metrics URL was given")
        if targets.root_pids:
            self._sources["host"] = ProcessTree(targets.root_pids, config.host_interval_s)
        else:
            self._absent.append("host: not sampled, no server process was given")
        self._asked = 0

    def __enter__(self) -> Self:
        context = get_context("spawn")
        self._pipe, child_pipe = context.Pipe()
        self._process = context.Process(
            target=_process, args=(self._sources, child_pipe), name="sampler", daemon=True
        )
        if self._enabled:
            with _interrupts_blocked():
                self._process.start()
        child_pipe.close()  # else the pipe would not close with the child
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        if not self._enabled:
            return
        self._process.join(EXIT_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(EXIT_TIMEOUT_S)

    def start(self) -> None:
        """Begin a recording; returns once the threads run."""
        if self._enabled:
            self._ask("start")

    def stop(self) -> Samples:
        """End the recording, and return its samples. A dead sampler is a note, not an error."""
        if not self._enabled:
            return samples({}, ["monitoring was switched off (monitor.enabled)"])
        reply = self._ask("stop")
        if reply is None:
            self._process.join(EXIT_TIMEOUT_S)  # its pipe closes a moment before it exits
            code = self._process.exitcode
            fate = "did not answer" if code is None else f"died, exit code {code}"
            return samples({}, [f"the sampler process {fate}: this run has no samples"])
        rows, notes = reply
        return samples(rows, [*self._absent, *notes])

    def _ask(self, command: str) -> Any:
        """The reply to `command`; None if none comes. Late replies to others are dropped."""
        self._asked += 1
        deadline_s = perf_counter() + REPLY_TIMEOUT_S
        try:
            self._pipe.send((self._asked, command))
            while self._pipe.poll(max(0.0, deadline_s - perf_counter())):
                number, reply = self._pipe.recv()
                if number == self._asked:
                    return reply
        except (EOFError, OSError):
            pass
        return None


def column_names(source: str) -> tuple[str, ...]:
    """The columns of a source's recording."""
    return (*SOURCES[source].columns, *TIMING)


def samples(rows: Mapping[str, bytes], notes: list[str]) -> Samples:
    """Samples from the recorder's float64 rows, as typed columns; absent sources are empty."""
    return Samples(
        **{name: _columns(column_names(name), rows.get(name, b"")) for name in SOURCES},
        notes=tuple(notes),
    )


def completed(source: str, columns: Columns) -> Columns:
    """A recording with all columns; those that did not exist when it was made are NaN."""
    if not columns:
        return _columns(column_names(source), b"")
    unknown = np.full(len(columns["at_s"]), np.nan)
    return {name: columns.get(name, unknown) for name in column_names(source)}


def _process(sources: Mapping[str, Source], pipe: Connection) -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    serve(sources, pipe)


def _columns(names: tuple[str, ...], rows: bytes) -> Columns:
    table = np.frombuffer(rows).reshape(-1, len(names))
    columns: Columns = {}
    for name, values in zip(names, table.T, strict=True):
        if name == "role":
            columns[name] = np.array(ROLES)[values.astype(np.int64)]
        else:
            columns[name] = values.astype(np.int64 if name in INTEGERS else np.float64)
    return columns


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT, so that a child started here never sees Ctrl-C: the parent handles it."""
    # Otherwise `process.start()` would start the tracker, and that unblocks SIGINT again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
