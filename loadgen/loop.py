"""The two ways to drive a server: streams that wait for their reply, and arrivals that do not.

All due times are absolute, so a late request delays no later one, and how late each was is kept.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import nan
from time import perf_counter

from loadgen.config import Load
from loadgen.prompts import Prompts, Request
from loadgen.records import Exchange
from loadgen.schedule import poisson_offsets_s, ramp_offsets_s

Send = Callable[[Exchange, bytes], Awaitable[None]]

# A dead server refuses in microseconds; without a pause, the loop would do nothing but ask it.
BACK_OFF_S = 0.05


# Work beside the streams is done in short turns: a long one would delay the stamps of whatever
# arrives meanwhile.
TURN_S = 0.0005
REST_S = 0.002


class Larder:
    """Requests serialised before they are due, in order, and the number of the next one.

    Each is made from (seed, number) alone, so timing does not change what is sent.
    """

    def __init__(self, prompts: Prompts, size: int) -> None:
        self._prompts = prompts
        self._size = size
        self._shelf = deque(prompts.request(index) for index in range(size))
        self._next = size
        self._taken = asyncio.Event()

    def take(self) -> Request:
        self._taken.set()
        return self._shelf.popleft() if self._shelf else self._make()

    async def refill(self) -> None:
        while True:
            await self._taken.wait()
            self._taken.clear()
            while len(self._shelf) < self._size:
                await asyncio.sleep(REST_S)
                until_s = perf_counter() + TURN_S
                while len(self._shelf) < self._size and perf_counter() < until_s:
                    self._shelf.append(self._make())

    def _make(self) -> Request:
        self._next += 1
        return self._prompts.request(self._next - 1)


class Reader:
    """Parses replies that have ended, so that their bytes need not be kept until the run is over.

    At 20,000 chunks a second those would be 6 MB more each second, and a second of parsing between
    two runs for every fifteen of load. It costs about 4 us a chunk.
    """

    def __init__(self) -> None:
        self._ended: deque[Exchange] = deque()
        self._more = asyncio.Event()

    def put(self, exchange: Exchange) -> None:
        self._ended.append(exchange)
        self._more.set()

    async def work(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._ended:
                await asyncio.sleep(REST_S)
                until_s = perf_counter() + TURN_S
                while self._ended and perf_counter() < until_s:
                    self._ended.popleft().read()


@dataclass(slots=True, kw_only=True)
class Run:
    """One run as it goes: what was sent, and which phase it is in."""

    load: Load
    send: Send
    larder: Larder
    started_at_s: float
    reader: Reader = field(default_factory=Reader)
    opened_at_s: float = nan
    closed_at_s: float = nan
    exchanges: list[Exchange] = field(default_factory=list)
    completed: int = 0
    failed: int = 0
    in_flight: int = 0

    async def perform(self, due_at_s: float, stream: int | None = None) -> Exchange:
        """Take the next request, send it, and wait for its end."""
        request = self.larder.take()
        exchange = Exchange(
            request=request.index,
            stream=request.index if stream is None else stream,
            due_at_s=due_at_s,
            input_tokens_asked=request.input_tokens,
            output_tokens_asked=request.output_tokens,
        )
        self.exchanges.append(exchange)
        self.in_flight += 1
        try:
            await self.send(exchange, request.body)
        finally:
            self.in_flight -= 1
            self.reader.put(exchange)
        if exchange.looks_failed():
            self.failed += 1
        else:
            self.completed += 1
        return exchange


async def sleep_until(at_s: float) -> None:
    """Sleep on the run's clock: never early, where uvloop's timers may be by a millisecond."""
    while (left_s := at_s - perf_counter()) > 0:
        await asyncio.sleep(left_s)


async def drive_closed(run: Run) -> None:
    """Keep `concurrency` requests in flight; at the end of the window, cut them all.

    The window opens when every stream has had one whole request, and no sooner than `warmup_s`:
    until then, all streams are at the same place in their replies, which no steady load is.
    """
    load = run.load
    assert load.concurrency is not None
    waiting = set(range(load.concurrency))
    all_had_one = asyncio.Event()

    async def stream(number: int, due_at_s: float) -> None:
        while True:
            await sleep_until(due_at_s)
            exchange = await run.perform(due_at_s, number)
            due_at_s = exchange.ended_at_s + (BACK_OFF_S if exchange.looks_failed() else 0.0)
            waiting.discard(number)
            if not waiting:
                all_had_one.set()

    async with asyncio.TaskGroup() as group:
        offsets_s = ramp_offsets_s(load.concurrency, load.ramp_s)
        tasks = [
            group.create_task(stream(number, run.started_at_s + offset_s))
            for number, offset_s in enumerate(offsets_s)
        ]
        tasks += [group.create_task(work) for work in (run.larder.refill(), run.reader.work())]
        await sleep_until(run.started_at_s + load.warmup_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(run.started_at_s + load.warmup_max_s - perf_counter()):
                await all_had_one.wait()
        run.opened_at_s = perf_counter()
        await sleep_until(run.opened_at_s + load.duration_s)
        run.closed_at_s = perf_counter()
        for task in tasks:
            task.cancel()


async def drive_open(run: Run, seed: int) -> None:
    """Send each request at its due time, whatever the earlier ones are doing.

    Arrivals go on after the window until all that were due in it have ended: without them, the
    last ones would be served by an emptier and faster server than the first.
    """
    load, rate_rps = run.load, run.load.rate_rps
    assert rate_rps is not None
    opened_at_s = run.started_at_s + load.warmup_s
    closed_at_s = opened_at_s + load.duration_s
    unfinished = 0  # due in the window
    one_less = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def one(due_at_s: float) -> None:
        nonlocal unfinished
        await run.perform(due_at_s)
        if opened_at_s <= due_at_s < closed_at_s:
            unfinished -= 1
            one_less.set()

    async def arrivals(group: asyncio.TaskGroup) -> None:
        nonlocal unfinished
        for offset_s in poisson_offsets_s(rate_rps, seed):
            due_at_s = run.started_at_s + offset_s
            unfinished += (
                opened_at_s <= due_at_s < closed_at_s
            )  # before it is sent, lest it be late
            await sleep_until(due_at_s)
            task = group.create_task(one(due_at_s))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async with asyncio.TaskGroup() as group:
        beside = (run.larder.refill(), run.reader.work(), arrivals(group))
        tasks |= {group.create_task(work) for work in beside}
        await sleep_until(opened_at_s)
        run.opened_at_s = opened_at_s
        await sleep_until(closed_at_s)
        run.closed_at_s = closed_at_s
        with suppress(TimeoutError):
            async with asyncio.timeout(closed_at_s + load.drain_s - perf_counter()):
                while unfinished:
                    one_less.clear()
                    await one_less.wait()
        for task in tasks:
            task.cancel()
