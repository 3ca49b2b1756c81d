"""CPU and memory of a server's process tree, or of the trees of its replicas."""

from collections.abc import Iterator, Sequence
from math import nan
from pathlib import PurePath
from time import perf_counter

import psutil

ROLES = ("other", "api_server", "engine_core", "worker")
TITLES = {"::APIServer": "api_server", "::EngineCore": "engine_core", "::Worker": "worker"}


def role(cmdline: Sequence[str]) -> str:
    """The role of a process in a vLLM tree, by its command line.

    vLLM's children rename themselves ("VLLM::EngineCore_DP0"). Its root keeps its command line, and
    may be the child of a profiler whose arguments contain that command line.
    """
    title = " ".join(cmdline)
    for mark, name in TITLES.items():
        if mark in title:
            return name
    if not cmdline or PurePath(cmdline[0]).name in ("nsys", "ncu"):
        return "other"
    words = {PurePath(word).name for word in cmdline}
    serves = "serve" in words and words & {"vllm", "vllm.entrypoints.cli.main"}
    return "api_server" if serves or "vllm.entrypoints.openai.api_server" in words else "other"


def tree_pids(root_pid: int) -> frozenset[int]:
    """The process and all its descendants; empty if it is gone."""
    try:
        return frozenset(process.pid for process in _tree(root_pid))
    except psutil.NoSuchProcess:
        return frozenset()


class ProcessTree:
    """Source `host`: one row per process of the trees, including children that start later.

    cpu_frac = CPU seconds / seconds since the last sample, so 1.0 is one core; NaN in the first.
    """

    columns: tuple[str, ...] = ("at_s", "pid", "role", "cpu_frac", "rss_bytes")

    def __init__(self, root_pids: Sequence[int], interval_s: float) -> None:
        self.interval_s = interval_s
        self.notes: list[str] = []
        self._root_pids = tuple(root_pids)
        self._read_before: dict[psutil.Process, tuple[float, float]] = {}  # at_s, CPU seconds

    def sample(self, *, edge: bool) -> Iterator[tuple[float, ...]]:  # noqa: ARG002
        at_s = perf_counter()  # one stamp for all processes, so that their memory can be summed
        read: dict[psutil.Process, tuple[float, float]] = {}
        # A list, so that if a root is gone this raises before the other trees have yielded a row.
        for process in [process for pid in self._root_pids for process in _tree(pid)]:
            try:
                times = process.cpu_times()
                now_s, cpu_s = perf_counter(), times.user + times.system
                code = ROLES.index(role(process.cmdline()))
                rss_bytes = process.memory_info().rss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it ended after the tree was listed
            before_at_s, before_cpu_s = self._read_before.get(process, (nan, nan))
            read[process] = now_s, cpu_s
            cpu_frac = (cpu_s - before_cpu_s) / (now_s - before_at_s)
            yield at_s, process.pid, code, cpu_frac, rss_bytes
        self._read_before = read


def _tree(root_pid: int) -> list[psutil.Process]:
    root = psutil.Process(root_pid)
    return [root, *root.children(recursive=True)]
