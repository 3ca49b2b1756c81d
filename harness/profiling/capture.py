"""Traces a point: a server under a profiler, driven by its load, profiled in the load's window."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from time import perf_counter
from typing import Self

from harness.engines import http, vllm
from harness.engines.config import VllmEngine
from harness.engines.server import Server
from harness.engines.start import launch as start_server
from harness.environment import MASK
from harness.instrument import Instrument
from harness.measurement import target_of
from harness.profiling.subject import Subject
from loadgen.generator import Generator
from loadgen.metrics import arrivals
from loadgen.records import Progress, Result
from profiles.capture import (
    NSYS_ENV,
    export_sqlite,
    find_nsys,
    profiler_config,
    refused,
    report_of,
    traces_of,
)
from profiles.config import Profile
from profiles.errors import CaptureFailed, CaptureFailure, ProfileError
from profiles.slim import slim

# vLLM writes its traces before it answers /stop_profile; nsys writes its report before it exits.
STOP_TIMEOUT_S = 300.0
GRACE_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What a capture is made with."""

    profile: Profile
    instrument: Instrument
    models: Path  # the folder with models made from shapes
    phase: Callable[[str], None]  # called with the name of each phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A trace, and how fast the server was while it was made."""

    path: Path
    output_tok_per_s: float

    @classmethod
    def capture(cls, subject: Subject, folder: Path, equipment: Equipment) -> Self:
        """Capture into a folder. Raises ProfileError, EngineFailed and WorkerError."""
        profile, instrument = equipment.profile, equipment.instrument
        server = _start(subject, folder, equipment)
        window = _Window(server, profile.seconds)
        try:
            with Generator(instrument.client, cores=instrument.cores) as generator:
                result = generator.run(
                    # longer than the capture; the run is stopped once that is done
                    replace(subject.load, duration_s=STOP_TIMEOUT_S),
                    target_of(server, subject.engine, subject.model),
                    seed=subject.seed,
                    on_progress=window.see,
                    should_stop=window.is_over,
                )
        finally:
            server.stop()
        if window.failure is not None:
            raise window.failure
        log = server.log.read_text(errors="replace") if server.log else ""
        path = _trace(profile.kind, folder, log)
        return cls(path=path, output_tok_per_s=window.output_tok_per_s(result))


def _start(subject: Subject, folder: Path, equipment: Equipment) -> Server:
    kind, engine = equipment.profile.kind, subject.engine
    assert kind != "none"
    _check(engine)
    extra = engine.extra | {"profiler_config": profiler_config(kind, folder / "traces")}
    prefix: list[str] = []
    if kind == "nsys":
        prefix = find_nsys().prefix(folder / "trace")
        engine = replace(engine, env={**NSYS_ENV, **engine.env})
    setup = vllm.setup(
        replace(engine, extra=extra, stop_timeout_s=max(engine.stop_timeout_s, GRACE_S)),
        subject.model,
        equipment.models,
        subject.gpu_uuids,
        prefix=prefix,
    )
    return start_server(setup, folder, equipment.phase)


def _check(engine: VllmEngine) -> None:
    """Check that the server can be started again as it was. Raises CaptureFailed."""
    if (engine.replicas or 1) > 1:
        message = f"a profiler looks at one server, and this point has {engine.replicas}"
        raise CaptureFailed(CaptureFailure.OTHER, message)
    if masked := [name for name, value in engine.env.items() if value == MASK]:
        raise CaptureFailed(
            CaptureFailure.OTHER,
            f"the value of engine.env.{masked[0]} was not stored, for it may be a secret: the"
            " study's own command captures this point, with profile=… and retry=true",
        )


@dataclass(slots=True)
class _Window:
    """Turns the profiler on once the load's window has opened, and off again."""

    server: Server
    seconds: float
    began_at_s: float = nan
    ended_at_s: float = nan
    failure: ProfileError | None = field(default=None)

    def see(self, now: Progress) -> None:
        if now.phase != "window" or self.is_over():
            return
        if not self.began_at_s > 0:
            self._post("/start_profile")
            self.began_at_s = perf_counter()
        elif perf_counter() >= self.began_at_s + self.seconds:
            self.ended_at_s = perf_counter()
            self._post("/stop_profile")

    def is_over(self) -> bool:
        return self.failure is not None or self.ended_at_s > 0

    def output_tok_per_s(self, result: Result) -> float:
        """The throughput while the profiler was on."""
        come = sum(
            tokens.sum(where=(at_s >= self.began_at_s) & (at_s < self.ended_at_s))
            for tokens, at_s in arrivals(result.requests, result.chunks)
        )
        return float(come) / (self.ended_at_s - self.began_at_s)

    def _post(self, path: str) -> None:
        try:
            answer = http.request(f"{self.server.url}{path}", timeout_s=STOP_TIMEOUT_S, body={})
        except OSError as error:
            self.failure = refused(path, None, str(error))
        else:
            if answer.status != 200:
                self.failure = refused(path, answer.status, answer.body)


def _trace(kind: str, folder: Path, log: str) -> Path:
    """The trace that the profiler left, in the form to analyse. Raises CaptureFailed if none.

    For Nsight that is a slim export beside the report. The report is for people to open, but also
    holds the server's environment, so it must not be shared.
    """
    if kind == "torch":
        return traces_of(folder / "traces", log)
    exported = export_sqlite(report_of(folder / "trace", log))
    slimmed = folder / "trace.sqlite.xz"
    slim(exported, slimmed)
    exported.unlink()
    return slimmed
