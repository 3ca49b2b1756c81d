"""A process that sends: one event loop that does nothing else, so that stamps are accurate.

It takes its orders through a pipe (messages.py). When the parent ends, however that happens, its
end of the pipe closes, and this process ends too.
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import isnan, nan
from multiprocessing.connection import Connection
from time import perf_counter

import numpy as np
import uvloop

from loadgen.client import Sender, make_transport
from loadgen.loop import Larder, Reader, Run, drive
from loadgen.messages import Crash, Job, Open, Outcome, Prepared, Reached, Start, Stop
from loadgen.prompts import Prompts
from loadgen.records import ClientHealth, Progress, Window, tabulate

PROGRESS_S = 0.25
PULSE_S = 0.02
MAX_WARM_CONNECTIONS = 4096


def serve(connection: Connection, core: int | None) -> None:
    """Do one job after another until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if core is not None:
        os.sched_setaffinity(0, {core})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a connection is an open file
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = connection.recv()
            if isinstance(job, Job):  # a Stop may come after the run has ended
                connection.send(_work(job, connection))


def _work(job: Job, connection: Connection) -> Outcome | Crash:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            run, pulse = runner.run(_drive(job, connection))
        return _outcome(job, run, pulse)
    except Exception:
        return Crash(report=traceback.format_exc())


@dataclass(slots=True)
class Pulse:
    """How late the event loop is, and how much CPU it uses: sampled by a timer."""

    at_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    async def beat(self) -> None:
        while True:
            self.mark()
            await asyncio.sleep(PULSE_S)

    def mark(self) -> None:
        """Sample now; once more at the end, when the loop may have slept for long."""
        self.at_s.append(perf_counter())
        self.cpu_s.append(time.process_time())

    def health(self, transport: str, opened_at_s: float, until_s: float) -> ClientHealth:
        """The worker's health from the opening of the window on; NaN if it did not open.

        A pause between two samples counts if any part of it is within.
        """
        at_s, cpu_s = np.array(self.at_s), np.array(self.cpu_s)
        inside = np.flatnonzero((at_s[1:] >= opened_at_s) & (at_s[:-1] <= until_s))
        busy_frac = lag_p99_s = lag_max_s = nan
        if len(inside):
            first, last = inside[0], inside[-1] + 1
            lag_s = np.maximum(np.diff(at_s)[inside] - PULSE_S, 0.0)
            busy_frac = (cpu_s[last] - cpu_s[first]) / (at_s[last] - at_s[first])
            lag_p99_s, lag_max_s = float(np.percentile(lag_s, 99)), float(lag_s.max())
        return ClientHealth(
            transport=transport,
            workers=1,
            cpu_frac=busy_frac,
            loop_lag_p99_s=lag_p99_s,
            loop_lag_max_s=lag_max_s,
        )


class _Orders:
    """The parent's orders while a run is prepared and driven."""

    def __init__(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        self.start: asyncio.Future[float] = loop.create_future()
        self.opening: asyncio.Future[float] = loop.create_future()
        self._driving = asyncio.current_task()
        self._connection = connection
        loop.add_reader(connection.fileno(), self._hear)
        os.set_blocking(connection.fileno(), True)  # uvloop has made it non-blocking

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._connection.fileno())

    def _hear(self) -> None:
        try:
            order = self._connection.recv()
        except (EOFError, OSError):
            os._exit(1)  # the parent is gone
        match order:
            case Start(at_s):
                self.start.set_result(at_s)
            case Open(at_s):
                self.opening.set_result(at_s)
            case Stop():
                assert self._driving is not None
                self._driving.cancel()


async def _drive(job: Job, connection: Connection) -> tuple[Run, Pulse]:
    """Prepare the load, and drive it until it is over or the parent says stop."""
    load, pulse, orders = job.load, Pulse(), _Orders(connection)
    prompts = Prompts(load=load, target=job.target, seed=job.seed)
    # What may become due at once: all streams, or one second's arrivals.
    most_rps = max(load.rate_rps or 0.0, load.rate_end_rps or 0.0)
    at_once = (load.concurrency or int(most_rps) + 64) // job.share.workers + 1
    transport = make_transport(job.client, job.target, load.endpoint, job.share)
    secrets = list(job.target.headers.values())
    async with Sender(transport, load, job.seed, secrets) as sender:
        run = Run(
            load=load,
            seed=job.seed,
            send=sender.send,
            prompts=prompts,
            larder=Larder(prompts, at_once, job.share),
            started_at_s=nan,
            opening=orders.opening,
            reached=lambda: connection.send(Reached()),
            share=job.share,
            reader=Reader(job.slo),
        )
        with suppress(asyncio.CancelledError), _no_garbage_collection():  # cancelled: a Stop
            await transport.warm(min(at_once, MAX_WARM_CONNECTIONS))
            connection.send(Prepared())
            run.started_at_s = await orders.start
            aside = [
                asyncio.create_task(pulse.beat()),
                asyncio.create_task(_report(run, sender, connection)),
            ]
            try:
                await drive(run)
            finally:
                pulse.mark()
                for task in aside:
                    task.cancel()
        orders.close()
    return run, pulse


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable it: a collection would stop the loop for milliseconds, and find next to nothing."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


async def _report(run: Run, sender: Sender, connection: Connection) -> None:
    """Send Progress a few times a second."""
    reads, at_s = 0, perf_counter()
    while True:
        await asyncio.sleep(PROGRESS_S)
        rate = (sender.num_reads() - reads) / (perf_counter() - at_s)
        reads, at_s = sender.num_reads(), perf_counter()
        _, writable, _ = select.select([], [connection], [], 0)
        if writable:  # do not wait for a parent that does not read
            connection.send(_progress(run, sender, rate))


def _progress(run: Run, sender: Sender, output_tok_per_s: float) -> Progress:
    """How far the run is; `planned_s` grows if the warm-up took longer than planned."""
    now_s, planned_s = perf_counter(), run.load.planned_s
    if not isnan(run.closes_at_s):
        planned_s = run.closes_at_s - run.started_at_s
    is_open, is_closed = run.opens_at_s <= now_s, run.closes_at_s <= now_s
    return Progress(
        phase="drain" if is_closed else "window" if is_open else "warmup",
        elapsed_s=now_s - run.started_at_s,
        planned_s=planned_s,
        output_tok_per_s=output_tok_per_s,
        ttft_p50_s=statistics.median(sender.recent_ttft_s) if sender.recent_ttft_s else None,
        in_flight=run.in_flight,
        completed=run.completed,
        failed=run.failed,
        out_of_limits=sum(due_at_s >= run.opens_at_s for due_at_s in run.reader.out_of_limits),
    )


def _outcome(job: Job, run: Run, pulse: Pulse) -> Outcome:
    ended_at_s = perf_counter()
    # By the clock: a loop that is starved of CPU may not wake up in its window at all.
    opened_at_s, closed_at_s = (
        at_s if at_s <= ended_at_s else nan for at_s in (run.opens_at_s, run.closes_at_s)
    )
    requests, chunks = tabulate(run.exchanges)
    transport = job.client.transport_for(job.target.url)
    return Outcome(
        window=Window(
            started_at_s=run.started_at_s,
            opened_at_s=opened_at_s,
            closed_at_s=closed_at_s,
            ended_at_s=ended_at_s,
            clock_monotonic_s=perf_counter(),
            clock_utc_ns=time.time_ns(),
        ),
        requests=requests,
        chunks=chunks,
        health=pulse.health(transport, opened_at_s, min(run.closes_at_s, ended_at_s)),
    )
