"""The API server's process: where outputs become chunks, and HTTP requests become the engine's.

One core does both, a piece at a time, outputs first: all that wait become one chunk a stream; a new
request is taken when none waits. Below capacity no one notices. Above it, requests queue up here
before the engine sees them, and a stream that got several tokens meanwhile receives them in one
chunk. `--api-server-count` servers are modelled as one that is so many times as fast.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.sim.scheduler import Request


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """A request on its way through the server, with its times."""

    request: Request
    on_tokens: Callable[[int, bool], None]  # number of new tokens, whether they are the last
    stream_interval: int
    arrived_at_s: float
    queued: bool = False  # the scheduler has it
    scheduled_at_s: float | None = None
    first_at_s: float | None = None  # the engine had it; the API server delivers later
    computed_at_s: float = 0.0  # its newest token
    delivered_at_s: float | None = None
    held: int = 0  # tokens kept back for the next chunk
    waiting: int = 0  # tokens that the API server has not turned into a chunk yet

    def takes_token(self) -> int:
        """Count one token; how many leave in a chunk now: the first, every Nth, the last."""
        self.held += 1
        generated = self.request.generated
        if generated > 1 and self.held < self.stream_interval and not self.request.finished:
            return 0
        leaving, self.held = self.held, 0
        return leaving


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One piece of work: chunks, or a request."""

    ends_at_s: float
    chunks: Sequence[tuple[Job, int, bool]] = ()
    """Stream, its number of tokens, whether they are the last."""
    request: Job | None = None


class ApiServer:
    """It knows no clock: the engine ends a turn when it is due and begins the next one."""

    def __init__(self, *, chunk_s: float, request_s: float) -> None:
        self.turn: Turn | None = None
        self.chunk_s = chunk_s
        self.request_s = request_s
        self._outputs: list[Job] = []
        self._requests: deque[Job] = deque()

    def take_output(self, job: Job, num_tokens: int) -> None:
        if not job.waiting:
            self._outputs.append(job)
        job.waiting += num_tokens

    def take_request(self, job: Job) -> None:
        self._requests.append(job)

    def begin_turn(self, at_s: float) -> None:
        """There is none when nothing waits."""
        self.turn = None
        if self._outputs:
            ends_at_s = at_s + len(self._outputs) * self.chunk_s
            chunks = [(job, job.waiting, job.request.finished) for job in self._outputs]
            for job in self._outputs:
                job.waiting = 0
            self._outputs.clear()
            self.turn = Turn(ends_at_s=ends_at_s, chunks=chunks)
        elif self._requests:
            request = self._requests.popleft()
            self.turn = Turn(ends_at_s=at_s + self.request_s, request=request)
