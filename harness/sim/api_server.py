"""The API server's process, which turns outputs into chunks and HTTP requests into engine requests.

One core does both in turns, like an event loop. The outputs of an engine step become chunks in
slices of up to SLICE_STREAMS streams. As in vLLM, a turn takes all outputs that wait, step by step,
up to and including the first slice of a step that has more than one; a stream with several tokens
among them gets these in a single chunk. Between two such turns, one request gets a turn. A request
needs REQUEST_TURNS turns before it is on its way to the engine. Up to ROTATION requests alternate,
first come, first served, so requests reach the engine in bunches. `--api-server-count` N is
modelled as one server that is N times as fast.
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
    """A request on its way through the server, with its timestamps."""

    request: Request
    on_tokens: Callable[[int, bool], None]  # number of new tokens, whether they are the last
    stream_interval: int
    arrived_at_s: float
    queued: bool = False  # whether the scheduler has it
    scheduled_at_s: float | None = None
    first_at_s: float | None = None  # when the engine had its first token; it is delivered later
    computed_at_s: float = 0.0  # when the engine had its newest token
    delivered_at_s: float | None = None
    held: int = 0  # tokens kept back for the next chunk
    turns_left: int = REQUEST_TURNS  # of the API server, before it is on its way to the engine

    def takes_token(self) -> int:
        """Count one token, and return how many leave now in a chunk.

        Chunks leave with the first token, at every `stream_interval`-th, and with the last.
        """
        self.held += 1
        generated = self.request.generated
        if generated > 1 and self.held < self.stream_interval and not self.request.finished:
            return 0
        leaving, self.held = self.held, 0
        return leaving


Output = tuple[Job, int, bool]  # stream, number of tokens, whether they are the last


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One piece of work: writing chunks, or one of a request's REQUEST_TURNS."""

    ends_at_s: float
    chunks: Sequence[Output] = ()
    request: Job | None = None
    """The request that is on its way when the turn ends."""


class ApiServer:
    """The API server, without a clock: the engine ends each turn on time and begins the next."""

    def __init__(
        self, *, slice_s: float, chunk_s: float, request_s: float, api_server_count: int = 1
    ) -> None:
        self.turn: Turn | None = None
        self.slice_s = slice_s
        self.chunk_s = chunk_s / api_server_count
        self.request_turn_s = request_s / api_server_count / REQUEST_TURNS
        self._slice_streams = SLICE_STREAMS * api_server_count
        self._outputs: deque[list[Output]] = deque()  # one list per step, or what is left of it
        self._requests: deque[Job] = deque()
        self._had_outputs = False  # whether the turn before wrote chunks

    def take_outputs(self, outputs: list[Output]) -> None:
        """Queue the outputs of one engine step."""
        if outputs:
            self._outputs.append(outputs)

    def take_request(self, job: Job) -> None:
        self._requests.append(job)

    def begin_turn(self, at_s: float) -> None:
        """Begin the next turn; `turn` is None if nothing waits."""
        if self._requests and (self._had_outputs or not self._outputs):
            self.turn = self._request_turn(at_s)
        elif self._outputs:
            self.turn = self._output_turn(at_s)
        else:
            self.turn = None
        self._had_outputs = self.turn is not None and bool(self.turn.chunks)

    def _output_turn(self, at_s: float) -> Turn:
        """Takes all waiting outputs, up to the first slice of a step that has more than one."""
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
