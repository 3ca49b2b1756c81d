"""The parent's side of the load: worker processes that last for many runs, and each run's phases.

The workers report what has happened; the parent decides what follows: when the load starts, when
the window opens, and when the run is over. One worker is not a special case.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from math import inf, isnan, nan
from multiprocessing.connection import Connection, wait
from time import perf_counter
from typing import Any, Self

from loadgen import child
from loadgen.config import Client, Load, Slo
from loadgen.loop import Share
from loadgen.messages import Crash, Job, Open, Outcome, Prepared, Reached, Start, Stop
from loadgen.records import ClientHealth, Progress, Result, Target, merge
from loadgen.worker import serve

STOP_TIMEOUT_S = 0.5
TICK_S = 0.25  # how often `on_progress` and `should_stop` are called
# From a decision until it takes effect, so that the order has reached every worker by then.
LEAD_S = 0.01
Message = Prepared | Progress | Reached | Outcome | Crash


class WorkerError(Exception):
    """A worker process died, or has a bug; the message says which."""


class Worker:
    """One worker process, and our end of the pipe to it."""

    def __init__(self, core: int | None) -> None:
        self._process, self.pipe = child.start("loadgen", serve, core)
        self.pid = self._process.pid or 0

    def tell(self, message: Job | Start | Open | Stop) -> None:
        self._or_died(self.pipe.send, message)

    def hear(self) -> Message:
        message: Message = self._or_died(self.pipe.recv)
        return message

    def stop(self) -> None:
        """Close the pipe, which tells the worker to end; kill it if it does not in time."""
        self.pipe.close()
        self._process.join(STOP_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    def _or_died(self, act: Callable[..., Any], *arguments: object) -> Any:
        try:
            return act(*arguments)
        except (EOFError, ConnectionError) as error:
            self._process.join(STOP_TIMEOUT_S)
            code = self._process.exitcode
            raise WorkerError(f"the load generator's process died, exit code {code}") from error


class Generator:
    """Runs loads, one at a time, in its own processes.

    with Generator() as generator:
        result = generator.run(load, target, seed=1)
    """

    def __init__(self, client: Client | None = None, *, cores: Sequence[int] = ()) -> None:
        """`cores`: workers are pinned to one each, in turn; if empty, they are not pinned."""
        self._client = client or Client()
        self._cores = cores
        self._workers: list[Worker] = []

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def pids(self) -> list[int]:
        """The workers' process ids; empty while there are no workers."""
        return [worker.pid for worker in self._workers]

    def run(
        self,
        load: Load,
        target: Target,
        *,
        seed: int,
        on_progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        slo: Slo | None = None,
    ) -> Result:
        """Drive the target, and return every request and chunk.

        About four times per second, `on_progress` and `should_stop` are called; once the latter
        returns True, the run ends at once with what it has. With `slo`, progress counts the
        requests that broke a limit. No two runs against one server may have the same seed: their
        prompts would be the same. After an exception (Ctrl-C included) the load has ended, and the
        next run starts new workers. Raises ValueError if the transport does not suit the URL, and
        WorkerError if a worker dies.
        """
        for url in target.urls:
            self._client.transport_for(url)
        self._begin()
        run = _Run(self._workers, load, on_progress, should_stop)
        try:
            for index, worker in enumerate(self._workers):
                share = Share(index, len(self._workers))
                worker.tell(
                    Job(
                        load=load,
                        target=target,
                        seed=seed,
                        client=self._client,
                        share=share,
                        slo=slo,
                    )
                )
            return run.result()
        except BaseException:
            self._stop()
            raise

    def _begin(self) -> None:
        while len(self._workers) < (self._client.workers or 1):
            index = len(self._workers)
            core = self._cores[index % len(self._cores)] if self._cores else None
            self._workers.append(Worker(core))

    def _stop(self) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers = []


class _Run:
    """One run, as the parent sees it."""

    def __init__(
        self,
        workers: Sequence[Worker],
        load: Load,
        on_progress: Callable[[Progress], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._load = load
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._workers: dict[Connection, Worker] = {worker.pipe: worker for worker in workers}
        self._prepared: set[Worker] = set()
        self._reached: set[Worker] = set()
        self._progress: dict[Worker, Progress] = {}
        self._outcomes: dict[Worker, Outcome] = {}
        self._started_at_s = nan
        self._decided = False  # closed loop: to open the window; open loop: that the run is over
        self._stopped = False
        self._told_at_s = -inf

    def result(self) -> Result:
        """Listen to the workers until all have handed in their results."""
        while len(self._outcomes) < len(self._workers):
            for pipe in wait(list(self._workers), timeout=self._patience_s()):
                assert isinstance(pipe, Connection)
                self._heard(self._workers[pipe])
            self._decide()
            self._show()
        return self._merged()

    def _heard(self, worker: Worker) -> None:
        match worker.hear():
            case Prepared():
                self._prepared.add(worker)
                if len(self._prepared) == len(self._workers):
                    self._started_at_s = perf_counter() + LEAD_S
                    self._tell(Start(self._started_at_s))
            case Reached():
                self._reached.add(worker)
            case Progress() as progress:
                self._progress[worker] = progress
            case Outcome() as outcome:
                self._outcomes[worker] = outcome
            case Crash() as crash:
                raise WorkerError(f"a bug in the load generator:\n{crash.report}")

    def _decide(self) -> None:
        """Begin the next phase once all workers have reached it, or the wait is over."""
        if self._decided or isnan(self._started_at_s):
            return
        now_s = perf_counter()
        if len(self._reached) < len(self._workers) and now_s < self._deadline_s():
            return
        self._decided = True
        if self._load.is_open:
            self._tell(Stop())
        else:
            self._tell(Open(max(now_s + LEAD_S, self._started_at_s + self._load.warmup_s)))

    def _deadline_s(self) -> float:
        load = self._load
        after_s = load.planned_s + load.drain_s if load.is_open else load.warmup_max_s
        return self._started_at_s + after_s

    def _patience_s(self) -> float:
        if self._decided or isnan(self._started_at_s):
            return TICK_S
        return min(TICK_S, max(0.0, self._deadline_s() - perf_counter()))

    def _show(self) -> None:
        if perf_counter() - self._told_at_s < TICK_S:
            return
        self._told_at_s = perf_counter()
        if self._on_progress and len(self._progress) == len(self._workers):
            self._on_progress(_together(list(self._progress.values())))
        if self._should_stop and not self._stopped and self._should_stop():
            self._stopped = self._decided = True
            self._tell(Stop())

    def _tell(self, message: Start | Open | Stop) -> None:
        for worker in self._workers.values():
            worker.tell(message)

    def _merged(self) -> Result:
        outcomes = list(self._outcomes.values())
        window = outcomes[0].window
        requests, chunks = merge([(o.requests, o.chunks) for o in outcomes])
        return Result(
            load=self._load,
            window=dataclasses.replace(
                window, ended_at_s=max(o.window.ended_at_s for o in outcomes)
            ),
            requests=requests,
            chunks=chunks,
            client=_worst([o.health for o in outcomes]),
        )


def _together(parts: Sequence[Progress]) -> Progress:
    ttft_p50_s = [part.ttft_p50_s for part in parts if part.ttft_p50_s is not None]
    return dataclasses.replace(
        parts[0],
        output_tok_per_s=sum(part.output_tok_per_s for part in parts),
        ttft_p50_s=statistics.median(ttft_p50_s) if ttft_p50_s else None,
        in_flight=sum(part.in_flight for part in parts),
        completed=sum(part.completed for part in parts),
        failed=sum(part.failed for part in parts),
        out_of_limits=sum(part.out_of_limits for part in parts),
    )


def _worst(parts: Sequence[ClientHealth]) -> ClientHealth:
    return ClientHealth(
        transport=parts[0].transport,
        workers=len(parts),
        cpu_frac=max(part.cpu_frac for part in parts),
        loop_lag_p99_s=max(part.loop_lag_p99_s for part in parts),
        loop_lag_max_s=max(part.loop_lag_max_s for part in parts),
    )
