"""What runs inside the sampler process: one thread per source, and a pipe to the parent.

A source that hangs holds up its own thread only. Rows are kept in a flat array of float64, because
appending to it is atomic: rows can be taken even while a thread is stuck.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from math import ceil, nan
from multiprocessing.connection import Connection
from threading import Event, Thread
from time import perf_counter
from typing import Protocol

STOP_TIMEOUT_S = 1.0  # for the last samples of a recording, all sources together
# Two columns about the sampling itself, appended to those of the source. `late_s` is how long after
# its deadline a sample began; NaN for the recording's first and last, which have no deadline.
# `missed` counts the deadlines since the previous sample that gave no sample, because they had
# passed already or sampling failed. Both are set in a sample's first row, and NaN in its others.
TIMING = ("late_s", "missed")


class Source(Protocol):
    """Something that can be sampled repeatedly."""

    interval_s: float
    columns: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        """What could not be sampled as intended, one sentence each."""
        ...

    def sample(self, *, edge: bool) -> Iterable[tuple[float, ...]]:
        """Rows in the order of `columns`, `at_s` first.

        `edge`: this is the recording's first or last sample.
        """
        ...


def next_number(number: int, elapsed_s: float, interval_s: float) -> int:
    """The deadline that follows deadline `number`, when `elapsed_s` have passed since number 0.

    Deadline k is k * interval_s after the start, so lateness does not accumulate. Deadlines that
    have passed already are skipped.
    """
    return max(number + 1, ceil(elapsed_s / interval_s))


class Track:
    """The recording of one source."""

    def __init__(self, name: str, source: Source) -> None:
        self._name = name
        self._source = source
        self._rows = array("d")
        self._attempts = 0
        self._late = 0
        self._missed = 0  # since the last row
        self._failures: Counter[str] = Counter()
        self._ended = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def rows(self) -> bytes:
        return self._rows.tobytes()

    def notes(self) -> list[str]:
        notes = [f"{self._name}: {note}" for note in self._source.notes]
        for failure, count in self._failures.most_common(3):
            notes.append(f"{self._name}: {count} of {self._attempts} samples failed: {failure}")
        if self._late:
            due = self._attempts + self._late
            notes.append(f"{self._name}: {self._late} of {due} samples were late and skipped")
        if self._thread.is_alive():
            notes.append(
                f"{self._name}: the last sample did not arrive within {STOP_TIMEOUT_S:g} s"
            )
        return notes

    def _run(self) -> None:
        self._sample()  # the first one also opens the device, so time counts from here
        interval_s = self._source.interval_s
        started_at_s, number = perf_counter(), 0
        while True:
            following = next_number(number, perf_counter() - started_at_s, interval_s)
            self._late += following - number - 1
            self._missed += following - number - 1
            number = following
            due_at_s = started_at_s + number * interval_s
            if self._ended.wait(max(0.0, due_at_s - perf_counter())):
                break
            self._sample(due_at_s)
        self._sample()

    def _sample(self, due_at_s: float | None = None) -> None:
        """Take one sample; without a deadline, it is the recording's first or last."""
        self._attempts += 1
        late_s = nan if due_at_s is None else perf_counter() - due_at_s
        told = False
        try:
            for row in self._source.sample(edge=due_at_s is None):
                timing = (nan, nan) if told else (late_s, self._missed)
                self._rows.extend((*row, *timing))
                told = True
        except Exception as error:  # the run must go on, whatever a driver or a server does
            self._failures[f"{type(error).__name__}: {error}"] += 1
        if told:
            self._missed = 0
        elif due_at_s is not None:
            self._missed += 1


class Recording:
    """All sources, recorded in parallel from now until `finish`."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._tracks = {name: Track(name, source) for name, source in sources.items()}

    def finish(self) -> tuple[dict[str, bytes], list[str]]:
        """The rows of each source as float64, and the notes."""
        for track in self._tracks.values():
            track.end()
        deadline_s = perf_counter() + STOP_TIMEOUT_S
        for track in self._tracks.values():
            track.join(max(0.0, deadline_s - perf_counter()))
        rows = {name: track.rows() for name, track in self._tracks.items()}
        return rows, [note for track in self._tracks.values() for note in track.notes()]


def serve(sources: Mapping[str, Source], pipe: Connection) -> None:
    """Record on request until the pipe closes, which happens when the parent is gone."""
    recording = None
    try:
        while True:
            number, command = pipe.recv()
            if command == "start":
                if recording is not None:
                    recording.finish()  # its run failed before asking for the samples
                recording = Recording(sources)
                pipe.send((number, None))
            elif recording is not None:
                pipe.send((number, recording.finish()))
                recording = None
    except (EOFError, OSError):
        return  # sampling threads are daemons: they end with the process
