"""The process that sends: one event loop that does nothing else, so that stamps are true.

It is driven through a pipe: a Job comes in, Progress and one Outcome go out. The other end of the
pipe closes when the parent ends, however it ends, and then so does this process.
"""

import asyncio
import gc
import os
import resource
import select
import signal
import statistics
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from math import isnan, nan
from multiprocessing.connection import Connection
from time import perf_counter

import numpy as np
import uvloop

from loadgen.client import Client
from loadgen.config import Load
from loadgen.loop import Larder, Run, drive_closed, drive_open
from loadgen.prompts import Prompts
from loadgen.records import ClientHealth, Progress, Result, Target, Window, tabulate

PROGRESS_S = 0.25
PULSE_S = 0.02
# Between preparation and the first request, so that the first one is not late.
LEAD_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    load: Load
    target: Target
    seed: int


@dataclass(frozen=True, slots=True)
class Stop:
    """The parent asks for the run's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """A bug in the worker: its traceback."""

    report: str


def serve(connection: Connection) -> None:
    """Do one job after the other until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a connection is an open file
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = connection.recv()
            if isinstance(job, Job):  # a Stop may come after the run has ended
                connection.send(_work(job, connection))


def _work(job: Job, connection: Connection) -> Result | Crash:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            run, pulse, ended_at_s = runner.run(_drive(job, connection))
        return _result(run, pulse, ended_at_s)
    except Exception:
        return Crash(report=traceback.format_exc())


@dataclass(slots=True)
class Pulse:
    """How late the event loop is, and the CPU it takes: sampled by a timer."""

    at_s: list[float] = field(default_factory=list)
    lag_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    async def beat(self) -> None:
        while True:
            asleep_at_s = perf_counter()
            await asyncio.sleep(PULSE_S)
            self.at_s.append(perf_counter())
            self.lag_s.append(max(0.0, self.at_s[-1] - asleep_at_s - PULSE_S))
            self.cpu_s.append(time.process_time())

    def health(self, opened_at_s: float, closed_at_s: float) -> ClientHealth:
        """Over the window; NaN if there was none."""
        at_s = np.array(self.at_s)
        inside = np.flatnonzero((at_s >= opened_at_s) & (at_s <= closed_at_s))
        if len(inside) < 2:
            return ClientHealth(cpu_frac=nan, loop_lag_p99_s=nan, loop_lag_max_s=nan)
        first, last = inside[0], inside[-1]
        lag_s = np.array(self.lag_s)[inside]
        return ClientHealth(
            cpu_frac=(self.cpu_s[last] - self.cpu_s[first]) / (at_s[last] - at_s[first]),
            loop_lag_p99_s=float(np.percentile(lag_s, 99)),
            loop_lag_max_s=float(lag_s.max()),
        )


async def _drive(job: Job, connection: Connection) -> tuple[Run, Pulse, float]:
    """Drive the load, with garbage collection off, until it is over or the parent says stop."""
    load, pulse = job.load, Pulse()
    prompts = Prompts(load=load, target=job.target, seed=job.seed)
    # What may fall due at once: all streams, or the arrivals of a second.
    shelf = load.concurrency or int(load.rate_rps or 0) + 64
    larder = Larder(prompts, shelf)
    async with Client(job.target, load.endpoint, load.request_timeout_s) as client:
        gc.collect()
        gc.freeze()
        gc.disable()
        run = Run(load=load, send=client.send, larder=larder, started_at_s=perf_counter() + LEAD_S)
        pattern = drive_closed(run) if load.arrival == "closed" else drive_open(run, job.seed)
        driving = asyncio.create_task(pattern)
        aside = [
            asyncio.create_task(pulse.beat()),
            asyncio.create_task(_report(run, client, connection)),
        ]
        listening = asyncio.get_running_loop()
        listening.add_reader(connection.fileno(), _hear, connection, driving)
        os.set_blocking(connection.fileno(), True)  # uvloop has made it non-blocking
        try:
            with suppress(asyncio.CancelledError):
                await driving
        finally:
            listening.remove_reader(connection.fileno())
            for task in aside:
                task.cancel()
            gc.enable()
            gc.unfreeze()
        return run, pulse, perf_counter()


def _hear(connection: Connection, driving: asyncio.Task[None]) -> None:
    try:
        connection.recv()
    except (EOFError, OSError):
        os._exit(1)  # nobody is left to tell
    driving.cancel()


async def _report(run: Run, client: Client, connection: Connection) -> None:
    """Send Progress a few times a second."""
    events, at_s = 0, perf_counter()
    while True:
        await asyncio.sleep(PROGRESS_S)
        rate = (client.num_events - events) / (perf_counter() - at_s)
        events, at_s = client.num_events, perf_counter()
        _, writable, _ = select.select([], [connection], [], 0)
        if writable:  # a parent that does not read is not waited for
            connection.send(_progress(run, client, rate))


def _progress(run: Run, client: Client, output_tok_per_s: float) -> Progress:
    """Where the run is; the plan grows when the warm-up took longer."""
    opened, closed = not isnan(run.opened_at_s), not isnan(run.closed_at_s)
    planned_s = run.load.planned_s
    if opened:
        planned_s = run.opened_at_s - run.started_at_s + run.load.duration_s
    return Progress(
        phase="drain" if closed else "window" if opened else "warmup",
        elapsed_s=perf_counter() - run.started_at_s,
        planned_s=planned_s,
        output_tok_per_s=output_tok_per_s,
        ttft_p50_s=statistics.median(client.recent_ttft_s) if client.recent_ttft_s else None,
        in_flight=run.in_flight,
        completed=run.completed,
        failed=run.failed,
    )


def _result(run: Run, pulse: Pulse, ended_at_s: float) -> Result:
    requests, chunks = tabulate(run.exchanges)
    return Result(
        load=run.load,
        window=Window(
            started_at_s=run.started_at_s,
            opened_at_s=run.opened_at_s,
            closed_at_s=run.closed_at_s,
            ended_at_s=ended_at_s,
            clock_monotonic_s=perf_counter(),
            clock_utc_ns=time.time_ns(),
        ),
        requests=requests,
        chunks=chunks,
        client=pulse.health(run.opened_at_s, run.closed_at_s),
    )
