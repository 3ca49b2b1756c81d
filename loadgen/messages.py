"""What the parent and its workers say to each other, through one pipe each.

parent: Job             worker: Prepared    requests are serialised, connections open
parent: Start           worker: Progress    a few times a second
                        worker: Reached     closed loop: every stream had a reply, so …
parent: Open (closed)                       … when all workers have, the window opens
                        worker: Reached     open loop: all that was due in the window has ended,
parent: Stop (or early) worker: Outcome     so that the run is over
"""

from dataclasses import dataclass

from loadgen.config import Client, Load, Slo
from loadgen.loop import Share
from loadgen.records import ClientHealth, Columns, Target, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    load: Load
    target: Target
    seed: int
    client: Client
    share: Share
    slo: Slo | None = None  # counted while the run goes


@dataclass(frozen=True, slots=True)
class Prepared:
    pass


@dataclass(frozen=True, slots=True)
class Start:
    at_s: float


@dataclass(frozen=True, slots=True)
class Reached:
    pass


@dataclass(frozen=True, slots=True)
class Open:
    at_s: float


@dataclass(frozen=True, slots=True)
class Stop:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One worker's part of a run."""

    window: Window
    requests: Columns
    chunks: Columns
    health: ClientHealth


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """A bug in the worker: its traceback."""

    report: str
