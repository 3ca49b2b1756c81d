"""The start of a server: from its command to one proven to generate, or to why it is not.

A server is up once `/health` says 200, the process that answers belongs to the server's own tree,
and one real token has come back. Each of these has been seen to fail while those before it held.
"""

import contextlib
import shlex
import socket
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from time import perf_counter, sleep

from harness.engines import http
from harness.engines.facts import FIRST_TOKEN, PAGES, facts_of, first_phase, phase_after, phases
from harness.engines.failure import EngineFailed, Failure, FailureKind, classify, tail
from harness.engines.process import Follower, Process, port_owner
from harness.engines.server import DEATH_S, HEALTH_TIMEOUT_S, POLL_S, Own, Server, Setup
from harness.environment import masked
from monitors.nvml import memory_used_bytes

HOST = "127.0.0.1"
PORT_TRIES = 3  # a free port can be lost between the look and the server's bind
PAGE_TIMEOUT_S = 30.0  # /server_info looks at the whole machine first: 1.5 s seen


def launch(setup: Setup, folder: Path, on_phase: Callable[[str], None] | None = None) -> Server:
    """Start a server and wait for its first token; `folder` takes server.log and command.txt.

    Raises EngineFailed, with nothing left running.
    """
    with contextlib.closing(starting(setup, folder, on_phase)) as start:
        while True:
            try:
                next(start)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            sleep(POLL_S)


def starting(
    setup: Setup, folder: Path, on_phase: Callable[[str], None] | None = None
) -> Generator[None, None, Server]:
    """`launch` in steps: the first starts the server, each later one checks its progress.

    Nothing is left running when this raises, or is closed before its end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if setup.port is not None and (owner := port_owner(setup.port)) is not None:
        by = f"by process {owner}" if owner else "by a process of another user"
        message = f"port {setup.port} is taken {by}: leave engine.port unset to get a free one"
        raise EngineFailed(Failure(kind=FailureKind.PORT_TAKEN, message=message, evidence=()))
    memory_before = memory_used_bytes(setup.gpu_uuids) if setup.gpu_uuids else {}
    for tries_left in reversed(range(PORT_TRIES)):
        start = _Start(setup, setup.port or _free_port(), folder, on_phase or (lambda _: None))
        own = Own(process=start.process, setup=setup, memory_before=memory_before)
        try:
            return (yield from start.wait(own))
        except BaseException as error:  # Ctrl-C included: nothing may be left running
            own.stop()
            lost_port = isinstance(error, EngineFailed) and (
                error.failure.kind is FailureKind.PORT_TAKEN and setup.port is None
            )
            if not lost_port or not tries_left:
                raise
    raise AssertionError("not reached")


class _Start:
    """One attempt to start a server, on one port."""

    def __init__(
        self, setup: Setup, port: int, folder: Path, on_phase: Callable[[str], None]
    ) -> None:
        self._setup = setup
        self._port = port
        self._on_phase = on_phase
        self._url = f"http://{HOST}:{port}"
        log = folder / "server.log"
        command = setup.command(port)
        (folder / "command.txt").write_text(_shell(setup.env, command))
        self._follower = Follower(log)
        self._started_at_s = perf_counter()
        self.process = Process(command, setup.env, log)
        self._phase: str | None = None

    def wait(self, own: Own) -> Generator[None, None, Server]:
        """Wait for the first token. Raises EngineFailed."""
        self._enter(first_phase())
        yield from self._wait_for_health()
        if not self.process.listens_on(self._port):
            message = f"another process answers on port {self._port}: stop it, or take another port"
            raise self._failed(FailureKind.PORT_TAKEN, message)
        up_at_s = perf_counter()
        self._enter(FIRST_TOKEN)
        self._wait_for_token()
        token_at_s = perf_counter()
        self._follower.read()
        own.log_offset = self._follower.offset
        pages = {path: http.page(f"{self._url}{path}", timeout_s=PAGE_TIMEOUT_S) for path in PAGES}
        return Server(
            url=self._url,
            model=self._setup.model,
            facts=facts_of(self._follower.text(), pages),
            startup_s=phases(self._follower.lines, self._started_at_s, up_at_s, token_at_s),
            first_token_timeout_s=self._setup.first_token_timeout_s,
            own=own,
        )

    def _wait_for_health(self) -> Generator[None, None, None]:
        timeout_s = self._setup.start_timeout_s
        while perf_counter() < self._started_at_s + timeout_s:
            yield
            if self.process.has_exited():
                raise self._died()
            for line in self._follower.read():
                self._enter(phase_after(line))
            try:
                answer = http.request(f"{self._url}/health", timeout_s=HEALTH_TIMEOUT_S)
            except OSError:
                continue
            if answer.status == 200:
                return
        message = (
            f"not up within {timeout_s:.0f} s: raise engine.start_timeout_s if it only is slow"
        )
        raise self._failed(FailureKind.START_TIMEOUT, message)

    def _wait_for_token(self) -> None:
        timeout_s = self._setup.first_token_timeout_s
        try:
            refusal = http.refusal(self._url, self._setup.model, timeout_s=timeout_s)
        except TimeoutError:
            message = f"/health says 200, but no token came within {timeout_s:.0f} s"
            raise self._failed(FailureKind.HANGS, message) from None
        except OSError as error:
            refusal = str(error)
        if refusal is None:
            return
        if self.process.has_exited(within_s=DEATH_S):
            raise self._died()
        message = f"/health says 200, but the first request failed: {refusal}"
        raise self._failed(FailureKind.DIED_AT_START, message)

    def _enter(self, phase: str | None) -> None:
        if phase is not None and phase != self._phase:
            self._phase = phase
            self._on_phase(phase)

    def _died(self) -> EngineFailed:
        self.process.stop(0.0)  # what is left of its tree may still write to the log
        self._follower.read()
        return EngineFailed(classify(self._follower.text(), self.process.exit_code))

    def _failed(self, kind: FailureKind, message: str) -> EngineFailed:
        self._follower.read()
        evidence = tail(self._follower.text())
        return EngineFailed(Failure(kind=kind, message=message, evidence=evidence))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _shell(env: Mapping[str, str], command: Sequence[str]) -> str:
    """The command as one would type it in a shell, with its environment; secrets are masked."""
    told = {name: shlex.quote(masked(name, value)) for name, value in env.items()}
    words = [*(f"{name}={value}" for name, value in told.items()), shlex.join(command)]
    return " \\\n  ".join(words) + "\n"
