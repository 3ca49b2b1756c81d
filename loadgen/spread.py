"""The transport to several servers: each has its own connections, each stream its own server."""

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
    """Sends stream k to server k mod their number, whichever worker it belongs to."""

    def __init__(self, transports: "Sequence[Transport]", share: Share) -> None:
        self._transports = transports
        self._share = share

    async def warm(self, connections: int) -> None:
        """Open one connection per stream of this worker, to that stream's server.

        One server may get none of them, or all.
        """
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
