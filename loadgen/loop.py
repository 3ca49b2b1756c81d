"""The two ways to drive a server: streams that wait for their reply, and arrivals that do not.

Each worker handles its share of the streams, or of the arrivals. All due times are absolute, so a
late request does not delay later ones, and how late each was is recorded.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import islice
from math import nan
from time import perf_counter

from loadgen.config import Load, Slo
from loadgen.prompts import Prompts, Request
from loadgen.records import Exchange, is_out
from loadgen.schedule import offsets_s, ramp_offsets_s

Send = Callable[[Exchange, bytes], Awaitable[None]]

# A dead server refuses in microseconds; without a pause, the loop would do nothing but retry.
BACK_OFF_S = 0.05
# Background work is done in short turns: a long one would delay the stamps of data that arrives
# meanwhile.
TURN_S = 0.0005
REST_S = 0.002
SHELF_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Share:
    """Every `workers`-th item, starting at number `worker`."""

    worker: int = 0
    workers: int = 1


ALL = Share()


class Larder:
    """A worker's requests in order, serialised before they are due.

    Each depends on (seed, number) alone, so timing does not change what is sent.
    """

    def __init__(self, prompts: Prompts, size: int, share: Share) -> None:
        self._prompts = prompts
        self._size = size
        self._share = share
        self._next = share.worker
        self._shelf: deque[Request] = deque()
        self._num_bytes = 0
        self._taken = asyncio.Event()
        while self._is_short():
            self._put()

    def take(self) -> Request:
        """The first turn of the next conversation."""
        self._taken.set()
        if not self._shelf:
            self._put()
        request = self._shelf.popleft()
        self._num_bytes -= len(request.body)
        return request

    async def refill(self) -> None:
        while True:
            await self._taken.wait()
            self._taken.clear()
            while self._is_short():
                await asyncio.sleep(REST_S)
                until_s = perf_counter() + TURN_S
                while self._is_short() and perf_counter() < until_s:
                    self._put()

    def _is_short(self) -> bool:
        return len(self._shelf) < self._size and self._num_bytes < SHELF_BYTES

    def _put(self) -> None:
        request = self._prompts.request(self._next)
        self._next += self._share.workers
        self._shelf.append(request)
        self._num_bytes += len(request.body)


class Reader:
    """Parses replies that have ended, so that their bytes need not be kept until the run is over.

    At 20,000 chunks/s they would grow by 6 MB per second. Parsing takes about 1 us per chunk.
    """

    def __init__(self, slo: Slo | None = None) -> None:
        self.out_of_limits: list[float] = []  # due times of the requests that broke a limit
        self._slo = slo
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
                    row, _ = self._ended.popleft().read()
                    if self._slo is not None and is_out(row, self._slo):
                        self.out_of_limits.append(row.due_at_s)


@dataclass(slots=True, kw_only=True)
class Run:
    """The state of one worker's run: what was sent, and which phase it is in.

    When the window opens and closes is set as soon as it is known, which is before it happens.
    `reached` is called once: in a closed loop when every stream has had one reply, in an open loop
    when all requests that were due in the window have ended.
    """

    load: Load
    seed: int
    send: Send
    prompts: Prompts
    larder: Larder
    started_at_s: float
    opening: asyncio.Future[float]  # done once it is decided when the window opens
    reached: Callable[[], None]
    share: Share = field(default_factory=Share)
    reader: Reader = field(default_factory=Reader)
    opens_at_s: float = nan
    closes_at_s: float = nan
    exchanges: list[Exchange] = field(default_factory=list)
    completed: int = 0
    failed: int = 0
    in_flight: int = 0

    async def perform(self, request: Request, due_at_s: float, stream: int) -> Exchange:
        """Send one request, and wait until it has ended."""
        asked = request.input_tokens
        exchange = Exchange(
            request=request.index,
            conversation=request.conversation,
            turn=request.turn,
            stream=stream,
            due_at_s=due_at_s,
            input_tokens_asked=nan if asked is None else asked,
            output_tokens_asked=request.output_tokens,
            streamed=self.load.stream,
            keep_text=self.load.conversation is not None,
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

    def next_turn(self, request: Request, last: Exchange) -> tuple[Request, float] | None:
        """The next turn of the conversation, and when it is due; None if there is none."""
        if self.load.conversation is None or last.looks_failed():
            return None
        last.read()
        following = self.prompts.next_turn(request, last.text)
        if following is None:
            return None
        return following, last.ended_at_s + self.load.conversation.think_s


async def sleep_until(at_s: float) -> None:
    """Sleep on the run's clock, never waking early; uvloop's timers may, by a millisecond."""
    while (left_s := at_s - perf_counter()) > 0:
        await asyncio.sleep(left_s)


async def drive(run: Run) -> None:
    """Drive the load until it is over; an open loop is over when it is cancelled."""
    await (drive_open(run) if run.load.is_open else drive_closed(run))


async def drive_closed(run: Run) -> None:
    """Keep this worker's streams in flight; at the end of the window, cut them all off.

    The window opens when every stream of every worker has completed one whole request. Until then
    all streams are at the same place in their replies, which they never are under steady load.
    """
    load = run.load
    assert load.concurrency is not None
    offset_s = ramp_offsets_s(load.concurrency, load.ramp_s)
    mine = range(run.share.worker, load.concurrency, run.share.workers)
    waiting = set(mine)
    if not waiting:
        run.reached()

    async def stream(number: int) -> None:
        due_at_s = run.started_at_s + offset_s[number]
        following: tuple[Request, float] | None = None
        while True:
            request, due_at_s = following or (None, due_at_s)
            await sleep_until(due_at_s)
            request = request or run.larder.take()
            exchange = await run.perform(request, due_at_s, number)
            if number in waiting:
                waiting.discard(number)
                if not waiting:
                    run.reached()
            following = run.next_turn(request, exchange)
            due_at_s = exchange.ended_at_s + (BACK_OFF_S if exchange.looks_failed() else 0.0)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stream(number)) for number in mine]
        tasks += [group.create_task(work) for work in (run.larder.refill(), run.reader.work())]
        run.opens_at_s = await run.opening
        run.closes_at_s = run.opens_at_s + load.duration_s
        await sleep_until(run.closes_at_s)
        for task in tasks:
            task.cancel()


async def drive_open(run: Run) -> None:
    """Send each request at its due time, whatever the earlier ones are doing.

    Arrivals continue after the window until all requests due in it have ended, at every worker.
    Otherwise the last ones would meet an emptier, faster server than the first.
    """
    load = run.load
    run.opens_at_s = run.started_at_s + load.warmup_s
    run.closes_at_s = run.opens_at_s + load.duration_s
    unfinished = 0  # requests due in the window
    one_less = asyncio.Event()

    def is_inside(due_at_s: float) -> bool:
        return run.opens_at_s <= due_at_s < run.closes_at_s

    async def converse(due_at_s: float) -> None:
        nonlocal unfinished
        request = run.larder.take()
        while True:
            exchange = await run.perform(request, due_at_s, request.conversation)
            following = run.next_turn(request, exchange)
            if is_inside(due_at_s):
                unfinished -= 1
                one_less.set()  # the next turn may be due after the window
            if following is None:
                break
            request, due_at_s = following
            unfinished += is_inside(due_at_s)
            await sleep_until(due_at_s)

    async def arrivals(group: asyncio.TaskGroup) -> None:
        nonlocal unfinished
        mine = islice(offsets_s(load, run.seed), run.share.worker, None, run.share.workers)
        for offset_s in mine:
            due_at_s = run.started_at_s + offset_s
            unfinished += is_inside(due_at_s)  # before the sleep, which may end late
            await sleep_until(due_at_s)
            group.create_task(converse(due_at_s))

    async with asyncio.TaskGroup() as group:
        for work in (run.larder.refill(), run.reader.work(), arrivals(group)):
            group.create_task(work)
        await sleep_until(run.closes_at_s)
        while unfinished:
            one_less.clear()
            await one_less.wait()
        run.reached()
        await asyncio.Event().wait()  # cancelled once all other workers have got here, too
