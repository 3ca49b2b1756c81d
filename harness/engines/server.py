"""A server that can be measured: watched while it serves, then ended with nothing left behind.

harness/engines/start.py brings it up.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, sleep

from harness.engines import http
from harness.engines.facts import METRICS, Facts, total
from harness.engines.failure import Failure, FailureKind, classify, tail
from harness.engines.process import Exit, Process
from monitors.nvml import memory_used_bytes

POLL_S = 0.2
HEALTH_TIMEOUT_S = 5.0
DEATH_S = 10.0  # a server whose engine died takes some seconds to exit; then its log tells why
SETTLE_S = 10.0
MEMORY_BACK_S = 20.0  # two H200s have taken 6 s
MEMORY_SLACK_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What it takes to start a server, of whatever kind."""

    command: Callable[[int], Sequence[str]]  # given the port
    executable: str  # the interpreter that serves; `command` may wrap it in a profiler
    env: Mapping[str, str]
    model: str
    port: int | None
    gpu_uuids: Sequence[str]
    start_timeout_s: float
    first_token_timeout_s: float
    stop_timeout_s: float


@dataclass(slots=True, kw_only=True)
class Server:
    """A server that has generated a token. `own` is None if somebody else runs it."""

    url: str
    model: str  # the name under which it serves the model
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
        """The roots of all process trees; none if somebody else runs the server."""
        return () if self.pid is None else (self.pid,)

    @property
    def log(self) -> Path | None:
        """The server's log file; None if somebody else runs it."""
        return self.own.process.log if self.own else None

    def pids(self) -> frozenset[int]:
        """The pids of all living processes of the server."""
        return self.own.process.pids() if self.own else frozenset()

    def failure(self, token_within_s: float | None = None) -> Failure | None:
        """Whether it has died, which is cheap to ask.

        With `token_within_s`, also whether it can still generate a token within that time.
        """
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
        """The log's last lines, of those written since the server was up."""
        return tail(self.own.told()) if self.own else ()

    def settle(self) -> None:
        """Wait until no request is left in the server, then drop its cached prefixes.

        Does nothing for a server that somebody else runs: others may be using it.
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
        """How far a simulator has fallen behind its own clock in total; None for a real server."""
        return total(http.page(f"{self.url}{METRICS}"), "sim:step_lag_seconds_total")

    def stop(self) -> Exit:
        """End the whole process tree and wait for its GPU memory. Idempotent."""
        if self.own is None:
            return Exit(code=None, needed="not ours", took_s=0.0)
        return self.own.stop()


@dataclass(slots=True, kw_only=True)
class Own:
    """What the harness keeps about a server that it started."""

    process: Process
    setup: Setup
    memory_before: Mapping[str, int]  # bytes in use on each GPU before the start, by uuid
    log_offset: int = 0  # where the log begins that was written since the server was up
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


def _memory_is_back(before: Mapping[str, int]) -> bool | None:
    """Whether the GPUs' memory is free again, waiting up to MEMORY_BACK_S; None without NVML."""
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
