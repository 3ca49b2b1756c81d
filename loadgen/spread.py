"""The transport to several servers: connections of its own to each, and a place for each stream."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import count, islice
from typing import TYPE_CHECKING

from loadgen.loop import Share
from loadgen.records import Exchange

if TYPE_CHECKING:
    from loadgen.client import Transport


class Spread:
    """Stream k goes to server k mod their number, whichever worker it belongs to."""

    def __init__(self, transports: "Sequence[Transport]", share: Share) -> None:
        self._transports = transports
        self._share = share

    async def warm(self, connections: int) -> None:
        """At each server as many as this worker's streams have there: it may be none, or all."""
        streams = islice(count(self._share.worker, self._share.workers), connections)
        wanted = Counter(self._place(stream) for stream in streams)
        await asyncio.gather(
            *(self._transports[place].warm(number) for place, number in wanted.items())
        )

    async def post(self, exchange: Exchange, request_id: str, body: bytes) -> None:
        await self._transports[self._place(exchange.stream)].post(exchange, request_id, body)

    async def close(self) -> None:
        for transport in self._transports:
            await transport.close()

    def _place(self, stream: int) -> int:
        return stream % len(self._transports)
