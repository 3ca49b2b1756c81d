"""A server's process tree, as the harness sees it: started, watched and ended by its keeper."""

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil

from harness.engines import keeper

# How long a keeper may take beyond the grace to end a tree and report, at worst.
KEEPER_S = keeper.TIDY_S + keeper.TERM_S + 2 * keeper.KILL_S + 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a server ended: its exit code (-N: killed by signal N), and what ended the tree."""

    code: int | None
    needed: str  # sigint | sigterm | sigkill | already dead | not ours | unknown (keeper killed)
    took_s: float
    survivors: tuple[int, ...] = ()
    gpu_memory_released: bool | None = None  # None: no GPU, or NVML cannot say


class Process:
    """A running command with everything it starts. `stop` ends it; so does the harness's death."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.log = log
        # The keeper's own errors (such as a missing command) go to the log, too.
        # -I -S: isolated from the environment and this folder, and faster to start.
        with log.open("ab") as faults:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, str(log), "--", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=faults,
                env={**os.environ, **env},
                start_new_session=True,  # Ctrl-C in the terminal is for the harness alone
                bufsize=0,
            )
        self._told: dict[str, Any] = {}
        self._heard = b""
        self._silent = False  # the keeper has closed its stdout
        self._exit: Exit | None = None
        while "pid" not in self._told and not self._silent:
            self._listen(None)
        self.pid: int = self._told.get("pid", self._keeper.pid)

    @property
    def exit_code(self) -> int | None:
        """The server's exit code; None while it runs, or if the keeper died first."""
        code: int | None = self._told.get("exit_code")
        return code

    def has_exited(self, within_s: float = 0.0) -> bool:
        """Whether the server has exited; waits up to `within_s` for it."""
        deadline_s = perf_counter() + within_s
        while not self._silent and "exit_code" not in self._told:
            if not self._listen(max(0.0, deadline_s - perf_counter())):
                return False
        return True

    def pids(self) -> frozenset[int]:
        """The pids of all living processes of the server, orphans included."""
        return frozenset(process.pid for process in self._processes())

    def listens_on(self, port: int) -> bool:
        """Whether a process of this tree listens on that TCP port."""
        return any(port in _listening_ports(process) for process in self._processes())

    def topmost(self, executable: str) -> int:
        """The first process below a wrapper (a profiler) that runs `executable`, or the root."""
        for process in self._processes():  # parents come before their children
            try:
                if Path(process.exe()).samefile(executable):
                    return process.pid
            except (psutil.Error, OSError):
                continue
        return self.pid

    def stop(self, grace_s: float, interrupt: int | None = None) -> Exit:
        """SIGINT to `interrupt`; after `grace_s`, SIGTERM and SIGKILL if needed. Idempotent."""
        if self._exit is not None:
            return self._exit
        started_at_s = perf_counter()
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the keeper has ended, or was killed
            self._keeper.stdin.write(f"stop {grace_s} {interrupt or self.pid}\n".encode())
        deadline_s = started_at_s + grace_s + KEEPER_S
        while not self._silent and perf_counter() < deadline_s:
            self._listen(deadline_s - perf_counter())
        self._keeper.stdin.close()
        self._keeper.stdout.close()
        if not self._silent:
            self._keeper.kill()
        self._keeper.wait()
        self._exit = Exit(
            code=self.exit_code,
            needed=self._told.get("needed", "unknown"),
            took_s=perf_counter() - started_at_s,
            survivors=tuple(self._told.get("survivors", ())),
        )
        return self._exit

    def _processes(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self._keeper.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _listen(self, timeout_s: float | None) -> bool:
        """Take in what the keeper says; False if it says nothing in time."""
        assert self._keeper.stdout is not None
        stream = self._keeper.stdout.fileno()
        if not select.select([stream], [], [], timeout_s)[0]:
            return False
        received = os.read(stream, 4096)
        self._silent = not received
        *lines, self._heard = (self._heard + received).split(b"\n")
        for line in lines:
            self._told |= json.loads(line)
        return True


class Follower:
    """Reads a growing log from `offset` on: complete lines, each stamped when it was read."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._rest = b""
        self.offset = log.stat().st_size if log.exists() else 0
        self.lines: list[tuple[float, str]] = []

    def read(self) -> list[str]:
        """The lines added since the last call."""
        with self._log.open("rb") as file:
            file.seek(self.offset)
            received = file.read()
        self.offset += len(received)
        at_s = perf_counter()
        *complete, self._rest = (self._rest + received).split(b"\n")
        # a progress bar rewrites itself on one line: keep its last state
        new = [
            line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace") for line in complete
        ]
        self.lines += [(at_s, line) for line in new]
        return new

    def text(self) -> str:
        """Everything read so far, an incomplete last line included."""
        return "\n".join([*(line for _, line in self.lines), self._rest.decode(errors="replace")])


def port_owner(port: int) -> int | None:
    """The pid listening on a TCP port of this machine; 0 if it cannot be seen, None if free."""
    for connection in psutil.net_connections(kind="tcp"):
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
        ):
            return connection.pid or 0
    return None


def _listening_ports(process: psutil.Process) -> set[int]:
    try:
        connections = process.net_connections(kind="tcp")
    except psutil.Error:
        return set()
    return {c.laddr.port for c in connections if c.laddr and c.status == psutil.CONN_LISTEN}
