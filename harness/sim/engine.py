"""The loop that runs the scheduler's steps in time.

A step begins where the last one ended on the roofline's time line, not when the CPU got round to
it, so that lateness of the timer does not add up. Only when this process is more than CATCH_UP_S
late is the time line moved; the sum of these moves is `sim:step_lag_seconds_total`, the time by
which the simulator was slower than the GPU it imitates.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.sim.fault import Fault
from harness.sim.metrics import Metrics
from harness.sim.roofline import Roofline
from harness.sim.scheduler import Request, Scheduler, Step

CATCH_UP_S = 5e-3

log = logging.getLogger(__name__)


class Timer(Protocol):
    def set(self, at_s: float) -> None: ...


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """A request on its way through the engine, with its times."""

    request: Request
    on_tokens: Callable[[int, bool], None]  # number of new tokens, whether they are the last
    stream_interval: int
    arrived_at_s: float
    scheduled_at_s: float | None = None
    first_at_s: float | None = None  # the engine had it; the API server delivers later
    delivered_at_s: float | None = None
    held: int = 0  # tokens kept back for the next chunk

    def takes_token(self) -> int:
        """Count one token; how many leave in a chunk now: the first, every Nth, the last."""
        self.held += 1
        generated = self.request.generated
        if generated > 1 and self.held < self.stream_interval and not self.request.finished:
            return 0
        leaving, self.held = self.held, 0
        return leaving


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    at_s: float
    computed_at_s: float
    chunks: list[tuple[Job, int, bool]]


class Engine:
    """`start` gives it its timer, whose ringing must call `wake`."""

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
        self._api_free_at_s = 0.0
        self._deliveries: deque[Delivery] = deque()
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
        self._api_free_at_s = max(self._api_free_at_s, now_s) + self._roofline.api_s(requests=1)
        self._jobs[job.request] = job
        self.scheduler.add(job.request)
        if self._step is None:
            self._begin_step(now_s)
            self._set_timer()
        return job

    def abort(self, job: Job) -> None:
        """The client is gone. What was computed for it already is dropped."""
        if self._jobs.pop(job.request, None) is not None:
            self.scheduler.abort(job.request)
            self.metrics.aborted(len(job.request.prompt), job.request.generated)

    def wake(self) -> None:
        """Do what is due: deliver chunks, end the step and begin the next one."""
        now_s = self._clock()
        while self._deliveries and self._deliveries[0].at_s <= now_s:
            self._deliver(self._deliveries.popleft(), now_s)
        if self._step is not None and self._step_ends_at_s <= now_s:
            self._end_step(self._step, now_s)
        self._set_timer()

    def _set_timer(self) -> None:
        due = [self._step_ends_at_s] if self._step is not None else []
        due += [self._deliveries[0].at_s] if self._deliveries else []
        if due:
            self._timer.set(min(due))

    def _begin_step(self, at_s: float) -> None:
        limit = self._fault.hang_after_tokens
        if limit is not None and self._generated >= limit:
            self._step = None
            return
        preemptions = self.scheduler.preemptions
        queries, hits = self.scheduler.prefix_queries, self.scheduler.prefix_hits
        step = self.scheduler.schedule()
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
        self._step_ends_at_s = at_s + self._roofline.step_s(step.work)

    def _end_step(self, step: Step, now_s: float) -> None:
        ended_at_s = self._step_ends_at_s
        chunks = []
        for request in self.scheduler.complete(step):
            job = self._jobs[request]
            if job.first_at_s is None:
                job.first_at_s = ended_at_s
            self._count_token()
            if leaving := job.takes_token():
                chunks.append((job, leaving, request.finished))
        api_s = self._roofline.api_s(chunks=len(chunks))
        self._api_free_at_s = max(self._api_free_at_s, ended_at_s) + api_s
        if chunks:
            delivery = Delivery(at_s=self._api_free_at_s, computed_at_s=ended_at_s, chunks=chunks)
            self._deliveries.append(delivery)
        moved_s = max(0.0, now_s - ended_at_s - CATCH_UP_S)
        self.metrics.stepped(step.tokens, moved_s)
        self._begin_step(ended_at_s + moved_s)

    def _count_token(self) -> None:
        self._generated += 1
        if self._generated == self._fault.die_after_tokens:
            _die("die_after_tokens")

    def _deliver(self, delivery: Delivery, now_s: float) -> None:
        for job, num_tokens, last in delivery.chunks:
            if job.request not in self._jobs:  # aborted after its tokens were computed
                continue
            self._observe(job, num_tokens, delivery, last=last)
            if last:
                del self._jobs[job.request]
            job.delivered_at_s = now_s
            job.on_tokens(num_tokens, last)

    def _observe(self, job: Job, num_tokens: int, delivery: Delivery, *, last: bool) -> None:
        metrics = self.metrics
        if job.delivered_at_s is None:
            metrics.first_token(len(job.request.prompt), delivery.at_s - job.arrived_at_s)
            metrics.tokens(num_tokens)
        else:
            metrics.tokens(num_tokens, gap_s=delivery.at_s - job.delivered_at_s)
        if last:
            assert job.scheduled_at_s is not None
            assert job.first_at_s is not None
            metrics.completed(
                prompt_tokens=len(job.request.prompt),
                generation_tokens=job.request.generated,
                e2e_s=delivery.at_s - job.arrived_at_s,
                # a step may begin in the past, so before a request that it takes
                queue_s=max(0.0, job.scheduled_at_s - job.arrived_at_s),
                prefill_s=job.first_at_s - job.scheduled_at_s,
                decode_s=delivery.computed_at_s - job.first_at_s,
            )


def _die(fault: str) -> None:
    log.error("EngineCore encountered a fatal error: --fault %s.", fault)
    os._exit(1)
