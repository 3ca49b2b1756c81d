"""The transport with the least work between socket and stamp: plain HTTP/1.1 on one event loop.

Incoming data is stamped and set aside. It is parsed (by llhttp, through httptools) only when it may
be the end of the reply, or when enough has accumulated: a chunk in the middle of a stream costs two
appends and three comparisons.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Mapping
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

import httptools

from loadgen.records import MAX_REPLY_BYTES, Exchange, FailureKind, RequestFailedError

# uvicorn closes idle connections after 5 s, and a request sent just then would fail.
KEEPALIVE_S = 4.0
CONNECT_TIMEOUT_S = 30.0
CONNECT_AT_ONCE = 64  # while warming up: fewer than a listening socket's backlog
# Every chunked body ends in this. If it is split between reads, the last read is shorter than it.
CHUNKED_END = b"\r\n\r\n"
# Reads that may accumulate before they are parsed: few, so that parsing never holds the loop long.
MAX_GATHERED = 64


class Direct:
    """Connections to one `http://` URL, as many as there are requests in flight."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._addresses: list[str] = []
        self._idle: deque[Connection] = deque()
        lines = {
            "Host": parts.netloc.rpartition("@")[2],
            "User-Agent": "loadgen",
            "Content-Type": "application/json",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **headers,
        }
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        query = f"?{parts.query}" if parts.query else ""
        self._head = f"POST {parts.path}{query} HTTP/1.1\r\n{text}"

    async def warm(self, connections: int) -> None:
        for begin in range(0, connections, CONNECT_AT_ONCE):
            count = min(CONNECT_AT_ONCE, connections - begin)
            opened = await asyncio.gather(
                *(self._connect() for _ in range(count)), return_exceptions=True
            )
            self._idle.extend(c for c in opened if isinstance(c, Connection))
            if any(isinstance(c, BaseException) for c in opened):
                return  # the requests will hit the same error and report it

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
        await asyncio.sleep(0)  # the closed transports' last callbacks

    async def post(self, exchange: Exchange, request_id: str, body: bytes) -> None:
        connection = self._take() or await self._connect()
        head = f"{self._head}X-Request-Id: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
        await connection.ask(exchange, head.encode(), body)
        if connection.is_open:
            self._idle.append(connection)

    def _take(self) -> "Connection | None":
        """The connection used last, so that those not needed grow old and are closed."""
        now_s = perf_counter()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and now_s - connection.used_at_s < KEEPALIVE_S:
                return connection
            connection.close()
        return None

    async def _connect(self) -> "Connection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if not self._addresses:  # resolved once: a look-up during a run would add delay
                    found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                    self._addresses = list(dict.fromkeys(str(f[4][0]) for f in found))
                return await self._connect_to_first()
        except OSError as error:  # TimeoutError too
            text = f"{type(error).__name__}: {error or 'no connection in time'}"
            raise RequestFailedError(FailureKind.CONNECT, text) from error

    async def _connect_to_first(self) -> "Connection":
        """Connect to the first address that answers; later connections use only that one."""
        loop, refused = asyncio.get_running_loop(), OSError("no address")
        for address in self._addresses:
            try:
                _, connection = await loop.create_connection(Connection, address, self._port)
            except OSError as error:
                refused = error
            else:
                self._addresses = [address]
                return connection
        raise refused


class Connection(asyncio.Protocol):
    """One connection, with at most one request in flight; also the parser's callbacks."""

    def __init__(self) -> None:
        self.used_at_s = float("inf")  # not used yet: a new connection does not age
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def ask(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """Send a request and wait for the end of its reply."""
        assert self._transport is not None
        self._exchange = exchange
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._gathered: list[bytes] = []
        self._num_bytes = 0
        self._in_chunks = self._has_length = self._is_over = self._keeps_alive = False
        self._at_s = 0.0
        self._stamp, self._gather = exchange.read_at_s.append, self._gathered.append
        exchange.sent_at_s = perf_counter()
        self._transport.writelines((head, body))
        try:
            await self._ended
        except BaseException:
            self.close()
            raise
        finally:
            self._take_apart_quietly()
            self._exchange = None
        self.used_at_s = perf_counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:  # nothing was asked for
            self.close()
            return
        self._stamp(perf_counter())
        self._gather(data)
        if (
            self._in_chunks
            and len(data) > len(CHUNKED_END)
            and not data.endswith(CHUNKED_END)
            and len(self._gathered) < MAX_GATHERED
        ):
            return
        try:
            self._take_apart()
        except httptools.HttpParserError as error:
            text = f"not HTTP: {type(error).__name__}: {error}"
            self._fail(FailureKind.GARBLED, text)
            return
        if self._num_bytes > MAX_REPLY_BYTES:
            message = f"the reply is longer than {MAX_REPLY_BYTES} bytes"
            self._fail(FailureKind.OVERSIZED, message)
        elif self._is_over:
            if not self._keeps_alive:
                self.close()
            if not self._ended.done():
                self._ended.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._exchange is None or self._ended.done():
            return
        self._take_apart_quietly()
        ends_with_connection = (
            self._exchange.http_status is not None and not self._in_chunks and not self._has_length
        )
        if ends_with_connection and error is None:
            self._ended.set_result(None)
        else:
            text = f"{type(error).__name__}: {error}" if error else "closed before the reply's end"
            self._fail(FailureKind.DISCONNECTED, text)

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._in_chunks |= name == b"transfer-encoding" and value.lower().endswith(b"chunked")
        self._has_length |= name == b"content-length"

    def on_headers_complete(self) -> None:
        assert self._exchange is not None
        self._exchange.http_status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        assert self._exchange is not None
        self._num_bytes += len(body)
        self._exchange.keep(body, self._at_s)

    def on_message_complete(self) -> None:
        self._is_over = self._parser.get_status_code() >= 200  # 1xx is not the reply yet
        self._keeps_alive = self._parser.should_keep_alive()  # llhttp knows this only now

    def _take_apart(self) -> None:
        """Feed the parser what has accumulated, piece by piece, each with its own stamp."""
        if not self._gathered or self._exchange is None:
            return
        pieces = self._gathered[:]
        self._gathered.clear()
        stamps = self._exchange.read_at_s[-len(pieces) :]
        for self._at_s, piece in zip(stamps, pieces, strict=True):
            if self._is_over:
                self.close()  # data after the reply: this connection is out of step
                return
            self._parser.feed_data(piece)

    def _take_apart_quietly(self) -> None:
        """Parse what is left of a reply that has failed already; further errors do not matter."""
        try:
            self._take_apart()
        except httptools.HttpParserError:
            self.close()

    def _fail(self, kind: FailureKind, detail: str) -> None:
        self.close()
        if not self._ended.done():
            self._ended.set_exception(RequestFailedError(kind, detail))
