"""The null server's process: one epoll loop that writes each token when it is due, and logs when.

It avoids asyncio, whose timers have a resolution of a millisecond and whose writes cost twice a
`send`. It imports little, so a process starts in 50 ms. Stamps are taken after a read and before a
write, so time spent in the kernel counts as the client's error.
"""

import gc
import json
import re
import resource
import select
import socket
from array import array
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import chain, count
from math import nan
from multiprocessing.connection import Connection
from os import sched_setaffinity
from time import perf_counter

WRITES_A_TURN = 8  # before the next look at what has arrived, so that its stamps are accurate
READ_BYTES = 2**16
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
REQUEST = re.compile(rb"\r\nx-request-id:[^\r]*-(\d+)\r", re.I)
ASKED = re.compile(rb" *(\d+)")
DEFAULT_TOKENS = 16  # vLLM's default for max_tokens

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
MODEL = "null"
MODELS = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode()
PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Pace:
    """Delays from a request's last byte to its first token, and from each token to the next."""

    first_s: float
    each_s: float


class Endpoint:
    """The events of one endpoint; a token's is about 230 bytes long, like vLLM's."""

    def __init__(self, identity: str, kind: str, says: dict[str, object]) -> None:
        self._common = {"id": identity + "0" * 32, "object": kind, "created": 1700000000}
        self._says = says
        self.token, self._last = self._token(None), self._token("length")

    def last(self, prompt_tokens: int, completion_tokens: int) -> bytes:
        """The last token's event, and all that follows it."""
        counts = {
            "prompt_tokens": prompt_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "completion_tokens": completion_tokens,
        }
        return self._last + self._event(choices=[], usage=counts) + DONE

    def _token(self, finish_reason: str | None) -> bytes:
        choice = {"index": 0, **self._says, "logprobs": None, "finish_reason": finish_reason}
        return self._event(choices=[choice | {"stop_reason": None}], usage=None)

    def _event(self, **fields: object) -> bytes:
        event = self._common | {"model": MODEL} | fields
        data = b"data: %s\n\n" % json.dumps(event, separators=(",", ":")).encode()
        return b"%x\r\n%s\r\n" % (len(data), data)


COMPLETIONS = Endpoint("cmpl-", "text_completion", {"text": " t123"})
CHAT = Endpoint("chatcmpl-", "chat.completion.chunk", {"delta": {"content": " t123"}})


@dataclass(slots=True, eq=False)
class Peer:
    """A connection, and the one request that may be in progress on it."""

    socket: socket.socket
    seen: bytearray = field(default_factory=bytearray)
    body_at: int = 0  # 0: the head is incomplete
    whole: int = 0  # bytes of the whole request
    token: bytes = b""
    last: bytes = b""
    left: int = 0  # tokens
    due_at_s: float = nan
    row: list[float] = field(default_factory=list)  # request, arrived, first, last, num_tokens


class Server:
    """Writes tokens when they are due.

    All replies have the same two delays, so each of two queues in order of arrival (first tokens,
    next tokens) is also in order of due time.
    """

    def __init__(self, listener: socket.socket, pipe: Connection, pace: Pace) -> None:
        self._listener, self._pipe, self._pace = listener, pipe, pace
        self._peers: dict[int, Peer] = {}
        self._firsts: deque[Peer] = deque()
        self._nexts: deque[Peer] = deque()
        self._rows: list[list[float]] = []
        self._chunks = array("d")  # alternating: when written, how late
        self._epoll = select.epoll()
        self._epoll.register(listener, select.EPOLLIN)
        self._epoll.register(pipe.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Serve until the parent closes the pipe, which raises EOFError."""
        while True:
            self._write_due()
            queue = self._earliest()
            left_s = queue[0].due_at_s - perf_counter() if queue else None
            if left_s is None or left_s > 0:
                select.select([self._epoll], (), (), left_s)  # to the microsecond, unlike poll
            self._look()

    def _earliest(self) -> deque[Peer]:
        firsts, nexts = self._firsts, self._nexts
        return firsts if not nexts or (firsts and firsts[0].due_at_s < nexts[0].due_at_s) else nexts

    def _write_due(self) -> None:
        for writes in count(1):
            queue = self._earliest()
            if not queue or queue[0].due_at_s > perf_counter():
                return
            self._write(queue.popleft())
            if writes % WRITES_A_TURN == 0:
                self._look()

    def _write(self, peer: Peer) -> None:
        peer.left -= 1
        at_s = perf_counter()
        if not self._sent(peer, peer.token if peer.left else peer.last):
            return
        self._chunks.append(at_s)
        self._chunks.append(at_s - peer.due_at_s)
        row = peer.row
        if not row[4]:
            row[2] = at_s
        row[4] += 1
        if peer.left:
            peer.due_at_s += self._pace.each_s
            self._nexts.append(peer)
        else:
            row[3] = at_s

    def _sent(self, peer: Peer, data: bytes) -> bool:
        """Send all of it, or hang up on a client whose buffer is full: waiting breaks schedules."""
        try:
            if peer.socket.send(data) == len(data):
                return True
        except OSError:  # gone, or full
            pass
        self._drop(peer)
        return False

    def _drop(self, peer: Peer) -> None:
        if self._peers.pop(peer.socket.fileno(), None):
            peer.socket.close()

    def _look(self) -> None:
        for file, _ in self._epoll.poll(0):
            if peer := self._peers.get(file):
                self._read(peer)
            elif file == self._pipe.fileno():
                self._hand_over(self._pipe.recv())
            elif file == self._listener.fileno():
                self._welcome()

    def _hand_over(self, pace: Pace) -> None:
        """Send the log since the last time; new requests get the new pace."""
        rows = array("d", chain.from_iterable(self._rows))
        self._pipe.send((rows.tobytes(), self._chunks.tobytes()))
        self._pace, self._rows, self._chunks = pace, [], array("d")

    def _welcome(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:  # the client is gone again
            return
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peers[accepted.fileno()] = Peer(accepted)
        self._epoll.register(accepted, select.EPOLLIN)

    def _read(self, peer: Peer) -> None:
        try:
            data = peer.socket.recv(READ_BYTES)
        except OSError:
            data = b""
        arrived_at_s = perf_counter()
        if not data or peer.left:  # end of stream, or a request before the last reply ended
            self._drop(peer)
            return
        peer.seen += data
        if not peer.body_at and (end := peer.seen.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(peer.seen, 0, end)
            peer.body_at = end + 4
            peer.whole = peer.body_at + (int(length[1]) if length else 0)
        if peer.body_at and len(peer.seen) >= peer.whole:
            self._answer(peer, arrived_at_s)

    def _answer(self, peer: Peer, arrived_at_s: float) -> None:
        seen, body_at = peer.seen, peer.body_at
        peer.seen, peer.body_at = bytearray(), 0
        if not seen.startswith(b"POST"):
            self._sent(peer, PAGE % (len(MODELS), MODELS))
            return
        if not self._sent(peer, HEAD):
            return
        number = REQUEST.search(seen, 0, body_at)
        endpoint = CHAT if b"/chat/" in seen[: seen.index(b"\r\n")] else COMPLETIONS
        asked = num_asked(seen, body_at)
        peer.token, peer.left = endpoint.token, asked
        peer.last = endpoint.last(num_ids(seen, body_at), asked)
        peer.row = [float(number[1]) if number else -1.0, arrived_at_s, nan, nan, 0.0]
        self._rows.append(peer.row)
        peer.due_at_s = arrived_at_s + self._pace.first_s
        self._firsts.append(peer)


def num_asked(request: bytearray, body_at: int) -> int:
    """max_tokens. Searched for, not parsed: the JSON of a long prompt would take milliseconds."""
    for name in (b'"max_tokens":', b'"max_completion_tokens":'):
        at = request.find(name, body_at)
        if at >= 0 and (asked := ASKED.match(request, at + len(name))):
            return max(1, int(asked[1]))
    return DEFAULT_TOKENS


def num_ids(request: bytearray, body_at: int) -> int:
    """The number of token ids in the prompt; for text, of words."""
    at = request.find(b'"prompt":', body_at)
    if at >= 0 and request[at + 9 : at + 11].lstrip().startswith(b"["):
        return request.count(b",", at, request.find(b"]", at)) + 1
    return len(request[body_at:].split(b" "))


def serve(pipe: Connection, port: int, pace: Pace, cores: Collection[int]) -> None:
    """Listen on the port beside the other processes, report that, and serve to the end."""
    if cores:
        sched_setaffinity(0, cores)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a connection is an open file
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(4096)
        listener.setblocking(False)
        pipe.send(None)
        gc.disable()  # nothing here makes cycles
        try:
            Server(listener, pipe, pace).run()
        except (EOFError, ConnectionError):
            return  # the parent is gone
