"""What a run leaves behind: one row per request, one per content chunk, and the run's window.

All instants are `time.perf_counter()`: CLOCK_MONOTONIC, the same in every process of the host.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from math import nan
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen.config import Load, Slo
from loadgen.reply import Reply, parse_stream, parse_whole

Columns = dict[str, npt.NDArray[Any]]

DETAIL_CHARACTERS = 300
# A reply of 100,000 tokens takes a quarter of this; without a limit, a server could fill memory.
MAX_REPLY_BYTES = 64 * 2**20
# With these vLLM ends a stream whose request it gave up.
BAD_FINISH_REASONS = {"abort", "error"}
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
ERROR_MARK = re.compile(rb'"error":\s*[{"]')


class Status(StrEnum):
    OK = "ok"
    FAILED = "failed"
    CUT = "cut"  # ended by the client, because the run was over


class FailureKind(StrEnum):
    CONNECT = "connect"  # no connection
    DISCONNECTED = "disconnected"  # the connection broke before the reply's end
    TIMEOUT = "timeout"  # longer than request_timeout_s
    TTFT_TIMEOUT = "ttft_timeout"  # no byte of a reply within ttft_timeout_s
    STALL = "stall"  # silent for stall_timeout_s inside a reply
    HTTP_ERROR = "http_error"  # a status other than 200
    ERROR_CHUNK = "error_chunk"  # the stream says that the request failed
    TRUNCATED = "truncated"  # the reply ended without finish_reason
    NO_USAGE = "no_usage"  # the reply ended without its token counts
    GARBLED = "garbled"  # not HTTP, or not the JSON of a completion
    OVERSIZED = "oversized"  # longer than MAX_REPLY_BYTES


class RequestFailedError(Exception):
    """Raised by a transport when a request has no reply, or only part of one."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server, and the tokens a prompt may hold: `first_token_id` .. `vocab_size` − 1.

    `more_urls` names replicas of the server. The load is spread over all of them: stream k goes to
    server k mod their number, and so does arrival k of an open loop, with its whole conversation.
    `headers` go with every request. They may hold secrets, and are never shown or stored.
    """

    url: str
    model: str
    vocab_size: int
    first_token_id: int = 16  # many tokenizers have control tokens below this
    more_urls: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name, value in self.headers.items():
            if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
                raise ValueError(f"header {name!r}: not a header, or a value of several lines")
        for url in self.urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"url must start with http:// or https://, got {url!r}")
        if not 0 <= self.first_token_id < self.vocab_size - 1:
            raise ValueError(
                f"no two tokens in first_token_id={self.first_token_id} "
                f".. vocab_size={self.vocab_size}"
            )

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs of all replicas."""
        return (self.url, *self.more_urls)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """started ≤ opened ≤ closed ≤ ended; NaN for what a stopped run did not reach."""

    started_at_s: float
    opened_at_s: float
    closed_at_s: float
    ended_at_s: float
    clock_monotonic_s: float  # the same instant on two clocks, to line up …
    clock_utc_ns: int  # … with logs and traces


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHealth:
    """How busy the workers were over the window; a busy client measures its own queue."""

    transport: str
    workers: int
    cpu_frac: float  # of the busiest worker; 1 is one core, all that its event loop can use
    loop_lag_p99_s: float  # how late the event loop's timers were
    loop_lag_max_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    load: Load
    window: Window
    requests: Columns  # the fields of RequestRow
    chunks: Columns  # request, at_s: one row per content chunk
    client: ClientHealth


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """For display: counted while bytes arrive, before any parsing."""

    phase: str  # warmup | window | drain
    elapsed_s: float
    planned_s: float
    output_tok_per_s: float  # reads in the last moments, about one per token
    ttft_p50_s: float | None  # of the latest replies
    in_flight: int
    completed: int
    failed: int
    out_of_limits: int = 0  # ended requests due in the window that broke a limit of the `slo`


@dataclass(slots=True, kw_only=True, eq=False)
class Exchange:
    """One request and its raw reply; the transport fills it in as it happens."""

    request: int
    stream: int
    due_at_s: float
    input_tokens_asked: float
    output_tokens_asked: int
    conversation: int = 0
    turn: int = 1
    streamed: bool = True
    keep_text: bool = False
    sent_at_s: float = nan  # just before the request is written to an open connection
    ended_at_s: float = nan
    http_status: int | None = None
    read_at_s: list[float] = field(default_factory=list)  # when anything arrived
    pieces: list[bytes] = field(default_factory=list)  # the reply's body …
    piece_at_s: list[float] = field(default_factory=list)  # … and when each piece of it arrived
    failure: FailureKind | None = None
    detail: str = ""
    cut: bool = False
    secrets: Sequence[str] = ()  # must not be stored, should a server send them back
    text: str = ""  # of the answer, once read; only with `keep_text`
    told: "tuple[RequestRow, npt.NDArray[np.float64]] | None" = None

    def keep(self, piece: bytes, at_s: float) -> None:
        """Take a piece of the body."""
        self.pieces.append(piece)
        self.piece_at_s.append(at_s)

    def read(self) -> "tuple[RequestRow, npt.NDArray[np.float64]]":
        """The row, and when each content chunk arrived; parses once, then drops the bytes."""
        if self.told is None:
            self.told = read(self)
            self.pieces, self.piece_at_s = [], []
            self.read_at_s = []
        return self.told

    def looks_failed(self) -> bool:
        """A guess at no cost, to pace the run by; the verdict is that of `read`."""
        if self.failure or self.http_status != 200 or not self.pieces:
            return True
        return any(ERROR_MARK.search(piece) for piece in (self.pieces[0], self.pieces[-1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRow:
    """A row of the requests table. Undefined numbers are NaN, undefined texts are empty."""

    request: int  # its number: unique in the run, and in the X-Request-Id that was sent
    conversation: int  # the requests of one conversation share it
    turn: int  # in the conversation, from 1
    stream: int  # closed loop: which stream; open loop: equals conversation
    due_at_s: float  # closed loop: when the stream's last request ended, plus any pause
    sent_at_s: float
    first_at_s: float  # first content chunk
    last_at_s: float  # last content chunk; the end of a reply that is not streamed
    ended_at_s: float  # end of the reply
    input_tokens_asked: float  # NaN: text, whose tokens only the server can count
    output_tokens_asked: int
    input_tokens: float  # the server's count
    output_tokens: float  # the server's count
    cached_tokens: float  # input tokens from the prefix cache, if the server reports them
    num_chunks: int  # content chunks
    status: str
    failure: str
    http_status: float
    finish_reason: str
    detail: str


def is_out(row: RequestRow, slo: Slo) -> bool:
    """Whether one request failed or broke a limit: `not loadgen.metrics.keeps`, for one row."""
    if row.status == Status.FAILED:
        return True
    tokens, e2e_s = row.output_tokens, row.last_at_s - row.sent_at_s
    times = {"ttft_s": row.first_at_s - row.sent_at_s, "e2e_s": e2e_s, "tpot_s": nan}
    if tokens > 1:
        times["tpot_s"] = (row.last_at_s - row.first_at_s) / (tokens - 1)
    return any(times[name] > limit_s for name, limit_s in slo.limits.items())


DTYPES: dict[Any, Any] = {int: np.int64, float: np.float64, str: np.object_}


def tabulate(exchanges: Iterable[Exchange]) -> tuple[Columns, Columns]:
    """The tables (requests, chunks) of a run, in the order of the requests' numbers."""
    told = [exchange.read() for exchange in sorted(exchanges, key=lambda e: e.request)]
    rows = [row for row, _ in told]
    requests = {
        column.name: np.array([getattr(row, column.name) for row in rows], DTYPES[column.type])
        for column in fields(RequestRow)
    }
    chunks = {
        "request": np.repeat(requests["request"], requests["num_chunks"]),
        "at_s": np.concatenate([np.empty(0), *(at_s for _, at_s in told)]),
    }
    return requests, chunks


def merge(parts: Sequence[tuple[Columns, Columns]]) -> tuple[Columns, Columns]:
    """The tables of several workers as one, in the order of the requests' numbers."""
    if len(parts) == 1:
        return parts[0]
    return (
        _merged([requests for requests, _ in parts]),
        _merged([chunks for _, chunks in parts]),
    )


def _merged(parts: Sequence[Columns]) -> Columns:
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(whole["request"], kind="stable")
    return {name: column[order] for name, column in whole.items()}


def read(exchange: Exchange) -> tuple[RequestRow, npt.NDArray[np.float64]]:
    """Parse one reply: its row, and when each of its content chunks arrived."""
    if exchange.streamed:
        reply = parse_stream(exchange.pieces, keep_text=exchange.keep_text)
    elif exchange.cut or exchange.failure:
        reply = Reply()  # part of a JSON object cannot be parsed
    else:
        reply = parse_whole(exchange.pieces, keep_text=exchange.keep_text)
    exchange.text = "".join(reply.texts)
    status, failure, detail = judge(exchange, reply)
    at_s = np.array([exchange.piece_at_s[piece] for piece in reply.content_pieces])
    last_at_s = at_s[-1] if len(at_s) else nan
    if not exchange.streamed and status == Status.OK:
        last_at_s = exchange.piece_at_s[-1]
    usage = reply.usage
    cached = usage.cached_tokens if usage else None
    row = RequestRow(
        request=exchange.request,
        conversation=exchange.conversation,
        turn=exchange.turn,
        stream=exchange.stream,
        due_at_s=exchange.due_at_s,
        sent_at_s=exchange.sent_at_s,
        first_at_s=float(at_s[0]) if len(at_s) else nan,
        last_at_s=float(last_at_s),
        ended_at_s=exchange.ended_at_s,
        input_tokens_asked=exchange.input_tokens_asked,
        output_tokens_asked=exchange.output_tokens_asked,
        input_tokens=usage.input_tokens if usage else nan,
        output_tokens=usage.output_tokens if usage else nan,
        cached_tokens=nan if cached is None else cached,
        num_chunks=len(at_s),
        status=status,
        failure=failure or "",
        http_status=nan if exchange.http_status is None else exchange.http_status,
        finish_reason=reply.finish_reason or "",
        detail=_without(exchange.secrets, detail)[:DETAIL_CHARACTERS],
    )
    return row, at_s


def _without(secrets: Sequence[str], text: str) -> str:
    for secret in filter(None, secrets):
        for part in (secret, secret.removeprefix("Bearer ")):
            text = text.replace(part, "***")
    return text


def judge(exchange: Exchange, reply: Reply) -> tuple[Status, FailureKind | None, str]:
    """Whether a request succeeded. What the server said outranks how the stream ended."""
    complete = reply.finish_reason is not None and reply.usage is not None
    failed: tuple[FailureKind, str] | None = None
    if exchange.http_status not in (None, 200):
        said = b"".join(exchange.pieces).decode(errors="replace")
        failed = FailureKind.HTTP_ERROR, said or f"HTTP status {exchange.http_status}"
    elif reply.error is not None:
        failed = FailureKind.ERROR_CHUNK, reply.error
    elif reply.finish_reason in BAD_FINISH_REASONS:
        failed = FailureKind.ERROR_CHUNK, f"finish_reason: {reply.finish_reason}"
    elif exchange.failure is not None:
        failed = exchange.failure, exchange.detail
    elif reply.garbled is not None:
        failed = FailureKind.GARBLED, reply.garbled
    elif exchange.cut and not complete:
        return Status.CUT, None, ""
    elif reply.finish_reason is None:
        failed = FailureKind.TRUNCATED, "the reply ended without finish_reason"
    elif reply.usage is None:
        failed = FailureKind.NO_USAGE, "the reply ended without usage"
    if failed is None:
        return Status.OK, None, ""
    return Status.FAILED, *failed
