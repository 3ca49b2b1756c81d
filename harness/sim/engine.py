"""The loop that runs the scheduler's steps in time.

All is scheduled on one simulated timeline: engine steps, the API server's turns, and requests on
their way. A step begins on it exactly where the last one ended, not when the CPU got round to it,
so timer lateness does not accumulate. Only when this process is more than CATCH_UP_S late is the
timeline shifted. These shifts add up to `sim:step_lag_seconds_total`: by how much the simulator was
slower than the GPU it imitates.
"""

import logging
import math
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from harness.sim.api_server import ApiServer, Job, Output, Turn
from harness.sim.fault import Fault
from harness.sim.metrics import Metrics
from harness.sim.roofline import API_LATENCY_S, Roofline
from harness.sim.scheduler import Request, Scheduler, Step

CATCH_UP_S = 5e-3

log = logging.getLogger(__name__)


class Timer(Protocol):
    def set(self, at_s: float) -> None: ...


class Engine:
    """The simulated engine. `start` sets its timer, which must call `wake` when it rings."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        roofline: Roofline,
        metrics: Metrics,
        fault: Fault,
        clock: Callable[[], float],
    ) -> None:
        self.scheduler = scheduler
        self.metrics = metrics
        self._roofline = roofline
        self._fault = fault
        self._clock = clock
        self._timer: Timer
        self._jobs: dict[Request, Job] = {}
        self._step: Step | None = None
        self._step_ends_at_s = 0.0
        self.api_server = ApiServer(
            slice_s=roofline.api_slice_s,
            chunk_s=roofline.api_chunk_s,
            request_s=roofline.api_request_s,
            api_server_count=roofline.api_server_count,
        )
        self._travelling: deque[tuple[float, Job]] = deque()  # by when they reach the engine
        self._unplanned: list[Job] = []
        self._generated = 0

    def start(self, timer: Timer) -> None:
        self._timer = timer

    def submit(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        on_tokens: Callable[[int, bool], None],
        *,
        stream_interval: int = 1,
    ) -> Job:
        if len(prompt) > (self._fault.die_over_prompt_of or len(prompt)):
            _die("die_over_prompt_of")
        now_s = self._clock()
        job = Job(
            request=Request(prompt=prompt, max_tokens=max_tokens),
            on_tokens=on_tokens,
            stream_interval=stream_interval,
            arrived_at_s=now_s,
        )
        self._jobs[job.request] = job
        self.api_server.take_request(job)
        if self.api_server.turn is None:
            self.api_server.begin_turn(now_s)
            self._set_timer()
        return job

    def abort(self, job: Job) -> None:
        """Drop a request whose client is gone, with what was computed for it so far."""
        if self._jobs.pop(job.request, None) is not None:
            if job.queued:
                self.scheduler.abort(job.request)
            self.metrics.aborted(len(job.request.prompt), job.request.generated)

    def wake(self) -> None:
        """Do what is due, in order of time: end an API server turn, queue a request, end a step."""
        now_s = self._clock()
        while (due_at_s := self._due_at_s()) <= now_s:
            turn = self.api_server.turn
            if turn is not None and turn.ends_at_s == due_at_s:
                self._end_turn(turn, now_s)
            elif self._travelling and self._travelling[0][0] == due_at_s:
                self._queue(*self._travelling.popleft())
            else:
                assert self._step is not None
                self._end_step(self._step, now_s)
        self._set_timer()

    def _due_at_s(self) -> float:
        turn = self.api_server.turn
        return min(
            turn.ends_at_s if turn is not None else math.inf,
            self._travelling[0][0] if self._travelling else math.inf,
            self._step_ends_at_s if self._step is not None else math.inf,
        )

    def _set_timer(self) -> None:
        if (due_at_s := self._due_at_s()) < math.inf:
            self._timer.set(due_at_s)

    def _end_turn(self, turn: Turn, now_s: float) -> None:
        self._deliver(turn, now_s)
        if turn.request is not None:
            self._travelling.append((turn.ends_at_s + API_LATENCY_S, turn.request))
        self.api_server.begin_turn(turn.ends_at_s)

    def _queue(self, at_s: float, job: Job) -> None:
        """Handle a request that reaches the engine.

        With asynchronous scheduling the next step is planned already, so it joins the one after.
        """
        if self._step is not None and self._roofline.async_scheduling:
            self._unplanned.append(job)
            return
        self._add_to_scheduler([job])
        if self._step is None:
            self._begin_step(at_s, idle_before=True)

    def _add_to_scheduler(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.request in self._jobs:  # not aborted meanwhile
                job.queued = True
                self.scheduler.add(job.request)

    def _begin_step(self, at_s: float, *, idle_before: bool = False) -> None:
        limit = self._fault.hang_after_tokens
        if limit is not None and self._generated >= limit:
            self._step = None
            return
        preemptions = self.scheduler.preemptions
        queries, hits = self.scheduler.prefix_queries, self.scheduler.prefix_hits
        step = self.scheduler.schedule()
        unplanned, self._unplanned = self._unplanned, []
        self._add_to_scheduler(unplanned)
        if not step.shares and unplanned:
            step, idle_before = self.scheduler.schedule(), True
        self.metrics.scheduled(
            preemptions=self.scheduler.preemptions - preemptions,
            prefix_queries=self.scheduler.prefix_queries - queries,
            prefix_hits=self.scheduler.prefix_hits - hits,
        )
        if not step.shares:
            self._step = None
            return
        for request, _ in step.shares:
            job = self._jobs[request]
            if job.scheduled_at_s is None:
                job.scheduled_at_s = at_s
        self._step = step
        self._step_ends_at_s = at_s + self._roofline.step_s(step.work, idle_before=idle_before)

    def _end_step(self, step: Step, now_s: float) -> None:
        ended_at_s = self._step_ends_at_s
        outputs: list[Output] = []
        for request in self.scheduler.complete(step):
            job = self._jobs[request]
            job.computed_at_s = ended_at_s
            if job.first_at_s is None:
                job.first_at_s = ended_at_s
            self._count_token()
            if leaving := job.takes_token():
                outputs.append((job, leaving, request.finished))
        self.api_server.take_outputs(outputs)
        if self.api_server.turn is None:
            self.api_server.begin_turn(ended_at_s)
        moved_s = max(0.0, now_s - ended_at_s - CATCH_UP_S)
        self.metrics.stepped(step.tokens, moved_s)
        self._begin_step(ended_at_s + moved_s)

    def _count_token(self) -> None:
        self._generated += 1
        if self._generated == self._fault.die_after_tokens:
            _die("die_after_tokens")

    def _deliver(self, turn: Turn, now_s: float) -> None:
        for job, num_tokens, last in turn.chunks:
            if job.request not in self._jobs:  # aborted after its tokens were computed
                continue
            self._observe(job, num_tokens, turn.ends_at_s, last=last)
            if last:
                del self._jobs[job.request]
            job.delivered_at_s = now_s
            job.on_tokens(num_tokens, last)

    def _observe(self, job: Job, num_tokens: int, at_s: float, *, last: bool) -> None:
        metrics = self.metrics
        if job.delivered_at_s is None:
            metrics.first_token(len(job.request.prompt), at_s - job.arrived_at_s)
            metrics.tokens(num_tokens)
        else:
            metrics.tokens(num_tokens, gap_s=at_s - job.delivered_at_s)
        if last:
            assert job.scheduled_at_s is not None
            assert job.first_at_s is not None
            metrics.completed(
                prompt_tokens=len(job.request.prompt),
                generation_tokens=job.request.generated,
                e2e_s=at_s - job.arrived_at_s,
                # a step may begin in the past, and so before a request in it arrived
                queue_s=max(0.0, job.scheduled_at_s - job.arrived_at_s),
                prefill_s=job.first_at_s - job.scheduled_at_s,
                decode_s=job.computed_at_s - job.first_at_s,
            )


def _die(fault: str) -> None:
    log.error("EngineCore encountered a fatal error: --fault %s.", fault)
    os._exit(1)
