"""The only file that speaks HTTP: one POST, and when each piece of its reply came.

Bytes are stamped as they arrive and kept; they are parsed after the reply has ended, when nothing
else is to be done. Parsing in between would take the event loop's time, and the streams that wait
for it would look like slow replies. Two chunks that arrive in one read get the same stamp.
"""

import asyncio
from collections import deque
from time import perf_counter
from typing import Self

import aiohttp

from loadgen.records import Exchange, FailureKind, Target

PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
# uvicorn closes idle connections after 5 s; one that is reused just then is a failure.
KEEPALIVE_S = 4.0
# Above what a socket buffers, so that reading never pauses.
READ_BUFFER_BYTES = 2**20


class Client:
    """Connections to one endpoint, as many as there are requests in flight."""

    def __init__(self, target: Target, endpoint: str, timeout_s: float) -> None:
        self.num_events = 0  # for display: `data:` lines so far, near one a token
        self.recent_ttft_s: deque[float] = deque(maxlen=100)  # for display
        self._url = target.url.rstrip("/") + PATHS[endpoint]
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=None
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            read_bufsize=READ_BUFFER_BYTES,
            auto_decompress=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(self, exchange: Exchange, body: bytes) -> None:
        """POST, and fill in what comes back; a request that fails is data, not an exception."""
        exchange.sent_at_s = perf_counter()
        try:
            await self._post(exchange, body)
        except asyncio.CancelledError:
            exchange.cut = True
            raise
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            exchange.failure = _kind(error)
            exchange.detail = f"{type(error).__name__}: {error}"
        finally:
            exchange.ended_at_s = perf_counter()

    async def _post(self, exchange: Exchange, body: bytes) -> None:
        async with self._session.post(self._url, data=body, allow_redirects=False) as response:
            exchange.http_status = response.status
            read = response.content.readany
            keep_stamp, keep_piece = exchange.piece_at_s.append, exchange.pieces.append
            while piece := await read():
                keep_stamp(perf_counter())
                keep_piece(piece)
                self.num_events += piece.count(b"data:")
                if len(exchange.pieces) == 1:
                    self.recent_ttft_s.append(exchange.piece_at_s[0] - exchange.sent_at_s)


def _kind(error: Exception) -> FailureKind:
    """The most specific kind; aiohttp's timeouts and connect errors are several things at once."""
    match error:
        case TimeoutError():
            return FailureKind.TIMEOUT
        case aiohttp.ClientConnectorError():
            return FailureKind.CONNECT
        case aiohttp.ClientResponseError():  # what came back is not HTTP
            return FailureKind.GARBLED
        case _:
            return FailureKind.DISCONNECTED
