"""A spawned child process with a pipe to it: it ignores Ctrl-C and ends with its parent."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess


def start(
    name: str, serve: Callable[..., None], *arguments: object
) -> tuple[BaseProcess, Connection]:
    """Run `serve(its end of the pipe, *arguments)` in a new process; return it and our end."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs, *arguments), name=name, daemon=True)
    with _interrupts_blocked():
        process.start()
    theirs.close()  # else the pipe would not close when the process dies
    return process, ours


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT, so that a child started here never sees Ctrl-C: the parent handles it."""
    # Otherwise `process.start()` would start the tracker, and that unblocks SIGINT again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
