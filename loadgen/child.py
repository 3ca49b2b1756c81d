"""A child process and a pipe to it: spawned, deaf to Ctrl-C, and gone with its parent."""

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
    """Run `serve(their end of the pipe, *arguments)` in a new process; it, and our end."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs, *arguments), name=name, daemon=True)
    with _interrupts_blocked():
        process.start()
    theirs.close()  # else the pipe would never say that the process is gone
    return process, ours


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Ctrl-C is the parent's: a child started in here does not see it, from its first instant."""
    resource_tracker.ensure_running()  # else the start below does it, and unblocks SIGINT again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
