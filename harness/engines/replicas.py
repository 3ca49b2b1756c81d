"""Several servers with the same setting, each on its own GPUs, measured as if they were one.

The client spreads the load over them (loadgen/spread.py), so there is no router whose cost would be
measured too.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from time import sleep
from typing import TypeVar

from harness.engines.facts import Facts
from harness.engines.failure import EngineFailed, Failure
from harness.engines.process import Exit
from harness.engines.server import POLL_S, Server, Setup
from harness.engines.start import starting

# What it can take to end a process tree, the gentlest first.
NEEDED = ("sigint", "already dead", "sigterm", "sigkill", "unknown")
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Replicas:
    """The counterpart of `Server` for several servers, with what is known of each combined."""

    servers: tuple[Server, ...]

    @property
    def urls(self) -> tuple[str, ...]:
        """Where to send the load."""
        return tuple(server.url for server in self.servers)

    @property
    def root_pids(self) -> tuple[int, ...]:
        """The roots of all process trees."""
        return tuple(pid for server in self.servers for pid in server.root_pids)

    @property
    def model(self) -> str:
        """The name under which they serve the model."""
        return self.servers[0].model

    @property
    def facts(self) -> Facts:
        """The facts of the first, as all are alike, but with the KV caches of all added up."""
        facts = [server.facts for server in self.servers]
        tokens = [f.kv_cache_tokens for f in facts if f.kv_cache_tokens is not None]
        total = sum(tokens) if len(tokens) == len(facts) else None
        return replace(facts[0], kv_cache_tokens=total)

    @property
    def startup_s(self) -> dict[str, float]:
        """The startup phases of the server that took longest."""
        return max((s.startup_s for s in self.servers), key=lambda phases: sum(phases.values()))

    @property
    def first_token_timeout_s(self) -> float:
        """How long to wait for a token."""
        return self.servers[0].first_token_timeout_s

    def failure(self, token_within_s: float | None = None) -> Failure | None:
        """Like `Server.failure`: that of the first server that has failed."""
        for number, server in enumerate(self.servers):
            if (failure := server.failure(token_within_s)) is not None:
                return _of_replica(number, failure)
        return None

    def tail(self) -> tuple[str, ...]:
        """The last lines of each log."""
        return tuple(line for server in self.servers for line in server.tail())

    def settle(self) -> None:
        """`Server.settle` for each in turn."""
        for server in self.servers:
            server.settle()

    def step_lag_s(self) -> float | None:
        """The largest `Server.step_lag_s` of all; None for real servers."""
        lags_s = [lag_s for server in self.servers if (lag_s := server.step_lag_s()) is not None]
        return max(lags_s, default=None)

    def stop(self) -> Exit:
        """End all process trees in parallel. Idempotent."""
        exits = _at_once([server.stop for server in self.servers])
        released = {end.gpu_memory_released for end in exits}
        return Exit(
            code=next((end.code for end in exits if end.code), exits[0].code),
            needed=max((end.needed for end in exits), key=NEEDED.index),
            took_s=max(end.took_s for end in exits),
            survivors=tuple(pid for end in exits for pid in end.survivors),
            gpu_memory_released=False if False in released else None if None in released else True,
        )


AnyServer = Server | Replicas


def launch_all(
    setups: Sequence[Setup], folder: Path, on_phase: Callable[[str], None] | None = None
) -> Replicas:
    """Start servers in parallel, and wait for a first token from each; if one fails, all are ended.

    Each has its own folder below `folder`: replica-0, replica-1, … `on_phase` hears of the first.
    Raises EngineFailed, with nothing left running.
    """
    starts = {
        number: starting(setup, folder / f"replica-{number}", on_phase if number == 0 else None)
        for number, setup in enumerate(setups)
    }
    up: dict[int, Server] = {}
    try:
        while True:
            for number in sorted(starts.keys() - up.keys()):
                try:
                    next(starts[number])
                except StopIteration as end:
                    up[number] = end.value
                except EngineFailed as error:
                    raise EngineFailed(_of_replica(number, error.failure)) from error
            if len(up) == len(starts):
                return Replicas(servers=tuple(up[number] for number in starts))
            sleep(POLL_S)
    except BaseException:  # Ctrl-C included: nothing may be left running
        ends: list[Callable[[], object]] = [start.close for start in starts.values()]
        _at_once([*ends, *(server.stop for server in up.values())])
        raise


def _of_replica(number: int, failure: Failure) -> Failure:
    return replace(failure, message=f"replica {number}: {failure.message}")


def _at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [done.result() for done in [pool.submit(call) for call in calls]]
