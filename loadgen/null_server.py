"""A server with an exactly known schedule, to measure a client with; its log is the truth.

What the client reports minus what the log says is the client's own error. How late the server was
does not enter: the log has when each token was really written.
"""

import socket
from collections.abc import Collection
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from loadgen import child
from loadgen.null_process import MODEL, Pace, serve

Floats = npt.NDArray[np.float64]

START_TIMEOUT_S = 30.0


DIED = "the null server's process died"


class NullServerError(Exception):
    """The null server's process died or did not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLog:
    """What the server did: its requests in order of arrival, and every write of a token."""

    request: npt.NDArray[np.int64]  # the last part of X-Request-Id; −1 if there was none
    arrived_at_s: Floats  # when the last byte was read
    first_at_s: Floats  # when the first token was written; NaN if it was not
    last_at_s: Floats
    num_tokens: npt.NDArray[np.int64]  # tokens written
    written_at_s: Floats  # (tokens written,) of all requests
    late_s: Floats  # (tokens written,) behind the schedule

    @classmethod
    def read(cls, requests: bytes, writes: bytes) -> Self:
        """From rows of doubles: (request, arrived, first, last, tokens), and (written, late)."""
        rows, tokens = np.frombuffer(requests).reshape(-1, 5), np.frombuffer(writes).reshape(-1, 2)
        written_order = np.argsort(tokens[:, 0], kind="stable")
        arrival_order = np.argsort(rows[:, 1], kind="stable")
        rows, tokens = rows[arrival_order], tokens[written_order]
        return cls(
            request=rows[:, 0].astype(np.int64),
            arrived_at_s=rows[:, 1],
            first_at_s=rows[:, 2],
            last_at_s=rows[:, 3],
            num_tokens=rows[:, 4].astype(np.int64),
            written_at_s=tokens[:, 0],
            late_s=tokens[:, 1],
        )


class NullServer:
    """Answers /v1/completions and /v1/chat/completions on a free port, in its own processes.

    with NullServer(first_s=0.05, each_s=0.01) as server:
        …  # load server.url
        log = server.log()
    """

    model = MODEL

    def __init__(
        self,
        first_s: float = 0.05,
        each_s: float = 0.01,
        *,
        cores: Collection[int] = (),
        processes: int = 1,
    ) -> None:
        """`cores`: those it may run on. `processes`: how many the connections are spread over."""
        self._pace, self._cores, self._num_processes = Pace(first_s, each_s), cores, processes
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []

    def __enter__(self) -> Self:
        # Bound but not listening, this socket gets no connections; it reserves the port for the
        # processes that listen on it.
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._port.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._port.getsockname()[1]}"
        try:
            for _ in range(self._num_processes):
                self._start()
            for pipe in self._pipes:
                self._hear(pipe, START_TIMEOUT_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()  # tells the process to end
        for process in self._processes:
            process.terminate()
            process.join()
            process.close()
        self._processes, self._pipes = [], []
        self._port.close()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def pace(self, first_s: float, each_s: float) -> None:
        """Set the schedule of new requests; none may be in flight. A new log begins."""
        self._pace = Pace(first_s, each_s)
        self.log()

    def log(self) -> ServerLog:
        """What the server did since the last call."""
        try:
            for pipe in self._pipes:
                pipe.send(self._pace)
        except ConnectionError as error:
            raise NullServerError(DIED) from error
        parts = [self._hear(pipe) for pipe in self._pipes]
        return ServerLog.read(*(b"".join(part) for part in zip(*parts, strict=True)))

    def _start(self) -> None:
        port = self._port.getsockname()[1]
        process, pipe = child.start("null server", serve, port, self._pace, self._cores)
        self._processes.append(process)
        self._pipes.append(pipe)

    def _hear(self, pipe: Connection, timeout_s: float | None = None) -> Any:
        try:
            if not wait([pipe], timeout_s):
                raise NullServerError(f"the null server did not start in {timeout_s:g} s")
            return pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise NullServerError(DIED) from error
