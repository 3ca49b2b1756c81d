"""One run on a running server: sends its load and samples everything meanwhile; saves nothing."""

import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

from harness.engines.config import Engine
from harness.engines.failure import Failure, FailureKind
from harness.engines.replicas import AnyServer
from harness.model import Model
from harness.progress import Display
from harness.samples import Columns
from harness.steering import Judge, Send
from loadgen.generator import Generator
from loadgen.records import Progress, Result, Target
from monitors.sampler import Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The result of a run."""

    result: Result
    samples: Mapping[str, Columns]  # by file name
    told: dict[str, Any]  # entries for run.json
    stopped: str | None  # why it was ended before its window was over
    died: Failure | None  # how the server failed, if it did


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A running server, and what it is measured with."""

    server: AnyServer
    target: Target
    generator: Generator
    sampler: Sampler
    sources: tuple[str, ...]  # those that should be sampled
    display: Display

    def measure(self, send: Send, seed: int) -> Measurement | Failure:
        """Send a load and watch over it. Returns a Failure if our load generator was at fault."""
        self.server.settle()
        load, judge = send.load, send.judge
        # a reply that is not streamed sends no byte before its end
        silence_max_s = self.server.first_token_timeout_s if load.stream else load.request_timeout_s
        watch = _Watch(
            server=self.server, display=self.display, judge=judge, silence_max_s=silence_max_s
        )
        lag_before_s = self.server.step_lag_s()
        self.sampler.start()
        try:
            result = self.generator.run(
                load,
                self.target,
                seed=seed,
                on_progress=watch.see,
                should_stop=watch.is_over,
                slo=send.slo,
            )
        except Exception:  # a bug of ours: recorded with its traceback, and the sweep goes on
            self.sampler.stop()
            return Failure(
                kind=FailureKind.HARNESS,
                message="the load generator failed: a fault of the harness",
                evidence=tuple(traceback.format_exc().splitlines()),
            )
        samples = self.sampler.stop()
        told: dict[str, Any] = {
            "window": asdict(result.window),
            "client": asdict(result.client),
            "monitor_notes": list(samples.notes),
            "not_monitored": [n for n in self.sources if not len(getattr(samples, n)["at_s"])],
        }
        for note in samples.notes:
            self.display.note(note)
        if lag_before_s is not None and (lag_s := self.server.step_lag_s()) is not None:
            ran_s = result.window.ended_at_s - result.window.started_at_s
            told["sim_lag_frac"] = (lag_s - lag_before_s) / ran_s
        raw = {
            "requests": result.requests,
            "chunks": result.chunks,
            "gpu": samples.gpu,
            "server": samples.server,
            "host": samples.host,
        }
        died = watch.failure or self.server.failure()
        if died is None and watch.stopped is not None:
            told["stopped"] = watch.stopped
        return Measurement(result=result, samples=raw, told=told, stopped=watch.stopped, died=died)


@dataclass(slots=True, kw_only=True)
class _Watch:
    """Watches a run: has the server died, does it still make tokens, is the answer clear?"""

    server: AnyServer
    display: Display
    judge: Judge
    silence_max_s: float  # with requests in flight
    failure: Failure | None = None
    stopped: str | None = None
    _token_at_s: float = field(default_factory=perf_counter)

    def see(self, now: Progress) -> None:
        if now.output_tok_per_s > 0 or not now.in_flight:
            self._token_at_s = perf_counter()
        self.display.live(now)
        self.stopped = self.stopped or self.judge(now)

    def is_over(self) -> bool:
        return self.stopped is not None or self._is_gone()

    def _is_gone(self) -> bool:
        self.failure = self.failure or self.server.failure()
        silent_s = perf_counter() - self._token_at_s
        if self.failure is None and silent_s > self.silence_max_s:
            message = f"no token for {silent_s:.0f} s with requests in flight"
            self.failure = Failure(
                kind=FailureKind.HANGS, message=message, evidence=self.server.tail()
            )
        return self.failure is not None


def target_of(server: AnyServer, engine: Engine, model: Model) -> Target:
    """The server as a target for the load generator."""
    return Target(
        url=server.urls[0],
        more_urls=server.urls[1:],
        model=server.model,
        vocab_size=model.vocab_size(),
        headers=engine.headers(),
    )
