"""Profiles: a short extra run of chosen points, each on a server of its own under a profiler.

It comes after the measured runs, and no measured number comes from it: how much slower the server
is under the profiler is told beside the findings. A capture that fails is recorded with its reason,
and nothing else is lost.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd

from harness.captures import FINDINGS, PAGE, RECORD, STRIP
from harness.engines import http, vllm
from harness.engines.config import VllmEngine
from harness.engines.failure import EngineFailed, Failure
from harness.engines.server import Server
from harness.engines.server import launch as start_server
from harness.errors import UserError
from harness.plan import Launch, Plan, Run
from harness.runner import Runner, target_of
from harness.steering import Send, Skip
from harness.strip_plot import draw_strip
from harness.study import Study
from harness.tables import swept
from loadgen.generator import Generator, WorkerError
from loadgen.metrics import arrivals
from loadgen.records import Progress, Result
from profiles import source
from profiles.capture import (
    NSYS_ENV,
    export_sqlite,
    find_nsys,
    profiler_config,
    refused,
    report_of,
    traces_of,
)
from profiles.config import POINTS
from profiles.errors import CaptureFailed, CaptureFailure, ProfileError
from profiles.findings import analyse
from profiles.page import page
from profiles.slim import slim
from profiles.strip import strip

KNEE_FRAC = 0.9  # the knee: the first point, as listed, that reaches this share of the best
# vLLM writes its traces before it answers /stop_profile, nsys its report before it ends.
STOP_TIMEOUT_S = 300.0
GRACE_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiler:
    """Profiles the points of a study that its configuration names, and that have no profile yet."""

    runner: Runner
    plan: Plan

    def work(self, points: pd.DataFrame) -> None:
        """Capture and explain, one point after the other."""
        config, display = self.runner.config, self.runner.display
        for launch, run in self._chosen(points):
            folder = self.runner.study.folder / "runs" / run.id / "profile" / config.profile.kind
            if is_done(folder, retry=config.options.retry):
                continue
            if folder.exists():  # a capture that failed, or was cut off
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
            told: dict[str, Any] = {"kind": config.profile.kind, "seconds": config.profile.seconds}
            try:
                told |= self._profile(launch, run, folder)
            except (ProfileError, EngineFailed, WorkerError) as error:
                failure, reason = _failure(error)
                told |= {"status": "failed", "failure": failure, "reason": reason}
                display.note(f"no profile of {launch.label} {run.label}: {reason}")
            (folder / RECORD).write_text(json.dumps(told, indent=1) + "\n")

    def _chosen(self, points: pd.DataFrame) -> Iterator[tuple[Launch, Run]]:
        """One run of each chosen point."""
        wanted = choose(points, self.plan.axes, self.runner.config.profile.points)
        for launch in self.plan.launches:
            for run in launch.runs:
                if run.point in wanted:
                    wanted.remove(run.point)
                    yield launch, run

    def _profile(self, launch: Launch, run: Run, folder: Path) -> dict[str, Any]:
        self.runner.display.launching(launch)
        result, capture, log = self._capture(launch, run, folder)
        self.runner.display.phase("analyse")
        trace = source.read(_trace(self.runner.config.profile.kind, folder, log))
        findings = analyse(trace)
        (folder / PAGE).write_text(page(findings))
        (folder / FINDINGS).write_text(findings.as_json() + "\n")
        title = f"{self.plan.sweep}: {self.runner.config.model.name}, {launch.label} {run.label}"
        if trace.devices:
            draw_strip(strip(trace), title.strip(), folder / STRIP)
        rate, measured = capture.output_tok_per_s(result), _measured(self.runner.study, run)
        slower_frac = 1 - rate / measured if measured else None
        told = "" if slower_frac is None else f", {slower_frac:.0%} slower than measured"
        self.runner.display.note(f"profile of {launch.label} {run.label}{told}: {folder / PAGE}")
        return {"status": "ok", "output_tok_per_s": rate, "slower_frac": slower_frac}

    def _capture(self, launch: Launch, run: Run, folder: Path) -> "tuple[Result, _Capture, str]":
        """A server under the profiler, the point's load, and the profiler on in its window."""
        match self.runner.decide(launch, run):
            case Skip(reason=reason):
                raise CaptureFailed(CaptureFailure.OTHER, f"not needed: {reason}")
            case Failure() as failure:
                raise EngineFailed(failure)
            case Send(load=load):
                pass
        server = self._start(launch, folder)
        capture = _Capture(server, self.runner.config.profile.seconds)
        try:
            client, cores = self.runner.instrument.client, self.runner.instrument.cores
            with Generator(client, cores=cores) as generator:
                result = generator.run(
                    # longer than the capture: it is stopped when that is done
                    replace(load, duration_s=STOP_TIMEOUT_S),
                    target_of(server, launch.engine, self.runner.config),
                    seed=run.seed,
                    on_progress=capture.see,
                    should_stop=capture.is_over,
                )
        finally:
            server.stop()
        if capture.failure is not None:
            raise capture.failure
        log = server.log.read_text(errors="replace") if server.log else ""
        return result, capture, log

    def _start(self, launch: Launch, folder: Path) -> Server:
        runner, kind = self.runner, self.runner.config.profile.kind
        engine = launch.engine
        assert isinstance(engine, VllmEngine)
        assert kind != "none"
        if (engine.replicas or 1) > 1:
            message = f"a profiler looks at one server, and this point has {engine.replicas}"
            raise CaptureFailed(CaptureFailure.OTHER, message)
        extra = engine.extra | {"profiler_config": profiler_config(kind, folder / "traces")}
        prefix: list[str] = []
        if kind == "nsys":
            prefix = find_nsys().prefix(folder / "trace")
            engine = replace(engine, env={**NSYS_ENV, **engine.env})
        setup = vllm.setup(
            replace(engine, extra=extra, stop_timeout_s=max(engine.stop_timeout_s, GRACE_S)),
            runner.config.model,
            runner.models,
            runner.served_on(launch),
            prefix=prefix,
        )
        return start_server(setup, folder, runner.display.phase)


@dataclass(slots=True)
class _Capture:
    """Turns the profiler on when the window has opened, and off again."""

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
        """While the profiler was on."""
        tokens, at_s = arrivals(result.requests, result.chunks)
        inside = (at_s >= self.began_at_s) & (at_s < self.ended_at_s)
        return float(tokens[inside].sum()) / (self.ended_at_s - self.began_at_s)

    def _post(self, path: str) -> None:
        try:
            answer = http.request(f"{self.server.url}{path}", timeout_s=STOP_TIMEOUT_S, body={})
        except OSError as error:
            self.failure = refused(path, None, str(error))
        else:
            if answer.status != 200:
                self.failure = refused(path, answer.status, answer.body)


def is_done(folder: Path, *, retry: bool) -> bool:
    """Whether there is a profile, or a reason why not that is not to be tried again."""
    try:
        told = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return False
    return bool(told["status"] == "ok" or not retry)


def choose(points: pd.DataFrame, axes: dict[str, list[Any]], which: str) -> list[str]:
    """Ids of the points that `profile.points` means. Raises UserError if it means none."""
    good = points[(points["status"] == "ok") & points["output_tok_per_s"].notna()]
    rate = pd.to_numeric(good["output_tok_per_s"])
    if good.empty:
        return []
    match which:
        case "all":
            mine = good
        case "best":
            mine = good.loc[[rate.idxmax()]]
        case "worst":
            mine = good.loc[[rate.idxmin()]]
        case "knee":
            mine = good[rate >= KNEE_FRAC * rate.max()].head(1)
        case _:
            mine = _filtered(good, axes, which)
    return [str(point) for point in mine["point"]]


def _filtered(points: pd.DataFrame, axes: dict[str, list[Any]], which: str) -> pd.DataFrame:
    for pair in which.split(","):
        name, _, value = pair.partition("=")
        if name not in points:
            known = ", ".join([*POINTS, *(f"{column}=…" for column in swept(axes))])
            raise UserError(
                f"profile.points={which}: there is no column {name}. There are: {known}."
            )
        points = points[[_is(cell, value) for cell in points[name]]]
    if points.empty:
        raise UserError(f"profile.points={which}: no measured point is like that.")
    return points


def _is(cell: Any, value: str) -> bool:
    try:
        return float(cell) == float(value)
    except (TypeError, ValueError):
        return str(cell).lower() == value.lower()


def _trace(kind: str, folder: Path, log: str) -> Path:
    """What the profiler left, in the form that is read. Raises CaptureFailed if that is nothing.

    Beside Nsight's report, which a person opens, an export of what the findings are made of: the
    report also holds the server's environment, so it is not to be given away.
    """
    if kind == "torch":
        return traces_of(folder / "traces", log)
    exported = export_sqlite(report_of(folder / "trace", log))
    slimmed = folder / "trace.sqlite.xz"
    slim(exported, slimmed)
    exported.unlink()
    return slimmed


def _failure(error: Exception) -> tuple[str, str]:
    """Its kind, and its message."""
    match error:
        case EngineFailed():
            return error.failure.kind, error.failure.message
        case CaptureFailed():
            return error.kind, str(error)
        case WorkerError():
            return "harness", str(error)
        case _:
            return "bad_trace", str(error)


def _measured(study: Study, run: Run) -> float | None:
    """output_tok_per_s of the same run without a profiler."""
    table = pd.read_parquet(study.folder / "table.parquet")
    rows = table[table["run"] == run.id]
    return None if rows.empty else float(rows["output_tok_per_s"].iloc[0])
