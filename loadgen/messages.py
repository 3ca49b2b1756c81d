"""The messages between the parent and each worker, over one pipe per worker.

parent: Job             worker: Prepared    requests are serialised, connections open
parent: Start           worker: Progress    a few times per second
                        worker: Reached     closed loop: each of its streams has had a reply …
parent: Open (closed)                       … and once all workers say so, the window opens
                        worker: Reached     open loop: all requests due in the window have ended …
parent: Stop (or early) worker: Outcome     … and once all workers say so, the run is over
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
    slo: Slo | None = None  # requests that break it are counted during the run


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
    """A bug in the worker; `report` is its traceback."""

    report: str
