"""The transport for any server: TLS, proxies (from environment variables), unusual HTTP."""

from collections.abc import Mapping
from time import perf_counter

import aiohttp

from loadgen.records import MAX_REPLY_BYTES, Exchange, FailureKind, RequestFailedError

# uvicorn closes idle connections after 5 s, and a request sent just then would fail.
KEEPALIVE_S = 4.0
# More than a socket buffers, so that reading never pauses.
READ_BUFFER_BYTES = 2**20


class ViaAiohttp:
    """Connections to one URL, as many as there are requests in flight."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        stamps = aiohttp.TraceConfig()
        stamps.on_request_headers_sent.append(_stamp_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=None
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity", **headers},
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=READ_BUFFER_BYTES,
            auto_decompress=False,
            trust_env=True,
            trace_configs=[stamps],
        )

    async def warm(self, connections: int) -> None:
        """Does nothing: aiohttp opens a connection only for a request."""

    async def close(self) -> None:
        await self._session.close()

    async def post(self, exchange: Exchange, request_id: str, body: bytes) -> None:
        exchange.sent_at_s = perf_counter()  # replaced by `_stamp_sent`
        try:
            await self._post(exchange, request_id, body)
        except aiohttp.ClientConnectorError as error:
            raise RequestFailedError(FailureKind.CONNECT, _told(error)) from error
        except aiohttp.ClientResponseError as error:  # what came back is not HTTP
            raise RequestFailedError(FailureKind.GARBLED, _told(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise RequestFailedError(FailureKind.DISCONNECTED, _told(error)) from error

    async def _post(self, exchange: Exchange, request_id: str, body: bytes) -> None:
        num_bytes = 0
        async with self._session.post(
            self._url,
            data=body,
            headers={"X-Request-Id": request_id},
            allow_redirects=False,
            trace_request_ctx=exchange,
        ) as response:
            exchange.http_status = response.status
            read, stamp, keep = response.content.readany, exchange.read_at_s.append, exchange.keep
            while piece := await read():
                at_s = perf_counter()
                stamp(at_s)
                keep(piece, at_s)
                num_bytes += len(piece)
                if num_bytes > MAX_REPLY_BYTES:
                    response.close()
                    message = f"the reply is longer than {MAX_REPLY_BYTES} bytes"
                    raise RequestFailedError(FailureKind.OVERSIZED, message)


async def _stamp_sent(
    _session: aiohttp.ClientSession,
    context: object,
    _parameters: aiohttp.TraceRequestHeadersSentParams,
) -> None:
    context.trace_request_ctx.sent_at_s = perf_counter()  # type: ignore[attr-defined]


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
