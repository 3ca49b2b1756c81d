"""A server that can be measured: started, proven to generate, watched, and ended without a trace.

Up means: `/health` says 200, a process of the server's own tree is the one that answers, and one
real token came back. Each of these has been seen to fail while the ones before it held.
"""

import contextlib
import shlex
import socket
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, sleep

from harness.engines import http
from harness.engines.facts import (
    FIRST_TOKEN,
    METRICS,
    PAGES,
    Facts,
    facts_of,
    first_phase,
    phase_after,
    phases,
    total,
)
from harness.engines.failure import EngineFailed, Failure, FailureKind, classify, tail
from harness.engines.process import Exit, Follower, Process, port_owner
from harness.environment import masked
from monitors.nvml import memory_used_bytes

HOST = "127.0.0.1"
PORT_TRIES = 3  # a free port can be lost between the look and the server's bind
POLL_S = 0.2
HEALTH_TIMEOUT_S = 5.0
PAGE_TIMEOUT_S = 30.0  # /server_info looks at the whole machine first: 1.5 s seen
DEATH_S = 10.0  # a server whose engine died takes some seconds to exit, and its log tells why
SETTLE_S = 10.0
MEMORY_BACK_S = 20.0  # seen: 6 s on two H200
MEMORY_SLACK_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the generic start must know of a server."""

    command: Callable[[int], Sequence[str]]  # for a port
    executable: str  # the interpreter that serves, if `command` wraps it in a profiler
    env: Mapping[str, str]
    model: str
    port: int | None
    gpu_uuids: Sequence[str]
    start_timeout_s: float
    first_token_timeout_s: float
    stop_timeout_s: float


@dataclass(slots=True, kw_only=True)
class Server:
    """A server that has generated a token. `own` is None for one that somebody else runs."""

    url: str
    model: str  # by which name it serves it
    facts: Facts
    startup_s: dict[str, float]
    first_token_timeout_s: float
    own: "Own | None" = None

    @property
    def urls(self) -> tuple[str, ...]:
        """Where to send the load; more than one with replicas."""
        return (self.url,)

    @property
    def pid(self) -> int | None:
        """The root of the process tree."""
        return self.own.process.pid if self.own else None

    @property
    def root_pids(self) -> tuple[int, ...]:
        """The roots of all process trees; none of a server that somebody else runs."""
        return () if self.pid is None else (self.pid,)

    @property
    def log(self) -> Path | None:
        """Where it writes."""
        return self.own.process.log if self.own else None

    def pids(self) -> frozenset[int]:
        """All living processes of the server."""
        return self.own.process.pids() if self.own else frozenset()

    def failure(self, token_within_s: float | None = None) -> Failure | None:
        """Has it died? Cheap. With `token_within_s`, also: does it still generate a token?"""
        if self.own and self.own.process.has_exited():
            return classify(self.own.told(), self.own.process.exit_code, served=True)
        if token_within_s is None:
            return None
        try:
            refusal = http.refusal(self.url, self.model, timeout_s=token_within_s)
        except TimeoutError:
            message = f"the server runs, but generated no token within {token_within_s:.0f} s"
            return Failure(kind=FailureKind.HANGS, message=message, evidence=self.tail())
        except OSError as error:
            refusal = str(error)
        if refusal is None:
            return None
        if self.own and self.own.process.has_exited(within_s=DEATH_S):
            return self.failure()
        message = f"the server no longer generates: {refusal}"
        return Failure(kind=FailureKind.DIED_UNDER_LOAD, message=message, evidence=self.tail())

    def tail(self) -> tuple[str, ...]:
        """The log's last lines since the server was up."""
        return tail(self.own.told()) if self.own else ()

    def settle(self) -> None:
        """Wait until no request is left in the server, then forget cached prefixes.

        Nothing is done to a server that somebody else runs, nor waited for: others may use it.
        """
        if self.own is None:
            return
        deadline_s = perf_counter() + SETTLE_S
        while perf_counter() < deadline_s and not self.own.process.has_exited(within_s=POLL_S / 4):
            metrics = http.page(f"{self.url}{METRICS}")
            busy = [total(metrics, f"vllm:num_requests_{what}") for what in ("running", "waiting")]
            if not any(busy):
                break
        with contextlib.suppress(OSError):  # it is dead or stuck: `failure` will say
            http.request(f"{self.url}/reset_prefix_cache", timeout_s=HEALTH_TIMEOUT_S, body={})

    def step_lag_s(self) -> float | None:
        """How far a simulator has fallen behind its own clock, in sum; None for a real server."""
        return total(http.page(f"{self.url}{METRICS}"), "sim:step_lag_seconds_total")

    def stop(self) -> Exit:
        """End the whole process tree and wait for its GPU memory. Idempotent."""
        if self.own is None:
            return Exit(code=None, needed="not ours", took_s=0.0)
        return self.own.stop()


@dataclass(slots=True, kw_only=True)
class Own:
    """What the harness holds of a server that it started."""

    process: Process
    setup: Setup
    memory_before: Mapping[str, int]  # used on each GPU, in bytes, by uuid
    log_offset: int = 0  # where the log of the serving begins
    exit: Exit | None = None

    def told(self) -> str:
        """The log, from `log_offset` on."""
        with self.process.log.open("rb") as file:
            file.seek(self.log_offset)
            return file.read().decode(errors="replace")

    def stop(self) -> Exit:
        """End the process tree, and wait until its GPU memory is free again. Idempotent."""
        if self.exit is None:
            serving = self.process.topmost(self.setup.executable)
            ended = self.process.stop(self.setup.stop_timeout_s, serving)
            released = _memory_is_back(self.memory_before)
            self.exit = replace(ended, gpu_memory_released=released)
        return self.exit


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
    """The same in steps: the first starts it, each one after that looks how far it is.

    Nothing is left running when it raises, nor when it is closed before its end.
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
    """One try to start a server, on one port."""

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
        """Until the first token. Raises EngineFailed."""
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


def _memory_is_back(before: Mapping[str, int]) -> bool | None:
    """Whether the GPUs hold as little as before the start, after a while; None without NVML."""
    if not before:
        return None
    deadline_s = perf_counter() + MEMORY_BACK_S
    while True:
        now = memory_used_bytes(list(before))
        if all(now.get(u, 0) <= used + MEMORY_SLACK_BYTES for u, used in before.items()):
            return True
        if perf_counter() > deadline_s:
            return False
        sleep(POLL_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _shell(env: Mapping[str, str], command: Sequence[str]) -> str:
    """The command as a shell would take it, with what it adds to the environment."""
    told = {name: shlex.quote(masked(name, value)) for name, value in env.items()}
    words = [*(f"{name}={value}" for name, value in told.items()), shlex.join(command)]
    return " \\\n  ".join(words) + "\n"
