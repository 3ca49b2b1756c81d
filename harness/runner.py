"""Runs a plan: one server per launch, its runs inside, everything saved as soon as it is finished.

A failure of a run is recorded and never ends the sweep. A server that dies during a run costs that
run. The remaining runs get a new server, unless two in a row died before they finished a run.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.checks.checker import ON_SERVER, Checker
from harness.config import Config
from harness.engines import external, sim, vllm
from harness.engines.config import ExternalEngine, SimEngine, VllmEngine, stored
from harness.engines.failure import EngineFailed, Failure, FailureKind
from harness.engines.replicas import AnyServer
from harness.instrument import Instrument
from harness.measurement import Bench, Measurement, target_of
from harness.plan import Launch, Plan, Run
from harness.progress import Display
from harness.rows import row_of
from harness.steering import Decision, Following, Send, Skip, Steering
from harness.study import Study
from harness.units import milliseconds, whole
from harness.validity import instrument_codes, longer_window
from loadgen.generator import Generator
from loadgen.metrics import reply_s
from monitors.nvml import foreign_processes
from monitors.sampler import Sampler, Targets

MAX_DEATHS = 2  # servers in a row that died before they finished one run


@dataclass(slots=True, kw_only=True)
class Runner:
    """Does what a study still lacks of its plan."""

    config: Config
    study: Study
    gpus: tuple[str, ...]  # UUIDs, in the order in which the server takes them
    instrument: Instrument
    display: Display
    models: Path
    salt: int  # added to every seed; not 0 for a server that outlives the study, with its caches
    steering: Steering | None = None  # None: follow what the launch's earlier runs found
    _steering: Steering = field(init=False)
    _checker: Checker = field(init=False)
    _skipped: str | None = field(default=None, init=False)  # the launch's last reason for a skip

    def __post_init__(self) -> None:
        self._steering = self.steering or Following(study=self.study)
        self._checker = Checker(
            config=self.config, study=self.study, models=self.models, note=self.display.note
        )

    def work(self, launches: list[Launch]) -> None:
        """Run these launches, which hold only the runs that are wanted."""
        for launch in launches:
            self._work(launch)

    def _work(self, launch: Launch) -> None:
        self._skipped = None
        left, deaths = self._needed(launch, list(launch.runs)), 0
        while left or set(self._checker.due(launch)) & set(ON_SERVER):
            self.display.launching(launch)
            folder = self.study.new_launch(launch.id)
            record: dict[str, Any] = {"label": launch.label, "gpus": launch.gpus}
            record["engine"] = stored(launch.engine)
            if launch.obstacle is not None:
                failure = _not_possible(launch.obstacle)
                self.study.save_launch(folder, record | {"failure": asdict(failure)})
                self._fail(left, launch, folder, failure)
                return
            try:
                with self._serving(launch, folder, record) as server:
                    finished = self._measure(server, folder, launch, left)
                    if finished == len(left):
                        self.display.phase("check")
                        self._checker.on_server(launch, server)
            except EngineFailed as error:
                self._fail(left, launch, folder, error.failure)
                return
            deaths = 0 if finished or not left else deaths + 1
            # Continue after the run that the server did not survive.
            left = self._needed(launch, left[finished + 1 :])
            if left and deaths == MAX_DEATHS:
                message = (
                    f"not tried: {MAX_DEATHS} servers in a row died before they finished a run"
                )
                failure = Failure(kind=FailureKind.DIED_UNDER_LOAD, message=message, evidence=())
                self._fail(left, launch, folder, failure)
                return
        self.display.phase("check")
        self._checker.without_server(launch)

    def _needed(self, launch: Launch, left: list[Run]) -> list[Run]:
        """The runs from the first that needs a server; those before it are saved as skipped."""
        while left and isinstance(decision := self.decide(launch, left[0]), Skip):
            self.display.running(launch, left[0])
            self._skip(self._record(launch, None, left[0]), decision)
            left = left[1:]
        return left

    @contextlib.contextmanager
    def _serving(self, launch: Launch, folder: Path, record: dict[str, Any]) -> Iterator[AnyServer]:
        """A server for the block; launch.json records its life, however it ends."""
        server: AnyServer | None = None
        try:
            strangers = foreign_processes(self.served_on(launch), ())
            record["foreign_processes"] = [asdict(process) for process in strangers]
            server = self._start(launch, folder)
            record |= {
                "model": server.model,
                "startup_s": server.startup_s,
                "facts": asdict(server.facts),
            }
            self.study.save_launch(folder, record)
            yield server
            if failure := server.failure():
                record["failure"] = asdict(failure)
        except EngineFailed as error:
            record["failure"] = asdict(error.failure)
            raise
        finally:
            if server is not None:
                self.display.phase("stop")
                record["exit"] = asdict(server.stop())
                if record["exit"].get("gpu_memory_released") is False:
                    self.display.note("GPU memory was not released after a launch; see launch.json")
            self.study.save_launch(folder, record)

    def _start(self, launch: Launch, folder: Path) -> AnyServer:
        phase: Callable[[str], None] = self.display.phase
        match launch.engine:
            case VllmEngine() as engine:
                return vllm.start(
                    engine,
                    self.config.model,
                    folder,
                    self.models,
                    self.served_on(launch),
                    on_phase=phase,
                )
            case SimEngine() as engine:
                return sim.start(engine, self.config.model, folder, self.models, on_phase=phase)
            case ExternalEngine() as engine:
                return external.start(engine, folder)

    def _measure(self, server: AnyServer, folder: Path, launch: Launch, runs: list[Run]) -> int:
        """Measure runs until all are done or the server is gone; returns how many it survived."""
        targets = Targets(
            gpu_uuids=self.served_on(launch),
            metrics_urls=tuple(f"{url}/metrics" for url in server.urls),
            metrics_headers=launch.engine.headers(),
            root_pids=server.root_pids,
        )
        client, cores = self.instrument.client, self.instrument.cores
        with (
            Generator(client, cores=cores) as generator,
            Sampler(self.config.monitor, targets) as sampler,
        ):
            bench = Bench(
                server=server,
                target=target_of(server, launch.engine, self.config.model),
                generator=generator,
                sampler=sampler,
                sources=self._sources(launch),
                display=self.display,
            )
            for index, run in enumerate(runs):
                if not self._measure_one(bench, folder, launch, run):
                    return index
        return len(runs)

    def _measure_one(self, bench: Bench, folder: Path, launch: Launch, run: Run) -> bool:
        """Measure one run and save it. False if the server, or our client, did not survive it."""
        record = self._record(launch, folder, run)
        decision = self.decide(launch, run)
        label = getattr(decision, "label", None) or run.label
        self.display.running(launch, replace(run, label=label))
        match decision:
            case Skip() as skip:
                self._skip(record, skip)
                return True
            case Failure() as failure:
                self._save_failure(record, failure)
                return True
            case Send() as send:
                record["load"] = asdict(send.load)
                if send.load != run.load:
                    record["load_asked"] = asdict(run.load)
        measured = bench.measure(send, record["seed"])
        if isinstance(measured, Failure):
            self._save_failure(record, measured)
            return False
        record |= measured.told
        if measured.died is not None:
            self._save_failure(record, measured.died, **measured.samples)
            return False
        self.study.save_run(run.id, record | {"status": "ok"}, **measured.samples)
        self.display.finished(self._line(run, send, measured))
        return True

    def decide(self, launch: Launch, run: Run) -> Decision:
        """The load that a run is to send, or why it sends none."""
        return self._steering(launch, run)

    def _line(self, run: Run, send: Send, measured: Measurement) -> str:
        """One line about a run that just ended, with the validity codes it will have in the table.

        Known at once, they can save a sweep from going on in vain.
        """
        (saved,) = self.study.runs({run.id})
        row = row_of(saved, self.study.about, ceiling=None)
        known = ("simulated", "stopped")
        codes = " ".join(code for code in str(row["validity"]).split() if code not in known)
        result = measured.result
        if measured.stopped is not None:
            return "; ".join(filter(None, [measured.stopped, codes]))
        brief = _brief(row) if send.brief is None else send.brief(result, instrument_codes(row))
        # A load that the user did not ask for (a tuning's short run) is short on purpose.
        is_asked = any(run.load in case.loads for case in self.config.cases)
        advice = longer_window(row, reply_s(result.requests)) if is_asked else None
        return "; ".join(filter(None, [brief, codes, advice]))

    def _sources(self, launch: Launch) -> tuple[str, ...]:
        """The sources to be sampled in each run of the launch."""
        wanted = {
            "gpu": bool(self.served_on(launch)),
            "server": True,
            "host": not isinstance(launch.engine, ExternalEngine),
        }
        is_on = self.config.monitor.enabled
        return tuple(name for name, is_wanted in wanted.items() if is_wanted and is_on)

    def _fail(self, runs: list[Run], launch: Launch, folder: Path, failure: Failure) -> None:
        for run in runs:
            self.display.running(launch, run)
            self._save_failure(self._record(launch, folder, run), failure)
        self._checker.fail(launch, failure)

    def _skip(self, record: dict[str, Any], skip: Skip) -> None:
        self.study.save_run(record["id"], record | {"status": "skipped", "reason": skip.reason})
        is_news = skip.reason != self._skipped
        self.display.finished(f"skipped: {skip.reason}" if is_news else "skipped, as before")
        self._skipped = skip.reason

    def _save_failure(self, record: dict[str, Any], failure: Failure, **raw: Any) -> None:
        told = {"status": "failed", "failure": asdict(failure)}
        self.study.save_run(record["id"], record | told, **raw)
        self.display.finished(f"FAILED ({failure.kind}): {failure.message}")

    def _record(self, launch: Launch, folder: Path | None, run: Run) -> dict[str, Any]:
        """The first entries of run.json; without a folder, the run had no server."""
        return {
            "id": run.id,
            "point": run.point,
            "launch": launch.id if folder is None else folder.name,
            "launch_repeat": launch.repeat,
            "run_repeat": run.repeat,
            "seed": run.seed + self.salt,
            "case": run.case,
            "place": run.place,
            "engine": stored(launch.engine),
            "load": asdict(run.load),
        }

    def served_on(self, launch: Launch) -> tuple[str, ...]:
        """The GPUs that the launch's server takes: the first ones, as many as it has ranks.

        Empty for an external server, whose hardware is unknown.
        """
        return () if launch.ranks is None else self.gpus[: launch.ranks]


def _not_possible(obstacle: str) -> Failure:
    message = f"not possible here: {obstacle}"
    return Failure(kind=FailureKind.NOT_POSSIBLE, message=message, evidence=())


def _brief(row: Mapping[str, Any]) -> str:
    """A run's result in brief, from its row of the table."""
    text = f"{whole(row['output_tok_per_s'] or 0.0)} tok/s"
    for name, value in (("TTFT", row["ttft_p50_s"]), ("TPOT", row["tpot_p50_s"])):
        if value is not None and value != float("inf"):
            text += f", {name} p50 {milliseconds(value)} ms"
    return text + (f", {row['requests_failed']} FAILED" if row["requests_failed"] else "")


def wanted(plan: Plan, study: Study, checks: Sequence[str] = (), *, retry: bool) -> list[Launch]:
    """What is left of the plan: launches reduced to the runs that are to do, or with checks to do.

    Failed runs count as done, unless they are to be retried. Then what their launch skipped is
    done again, too.
    """

    def runs_left(launch: Launch) -> tuple[Run, ...]:
        status = {run.id: study.status(run.id) for run in launch.runs}
        again = {"failed", "skipped"} if retry and "failed" in status.values() else set()
        return tuple(run for run in launch.runs if status[run.id] in (None, *again))

    def is_unchecked(launch: Launch) -> bool:
        has = [study.has_check(launch.setting, name, retry=retry) for name in checks]
        return launch.repeat == 1 and not all(has)

    left = [replace(launch, runs=runs_left(launch)) for launch in plan.launches]
    return [launch for launch in left if launch.runs or is_unchecked(launch)]
