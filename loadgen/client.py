"""Sends requests over either transport, and records how each ended.

A transport stamps bytes as they arrive and keeps them; they are parsed after the reply has ended.
Parsing them at once would hold up the event loop, and the streams waiting for it would look like
slow replies. Two chunks that arrive in one read get the same stamp.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Protocol, Self

from loadgen.config import Client, Load
from loadgen.direct import Direct
from loadgen.loop import ALL, Share
from loadgen.records import Exchange, FailureKind, RequestFailedError, Target
from loadgen.spread import Spread
from loadgen.via_aiohttp import ViaAiohttp

PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
WATCH_S = 0.25


class Transport(Protocol):
    """The interface to the network: one POST, and when each piece of its reply arrived."""

    async def warm(self, connections: int) -> None:
        """Open connections before they are needed, where possible; never raises."""

    async def post(self, exchange: Exchange, request_id: str, body: bytes) -> None:
        """Send, and fill in the exchange until the reply has ended.

        Raises RequestFailedError if there is no reply, or only part of one. When this is cancelled
        or raises, the connection is dropped.
        """

    async def close(self) -> None:
        """Close all connections."""


def make_transport(client: Client, target: Target, endpoint: str, share: Share = ALL) -> Transport:
    """The transport that the settings choose for this target; `share` is this worker's."""
    transports: list[Transport] = []
    for url in target.urls:
        kind = Direct if client.transport_for(url) == "direct" else ViaAiohttp
        transports.append(kind(url.rstrip("/") + PATHS[endpoint], target.headers))
    return Spread(transports, share) if target.more_urls else transports[0]


class Sender:
    """Sends the requests of one run; a failed request is data, not an exception."""

    def __init__(
        self, transport: Transport, load: Load, run_id: int, secrets: Sequence[str] = ()
    ) -> None:
        self.transport = transport
        self.in_flight: dict[Exchange, asyncio.Timeout] = {}
        self.recent_ttft_s: deque[float] = deque(maxlen=100)  # for display
        self._num_reads = 0  # by requests that have ended
        self._load = load
        self._run_id = run_id
        self._secrets = secrets
        self._watch = asyncio.create_task(self._watch_limits())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()
        await self.transport.close()

    async def send(self, exchange: Exchange, body: bytes) -> None:
        """POST, and fill the exchange with what comes back."""
        exchange.secrets = self._secrets
        request_id = f"{self._run_id}-{exchange.request}"
        try:
            async with asyncio.timeout(None) as limit:
                self.in_flight[exchange] = limit
                await self.transport.post(exchange, request_id, body)
        except asyncio.CancelledError:
            exchange.cut = True
            raise
        except RequestFailedError as error:
            exchange.failure, exchange.detail = error.kind, str(error)
        except TimeoutError:
            pass  # `_watch_limits` has noted which limit it was
        finally:
            exchange.ended_at_s = perf_counter()
            del self.in_flight[exchange]
            self._num_reads += len(exchange.read_at_s)
            if exchange.piece_at_s:
                self.recent_ttft_s.append(exchange.piece_at_s[0] - exchange.sent_at_s)

    def num_reads(self) -> int:
        """Reads so far, over all requests: about one per token, close enough for display."""
        return self._num_reads + sum(len(exchange.read_at_s) for exchange in self.in_flight)

    async def _watch_limits(self) -> None:
        """End requests that take too long. One timer serves them all, to save one per request."""
        load = self._load
        shortest_s = min(load.request_timeout_s, load.ttft_timeout_s, load.stall_timeout_s)
        while True:
            await asyncio.sleep(min(WATCH_S, shortest_s / 4))
            now_s = perf_counter()
            for exchange, limit in list(self.in_flight.items()):
                if exchange.failure is None and (fault := overdue(exchange, load, now_s)):
                    exchange.failure, exchange.detail = fault
                    limit.reschedule(asyncio.get_running_loop().time())


def overdue(exchange: Exchange, load: Load, now_s: float) -> tuple[FailureKind, str] | None:
    """Which limit a request has exceeded, if any.

    While it still waits for a connection, time counts from when it was due.
    """
    began_at_s = exchange.sent_at_s if exchange.sent_at_s > 0 else exchange.due_at_s
    if now_s - began_at_s > load.request_timeout_s:
        return FailureKind.TIMEOUT, f"not ended within {load.request_timeout_s:g} s"
    if not exchange.read_at_s:
        if now_s - began_at_s > load.ttft_timeout_s:
            return FailureKind.TTFT_TIMEOUT, f"no reply within {load.ttft_timeout_s:g} s"
    elif now_s - exchange.read_at_s[-1] > load.stall_timeout_s:
        return FailureKind.STALL, f"silent for {load.stall_timeout_s:g} s inside the reply"
    return None
