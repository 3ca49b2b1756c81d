"""A trace of any profiler: what each device ran, what the CPU called, and the engine steps.

Times are seconds from the trace's own zero, on one clock for all devices and threads. Tables are
columns of equal length, in order of start. An index that points at nothing is NOWHERE: for an
activity whose call is not in the trace, or that no engine step launched.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from profiles.intervals import Bools, Floats, Intervals, Ints
from profiles.kernels import CLASSES, KernelClass, classify, readable

NOWHERE = -1
# vLLM writes execute_context_<requests>(<tokens>)_generation_<requests>(<tokens>), or with details
# execute_<tokens>_context_<requests>(sq<tokens>sk…)_generation_<requests>(sq<tokens>sk…).
_STEP = re.compile(
    r"execute_(?:\d+_)?context_(\d+)\((?:sq)?(\d+)[^)]*\)_generation_(\d+)\((?:sq)?(\d+)[^)]*\)"
)


class StepKind(StrEnum):
    PREFILL = "prefill"
    DECODE = "decode"
    MIXED = "mixed"
    EMPTY = "empty"  # vLLM runs some without a request, e.g. after the last one


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names of what ran: `text[i]` is for people, `class_id[i]` an index into CLASSES."""

    text: tuple[str, ...]
    class_id: Ints

    @property
    def of_class(self) -> dict[KernelClass, Bools]:
        return {klass: self.class_id == index for index, klass in enumerate(CLASSES)}


@dataclass(slots=True)
class NamePool:
    """Numbers the names while a trace is read."""

    _known: dict[tuple[str, KernelClass], int] = field(default_factory=dict)

    def number(self, name: str, klass: KernelClass | None = None) -> int:
        """The number of a full name; those with the same readable name and class share one."""
        key = (readable(name), klass or classify(name))
        return self._known.setdefault(key, len(self._known))

    def names(self) -> Names:
        text = tuple(name for name, _ in self._known)
        ids = [CLASSES.index(klass) for _, klass in self._known]
        return Names(text=text, class_id=np.array(ids, np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Activities:
    """Kernels, copies and sets of a device, or operators of a CPU; each column (n,)."""

    start_s: Floats
    end_s: Floats
    self_s: Floats  # without the operators it calls; on a GPU there are none
    name: Ints  # index into Names
    stream: Ints
    in_graph: Bools  # whether it is a node of a CUDA graph
    call: Ints  # index into Calls of what launched it; all nodes of a graph share one

    @property
    def intervals(self) -> Intervals:
        return Intervals(self.start_s, self.end_s)

    def __len__(self) -> int:
        return len(self.start_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Calls of the CUDA API by all processes; each column (n,)."""

    start_s: Floats
    end_s: Floats
    name: Ints  # index into Trace.call_names
    process: Ints
    thread: Ints

    def __len__(self) -> int:
        return len(self.start_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Engine steps as ranges on the CPU, of all processes; each column (n,)."""

    start_s: Floats
    end_s: Floats
    process: Ints
    context_requests: Ints
    context_tokens: Ints
    generation_requests: Ints
    generation_tokens: Ints

    def __len__(self) -> int:
        return len(self.start_s)

    def of_process(self, process: int) -> "Steps":
        mine = self.process == process
        return Steps(**{name: getattr(self, name)[mine] for name in self.__slots__})

    @property
    def kinds(self) -> list[StepKind]:
        table = {
            (False, False): StepKind.EMPTY,
            (True, False): StepKind.PREFILL,
            (False, True): StepKind.DECODE,
            (True, True): StepKind.MIXED,
        }
        context, generation = self.context_requests > 0, self.generation_requests > 0
        return [table[bool(c), bool(g)] for c, g in zip(context, generation, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU, or a process whose operators ran on the CPU."""

    label: str  # "GPU 0"
    model: str | None  # "NVIDIA H200"
    is_gpu: bool
    process: int  # the one that launched most of what it ran
    thread: int
    activities: Activities


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A whole trace."""

    source: str  # the file's name
    profiler: str  # "Nsight Systems 2025.3.2.0"
    names: Names
    devices: tuple[Device, ...]
    calls: Calls
    call_names: tuple[str, ...]
    steps: Steps
    notes: tuple[str, ...]  # what a reader must know about how it was taken


StepRow = tuple[float, float, int, str]  # start_s, end_s, process, the range's text


def steps_of(rows: Sequence[StepRow]) -> Steps:
    """The engine steps among named ranges."""
    found = [
        (start_s, end_s, process, *map(int, match.groups()))
        for start_s, end_s, process, text in rows
        if (match := _STEP.search(text))
    ]
    found.sort()
    table = np.array(found, np.float64).reshape(-1, 7)
    counts = table[:, 2:].astype(np.int64)
    return Steps(
        start_s=table[:, 0],
        end_s=table[:, 1],
        process=counts[:, 0],
        context_requests=counts[:, 1],
        context_tokens=counts[:, 2],
        generation_requests=counts[:, 3],
        generation_tokens=counts[:, 4],
    )


def is_step(text: str) -> bool:
    return _STEP.search(text) is not None


def launcher(activities: Activities, calls: Calls) -> tuple[int, int]:
    """The process and thread that launched most of it; both NOWHERE if no call is known."""
    known = activities.call[activities.call != NOWHERE]
    if not len(known):
        return NOWHERE, NOWHERE
    pairs = np.column_stack((calls.process[known], calls.thread[known]))
    each, counts = np.unique(pairs, axis=0, return_counts=True)
    process, thread = each[counts.argmax()]
    return int(process), int(thread)
