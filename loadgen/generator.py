"""The parent's side of the load: one worker process, kept for many runs."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, Self

from loadgen.config import Load
from loadgen.records import Progress, Result, Target
from loadgen.worker import Crash, Job, Stop, serve

STOP_TIMEOUT_S = 0.5


class WorkerError(Exception):
    """The worker process died, or has a bug; the message says which."""


class Worker:
    """One worker process, and our end of the pipe to it."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(theirs,), name="loadgen", daemon=True)
        with _interrupts_blocked():
            self._process.start()
        theirs.close()  # else the pipe would never say that the worker is gone
        self.pid = self._process.pid

    def tell(self, message: Job | Stop) -> None:
        self._or_died(self._pipe.send, message)

    def hear(self) -> Progress | Result | Crash:
        message: Progress | Result | Crash = self._or_died(self._pipe.recv)
        return message

    def stop(self) -> None:
        """Close the pipe, which the worker takes as the order to end; kill it if it is busy."""
        self._pipe.close()
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
    """Runs loads, one at a time, in a process of its own.

    with Generator() as generator:
        result = generator.run(load, target, seed=1)
    """

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def __enter__(self) -> Self:
        self._worker = Worker()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def pid(self) -> int | None:
        """The worker's; None while there is none."""
        return self._worker.pid if self._worker else None

    def run(
        self,
        load: Load,
        target: Target,
        *,
        seed: int,
        on_progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Result:
        """Drive the target and return all that was seen; about 4 times a second, tell and ask.

        When `should_stop` says so the run ends at once, with what it has. No two runs against one
        server may have the same seed: their prompts would be the same. After an exception (Ctrl-C
        too) the load has ended, and the next run starts a new worker.
        """
        worker = self._worker = self._worker or Worker()
        stopped = False
        try:
            worker.tell(Job(load=load, target=target, seed=seed))
            while True:
                match worker.hear():
                    case Result() as result:
                        return result
                    case Crash() as crash:
                        raise WorkerError(f"a bug in the load generator:\n{crash.report}")
                    case Progress() as progress:
                        if on_progress is not None:
                            on_progress(progress)
                        if should_stop is not None and not stopped and should_stop():
                            worker.tell(Stop())
                            stopped = True
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Ctrl-C is the parent's: a child started in here does not see it, from its first instant."""
    resource_tracker.ensure_running()  # else the start below does it, and unblocks SIGINT again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
