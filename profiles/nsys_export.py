"""Reads the SQLite export of Nsight Systems.

It takes from it: kernels, copies and sets, including graph nodes (one row each if the capture was
made with --cuda-graph-trace=node); graphs that were traced as a whole; calls of the CUDA API; NVTX
ranges of engine steps; and which GPU a process's device number refers to. An export lacks tables
that nothing was written to, so each is checked for. Its times are in nanoseconds.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

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
    Steps,
    Trace,
    is_step,
    launcher,
    steps_of,
)

ROWS_AT_ONCE = 50_000  # so that millions of rows are never held as Python numbers at once
PROCESS_SHIFT = 24  # a global thread id is host, process (24 bits), thread (24 bits)
THREAD_BITS = 0xFFFFFF
ERROR = 3  # the severity of diagnostics that are errors


@dataclass(frozen=True, slots=True)
class Table:
    """The table in which an export keeps one sort of activity, and what names its rows."""

    name: str
    named_by: str
    graph_node: bool = True  # whether its rows may be nodes of a graph


TABLES = (
    Table("CUPTI_ACTIVITY_KIND_KERNEL", "demangledName"),
    Table("CUPTI_ACTIVITY_KIND_MEMCPY", "copyKind"),
    Table("CUPTI_ACTIVITY_KIND_MEMSET", "0"),
    Table("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", "0", graph_node=False),
)
KERNEL, MEMCPY, MEMSET, GRAPH = range(len(TABLES))


def read(path: Path) -> Trace:
    """The trace in an export. Raises BadTrace."""
    with _opened(path) as export:
        export.check()
        pool = NamePool()
        rows = export.activities(pool)
        calls, correlations, call_names = export.calls()
        devices = export.devices(rows, calls, correlations)
        return Trace(
            source=path.name,
            profiler=export.profiler(),
            names=pool.names(),
            devices=devices,
            calls=calls,
            call_names=call_names,
            steps=export.steps(),
            notes=export.notes(rows, calls),
        )


@contextmanager
def _opened(path: Path) -> Iterator["Export"]:
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            yield Export(path, connection)
    except sqlite3.Error as error:
        raise BadTrace(f"{path}: no SQLite export that can be read ({error})") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """All activities as they are in the export; each column (n,)."""

    start_ns: Ints
    end_ns: Ints
    device: Ints  # as numbered by its process
    process: Ints
    stream: Ints
    correlation: Ints
    in_graph: Ints
    name: Ints
    num_whole_graphs: int


@dataclass(slots=True)
class Export:
    """An open export."""

    path: Path
    connection: sqlite3.Connection

    def check(self) -> None:
        if not self._columns("StringIds"):
            raise BadTrace(f"{self.path}: an SQLite file, but no export of Nsight Systems")
        if not any(self._columns(table.name) for table in TABLES):
            raise BadTrace(
                f"{self.path}: no GPU work in it; the capture was empty (was the server busy"
                " between /start_profile and /stop_profile, and CUDA traced with -t cuda?)"
            )

    def activities(self, pool: NamePool) -> Rows:
        parts, names, num_whole_graphs = [], [], 0
        for index, table in enumerate(TABLES):
            columns = self._columns(table.name)
            if not columns:
                continue
            in_graph = "graphNodeId IS NOT NULL" if "graphNodeId" in columns else "0"
            part = self._numbers(
                "SELECT start, end, deviceId, globalPid, streamId, coalesce(correlationId, 0),"
                f" {in_graph if table.graph_node else 1}, {table.named_by} FROM {table.name}"
                " WHERE end >= start",
                columns=8,
            )
            names.append(self._named(index, part[:, 7], pool))
            parts.append(part)
            num_whole_graphs += len(part) * (index == GRAPH)
        table_of_all = np.concatenate(parts)
        start_ns, end_ns, device, process, stream, correlation, in_graph = table_of_all[:, :7].T
        return Rows(
            start_ns=start_ns,
            end_ns=end_ns,
            device=device,
            process=process >> PROCESS_SHIFT,
            stream=stream,
            correlation=correlation,
            in_graph=in_graph,
            name=np.concatenate(names),
            num_whole_graphs=num_whole_graphs,
        )

    def _named(self, table: int, ids: Ints, pool: NamePool) -> Ints:
        """The rows' names, as numbers of the pool."""
        each, place = np.unique(ids, return_inverse=True)
        if table == KERNEL:
            texts = self._texts(each)
            numbers = [pool.number(texts.get(int(one), "unnamed kernel")) for one in each]
        elif table == MEMCPY:
            kinds = self._labels("ENUM_CUDA_MEMCPY_OPER")
            numbers = [
                pool.number(f"memcpy {kinds.get(int(one), '')}".strip(), KernelClass.COPY)
                for one in each
            ]
        elif table == MEMSET:
            numbers = [pool.number("memset", KernelClass.COPY) for _ in each]
        else:
            numbers = [pool.number("CUDA graph", KernelClass.GRAPH) for _ in each]
        return np.array(numbers, np.int64)[place]

    def calls(self) -> tuple[Calls, Ints, tuple[str, ...]]:
        """The calls of the CUDA API in order of start, their correlation ids, and their names."""
        table = "CUPTI_ACTIVITY_KIND_RUNTIME"
        rows = np.empty((0, 5), np.int64)
        if self._columns(table):
            rows = self._numbers(
                "SELECT start, end, globalTid, coalesce(correlationId, 0), nameId"
                f" FROM {table} WHERE end >= start ORDER BY start",
                columns=5,
            )
        each, name = np.unique(rows[:, 4], return_inverse=True)
        texts = self._texts(each)
        names = tuple(re.sub(r"_v\d+$", "", texts.get(int(one), "?")) for one in each)
        calls = Calls(
            start_s=_seconds(rows[:, 0]),
            end_s=_seconds(rows[:, 1]),
            name=name.astype(np.int64),
            process=rows[:, 2] >> PROCESS_SHIFT,
            thread=rows[:, 2] & THREAD_BITS,
        )
        return calls, rows[:, 3].copy(), names

    def devices(self, rows: Rows, calls: Calls, correlations: Ints) -> tuple[Device, ...]:
        call = _caused_by(rows, calls, correlations)
        gpus, models = self._gpus(), self._models()
        pairs, place = np.unique(
            np.column_stack((rows.process, rows.device)), axis=0, return_inverse=True
        )
        gpu_of_pair = [
            gpus.get((int(process) & THREAD_BITS, int(device)), int(device))
            for process, device in pairs
        ]
        gpu = np.array(gpu_of_pair, np.int64)[place.ravel()]
        return tuple(
            _device(rows, call, np.flatnonzero(gpu == index), calls, index, models.get(index))
            for index in sorted(set(gpu_of_pair))
        )

    def _gpus(self) -> dict[tuple[int, int], int]:
        """(process, device as numbered by it) → GPU."""
        if not self._columns("TARGET_INFO_CUDA_DEVICE"):
            return {}
        rows = self._fetch("SELECT pid, cudaId, gpuId FROM TARGET_INFO_CUDA_DEVICE")
        return {(pid, device): gpu for pid, device, gpu in rows if gpu is not None}

    def _models(self) -> dict[int, str]:
        if not self._columns("TARGET_INFO_GPU"):
            return {}
        return dict(self._fetch("SELECT id, name FROM TARGET_INFO_GPU"))

    def steps(self) -> Steps:
        rows: list[StepRow] = []
        if self._columns("NVTX_EVENTS"):
            rows = [
                (start * 1e-9, end * 1e-9, tid >> PROCESS_SHIFT, text)
                for start, end, tid, text in self._fetch(
                    "SELECT start, end, globalTid, coalesce(text, value) FROM NVTX_EVENTS"
                    " LEFT JOIN StringIds ON id = textId WHERE end >= start"
                )
                if text is not None and is_step(text)
            ]
        return steps_of(rows)

    def profiler(self) -> str:
        version = None
        if self._columns("META_DATA_EXPORT"):
            meta = dict(self._fetch("SELECT name, value FROM META_DATA_EXPORT"))
            version = meta.get("EXPORT_PRODUCT_VERSION")
        return f"Nsight Systems {version}" if version else "Nsight Systems"

    def notes(self, rows: Rows, calls: Calls) -> tuple[str, ...]:
        notes = []
        if rows.num_whole_graphs:
            notes.append(
                f"{rows.num_whole_graphs} CUDA graphs were traced as a whole: what ran inside them,"
                " and the gaps there, are not known (capture with --cuda-graph-trace=node)"
            )
        if not len(calls):
            notes.append("no calls of the CUDA API in the trace: no gap can be explained by them")
        if self._columns("DIAGNOSTIC_EVENT"):
            errors = self._fetch(f"SELECT text FROM DIAGNOSTIC_EVENT WHERE severity = {ERROR}")
            notes += [f"Nsight Systems reports: {text}" for (text,) in errors]
        return tuple(notes)

    def _fetch(self, query: str) -> list[tuple]:  # type: ignore[type-arg]
        return self.connection.execute(query).fetchall()

    def _columns(self, table: str) -> set[str]:
        """The names of a table's columns; empty if there is no such table."""
        return {row[1] for row in self._fetch(f"PRAGMA table_info({table})")}

    def _numbers(self, query: str, columns: int) -> Ints:
        """Rows of whole numbers, (n, columns)."""
        cursor = self.connection.execute(query)
        parts = [np.empty((0, columns), np.int64)]
        while chunk := cursor.fetchmany(ROWS_AT_ONCE):
            parts.append(np.array(chunk, np.int64))
        return np.concatenate(parts)

    def _texts(self, ids: Ints) -> dict[int, str]:
        wanted = {int(one) for one in ids}
        rows = self.connection.execute("SELECT id, value FROM StringIds")
        return {number: text for number, text in rows if number in wanted}

    def _labels(self, table: str) -> dict[int, str]:
        return dict(self._fetch(f"SELECT id, label FROM {table}")) if self._columns(table) else {}


def _seconds(nanoseconds: Ints) -> Floats:
    return nanoseconds.astype(np.float64) * 1e-9


def _caused_by(rows: Rows, calls: Calls, correlations: Ints) -> Ints:
    """For each activity, the call with the same process and correlation id."""
    if not len(calls):
        return np.full(len(rows.start_ns), NOWHERE)
    processes = np.unique(np.concatenate((rows.process, calls.process)))
    call_key = _key(processes, calls.process, correlations)
    order = np.argsort(call_key, kind="stable")  # of calls with the same id, the first is the outer
    sorted_key = call_key[order]
    key = _key(processes, rows.process, rows.correlation)
    place = np.minimum(np.searchsorted(sorted_key, key), len(order) - 1)
    found = (sorted_key[place] == key) & (rows.correlation != 0)
    return np.where(found, order[place], NOWHERE)


def _key(processes: Ints, process: Ints, correlation: Ints) -> Ints:
    return (np.searchsorted(processes, process) << 40) | correlation


def _device(
    rows: Rows, call: Ints, mine: Ints, calls: Calls, index: int, model: str | None
) -> Device:
    mine = mine[np.argsort(rows.start_ns[mine], kind="stable")]
    start_s, end_s = _seconds(rows.start_ns[mine]), _seconds(rows.end_ns[mine])
    activities = Activities(
        start_s=start_s,
        end_s=end_s,
        self_s=end_s - start_s,
        name=rows.name[mine],
        stream=rows.stream[mine],
        in_graph=rows.in_graph[mine].astype(bool),
        call=call[mine],
    )
    process, thread = launcher(activities, calls)
    device = Device(
        label=f"GPU {index}",
        model=model,
        is_gpu=True,
        process=process,
        thread=thread,
        activities=activities,
    )
    if process == NOWHERE:  # no calls: take the process that most rows name
        each, counts = np.unique(rows.process[mine], return_counts=True)
        return replace(device, process=int(each[counts.argmax()]))
    return device
