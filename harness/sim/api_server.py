"""The API server's process: where outputs become chunks, and HTTP requests become the engine's.

One core does both, in turns, as an event loop does. What a step of the engine put out becomes
chunks in slices of SLICE_STREAMS streams, a slice a turn; while what waits is no more than a slice,
vLLM takes all of it in one turn, and a stream that got several tokens meanwhile gets them in one
chunk. Between two such turns a request has one. It needs REQUEST_TURNS until it is on its way to
the engine, and ROTATION requests at most take turns with each other, first come, first served: so
requests reach the engine in bunches. `--api-server-count` servers are modelled as one that is so
many times as fast.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.sim.scheduler import Request

SLICE_STREAMS = 128  # vLLM's VLLM_V1_OUTPUT_PROC_CHUNK_SIZE
REQUEST_TURNS = 8
ROTATION = 16


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
    turns_left: int = REQUEST_TURNS  # of the API server, until it is on its way to the engine

    def takes_token(self) -> int:
        """Count one token; how many leave in a chunk now: the first, every Nth, the last."""
        self.held += 1
        generated = self.request.generated
        if generated > 1 and self.held < self.stream_interval and not self.request.finished:
            return 0
        leaving, self.held = self.held, 0
        return leaving


Output = tuple[Job, int, bool]  # stream, its number of tokens, whether they are the last


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One piece of work: chunks, or a part of a request's way."""

    ends_at_s: float
    chunks: Sequence[Output] = ()
    request: Job | None = None
    """The request that is on its way when the turn ends."""


class ApiServer:
    """It knows no clock: the engine ends a turn when it is due and begins the next one."""

    def __init__(
        self, *, slice_s: float, chunk_s: float, request_s: float, api_server_count: int = 1
    ) -> None:
        self.turn: Turn | None = None
        self.slice_s = slice_s
        self.chunk_s = chunk_s / api_server_count
        self.request_turn_s = request_s / api_server_count / REQUEST_TURNS
        self._slice_streams = SLICE_STREAMS * api_server_count
        self._outputs: deque[list[Output]] = deque()  # of a step each, or what is left of one
        self._requests: deque[Job] = deque()
        self._had_outputs = False  # in the turn before

    def take_outputs(self, outputs: list[Output]) -> None:
        """Of one step."""
        if outputs:
            self._outputs.append(outputs)

    def take_request(self, job: Job) -> None:
        self._requests.append(job)

    def begin_turn(self, at_s: float) -> None:
        """There is none when nothing waits."""
        if self._requests and (self._had_outputs or not self._outputs):
            self.turn = self._request_turn(at_s)
        elif self._outputs:
            self.turn = self._output_turn(at_s)
        else:
            self.turn = None
        self._had_outputs = self.turn is not None and bool(self.turn.chunks)

    def _output_turn(self, at_s: float) -> Turn:
        """All that waits, up to the first slice of what is more than one."""
        num_tokens: dict[Job, int] = {}
        last: set[Job] = set()
        num_slices, more = 0, False
        while self._outputs and not more:
            outputs = self._outputs.popleft()
            if more := len(outputs) > self._slice_streams:
                self._outputs.appendleft(outputs[self._slice_streams :])
            for job, number, is_last in outputs[: self._slice_streams]:
                num_tokens[job] = num_tokens.get(job, 0) + number
                if is_last:
                    last.add(job)
            num_slices += 1
        return Turn(
            ends_at_s=at_s + num_slices * self.slice_s + len(num_tokens) * self.chunk_s,
            chunks=[(job, number, job in last) for job, number in num_tokens.items()],
        )

    def _request_turn(self, at_s: float) -> Turn:
        job = self._requests.popleft()
        job.turns_left -= 1
        if job.turns_left:
            self._requests.insert(ROTATION - 1, job)
        return Turn(ends_at_s=at_s + self.request_turn_s, request=None if job.turns_left else job)
