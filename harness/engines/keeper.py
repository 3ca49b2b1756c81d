"""The keeper of one server: it owns the server's process tree, and leaves nothing of it behind.

    python keeper.py LOG -- COMMAND…

It sits between the harness and the server, in its own session, because only a process that outlives
the harness can clean up after it. As a child subreaper (prctl(2)) it inherits every descendant
whose parent has died, so even a worker that called setsid or was orphaned stays below it.

It speaks in lines. On stdout it writes {"pid": …} once the server runs, {"exit_code": …} as soon as
that has exited, and finally {"needed": …, "took_s": …, "survivors": […]}. On stdin it reads "stop
GRACE_S PID", where PID is the descendant to interrupt: the server, or the one that a profiler
wraps. End of file on stdin means that the harness is gone, for whatever reason.

It uses the standard library only, so that it starts in some 50 ms and can be run by its path.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

# The next two are maxima, further limited to the GRACE_S of an order to stop.
TIDY_S = 2.0  # after the server's exit, for resource trackers and workers to exit by themselves
TERM_S = 5.0  # from SIGTERM to SIGKILL
ORPHAN_TERM_S = 1.0  # the same when the harness is gone
KILL_S = 20.0  # after SIGKILL: the kernel frees a GPU's memory before the process is gone

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
prctl = ctypes.CDLL(None, use_errno=True).prctl


class Keeper:
    """One server's life: start it, wait for its exit or an order to stop, and end what is left."""

    def __init__(self, log: str, command: list[str]) -> None:
        self.abandoned = False  # the harness is gone, or somebody signalled the keeper to end
        self.exit_code: int | None = None
        self.order: list[str] | None = None
        self.needed = "already dead"
        self._input = b""
        if prctl(PR_SET_CHILD_SUBREAPER, 1) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
        # Every signal becomes a byte in a pipe, so that a single select() waits for everything.
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        os.set_blocking(0, False)
        keeper = os.getpid()

        def die_with_keeper() -> None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != keeper:  # the keeper died before the line above
                os._exit(1)

        with open(log, "ab", buffering=0) as output:  # noqa: PTH123
            server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_keeper,  # safe: this process has one thread
                process_group=0,  # a server that signals its group does not hit the keeper
            )
        server.returncode = 0  # `_reap` reaps it, with the orphans; subprocess must not
        self.pid = server.pid

    def run(self) -> None:
        say(pid=self.pid)
        self._wait(lambda: self.order is not None or self.exit_code is not None, None)
        started_at_s = time.perf_counter()
        grace_s = TERM_S
        if self.exit_code is None and self.order is not None and not self.abandoned:
            grace_s = float(self.order[0])
            self._interrupt(int(self.order[1]), grace_s)
        if self.exit_code is not None and not self.abandoned:
            self._wait(lambda: not descendants(), min(TIDY_S, grace_s))
        self._end_all(ORPHAN_TERM_S if self.abandoned else min(TERM_S, grace_s))
        if self.exit_code is None:
            self._wait(lambda: self.exit_code is not None, KILL_S)
        say(
            needed=self.needed,
            took_s=time.perf_counter() - started_at_s,
            survivors=sorted(descendants()),
        )

    def _interrupt(self, pid: int, grace_s: float) -> None:
        self.needed = "sigint"
        started = descendants().get(pid)
        if started is not None:
            send(pid, started, signal.SIGINT)
        self._wait(lambda: self.exit_code is not None, grace_s)

    def _end_all(self, term_s: float) -> None:
        """SIGTERM to the whole tree, a pause, then SIGKILL until none is left."""
        if not descendants():
            return
        by_itself = self.exit_code is not None and self.needed == "already dead"
        self._signal_all(signal.SIGTERM)
        needed = "sigterm"
        gone = self._wait(lambda: not descendants(), term_s, hurry=False)
        if not gone:
            needed = "sigkill"
            deadline_s = time.perf_counter() + KILL_S
            while descendants() and time.perf_counter() < deadline_s:  # a fork may outrun one round
                self._signal_all(signal.SIGKILL)
                self._wait(lambda: not descendants(), 0.2, hurry=False)
        if not by_itself:
            self.needed = needed

    def _signal_all(self, number: signal.Signals) -> None:
        for pid, started in descendants().items():
            send(pid, started, number)

    def _wait(
        self, done: Callable[[], bool], timeout_s: float | None, *, hurry: bool = True
    ) -> bool:
        """Wait for `done`, and return what it says; with `hurry`, only while the harness lives."""
        deadline_s = None if timeout_s is None else time.perf_counter() + timeout_s
        while True:
            self._reap()
            if done() or (hurry and self.abandoned):
                return done()
            left_s = None if deadline_s is None else deadline_s - time.perf_counter()
            if left_s is not None and left_s <= 0:
                return False
            watched = [self._wake] if self.abandoned else [self._wake, 0]
            ready, _, _ = select.select(watched, [], [], left_s)
            if self._wake in ready and set(os.read(self._wake, 4096)) - {signal.SIGCHLD}:
                self.abandoned = True
            if 0 in ready:
                self._listen()

    def _listen(self) -> None:
        received = os.read(0, 4096)
        self.abandoned = self.abandoned or not received
        *lines, self._input = (self._input + received).split(b"\n")
        for line in lines:
            word, *arguments = line.decode().split()
            if word == "stop" and self.order is None:
                self.order = arguments

    def _reap(self) -> None:
        """Collect every child that has exited: the server, and orphans that were inherited."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
                say(exit_code=self.exit_code)


def descendants() -> dict[int, int]:
    """All living processes below this one: pid -> start time in clock ticks since boot."""
    children: dict[int, list[tuple[int, int]]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit() and (stat := read_stat(int(name))) is not None:
            parent, started = stat
            children.setdefault(parent, []).append((int(name), started))
    found: dict[int, int] = {}
    parents = [os.getpid()]
    while parents:
        for pid, started in children.get(parents.pop(), []):
            found[pid] = started
            parents.append(pid)
    return found


def read_stat(pid: int) -> tuple[int, int] | None:
    """A process's parent and start time; None if it is gone or a zombie. See proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[1]), int(fields[19])


def send(pid: int, started: int, number: signal.Signals) -> None:
    """Signal that very process: if its pid was reused by another one, nothing is sent."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        stat = read_stat(pid)  # the handle pins the process; the start time proves it is the one
        if stat is not None and stat[1] == started:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def say(**values: object) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        os.write(1, json.dumps(values).encode() + b"\n")


def main() -> None:
    log, separator, *command = sys.argv[1:]
    if separator != "--" or not command:
        raise SystemExit("usage: keeper.py LOG -- COMMAND…")
    Keeper(log, command).run()


if __name__ == "__main__":
    main()
