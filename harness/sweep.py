"""One command's work on a study: plan, do what is missing, then tabulate and plot the results."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import randbits
from typing import TYPE_CHECKING, Any, Self

from harness.config import Config
from harness.continuity import changed
from harness.engines.bytecode import recompiled
from harness.engines.flags import known_flags
from harness.environment import Environment, masked, snapshot
from harness.errors import UserError
from harness.load_text import load_text
from harness.plan import Plan, make_plan
from harness.study import Study
from harness.units import between, plural
from monitors.nvml import Gpu

if TYPE_CHECKING:
    from harness.instrument import Instrument
    from harness.progress import Display
    from harness.runner import Runner
    from harness.steering import Steering

SETS_VARIABLES = re.compile(r"\benv[.=]")  # engine.env.NAME=, engine.env={, tune.space={env.NAME:


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A checked configuration, its plan, and the machine it will run on."""

    config: Config
    plan: Plan
    environment: Environment
    words: tuple[str, ...]

    @classmethod
    def prepare(cls, config: Config, words: Sequence[str]) -> Self:
        """Look at the machine and expand the grid."""
        environment = snapshot(getattr(config.engines[0], "python", None))
        flags = known_flags(config.choice.vllm_folder)
        plan = make_plan(config, used(config, environment), flags)
        return cls(config=config, plan=plan, environment=environment, words=tuple(words))

    @property
    def gpus(self) -> tuple[str, ...]:
        """The UUIDs of the GPUs that servers may take, in CUDA's order."""
        return tuple(gpu.uuid for gpu in used(self.config, self.environment))

    @property
    def command(self) -> str:
        """The command line as typed, with secrets masked."""
        return shlex.join(["python", "-m", "harness", *map(_told, self.words)])

    def engine_line(self) -> str:
        """A line on which engine is used, on what, and why; below it what makes it start slowly."""
        choice, engine = self.config.choice, self.config.engines[0]
        line = f"engine: {choice.kind} ({choice.why}); {self._served_by()}"
        slow = recompiled(choice.vllm_folder, {**os.environ, **getattr(engine, "env", {})})
        return line if slow is None else f"{line}\nnote: {slow}"

    def plan_text(self) -> str:
        """Launches, runs, and an estimate of the time."""
        least_s, most_s = self.plan.span_s()
        launches, runs = len(self.plan.launches), len(self.plan.runs)
        lines = [self.engine_line(), f"sweep {self.plan.sweep}: {self.config.model.name}"]
        for launch in self.plan.launches:
            lines.append(f"  launch {launch.id}: {launch.label}")
            if launch.obstacle is not None:
                lines.append(f"    not possible here: {launch.obstacle}")
            lines += [f"    run {run.id}: {run.label}" for run in launch.runs]
            lines += [f"    check {name}" for name in self._checks if launch.repeat == 1]
        without = ", not counting the checks" if self._checks else ""
        lines.append(
            f"{plural(launches, 'launch')}, {plural(runs, 'run')},"
            f" {between(least_s, most_s)}{without}; nothing was started"
        )
        return "\n".join(lines)

    @property
    def _checks(self) -> list[str]:
        return self.config.options.checks.names

    def run(self) -> int:
        """Do what the study still lacks; returns the exit code.

        Raises UserError if no launch is possible on this machine.
        """
        from harness.artefacts import tabulate
        from harness.export import export
        from harness.instrument import Instrument
        from harness.profiling.profiler import Profiler
        from harness.progress import display
        from harness.runner import wanted
        from harness.tables import write_tables

        config, options = self.config, self.config.options
        self.check_possible()
        print(self.engine_line(), flush=True)
        with self.opened() as study:
            left = wanted(self.plan, study, self._checks, retry=options.retry)
            missing = sum(len(launch.runs) for launch in left)
            self._say_where(study, left_runs=missing, left_launches=len(left))
            is_idle = not left and config.profile.kind == "none"
            instrument = Instrument.none() if is_idle else self.instrument(study)
            try:
                with (
                    instrument.apart(),
                    display(len(self.plan.runs), len(self.plan.runs) - missing) as show,
                ):
                    runner = self.runner(study, instrument, show)
                    runner.work(left)
                    export(study)
                    if (
                        config.profile.kind != "none"
                        and (tables := write_tables(study)) is not None
                    ):
                        Profiler(runner=runner, plan=self.plan).work(tables.points)
            except (KeyboardInterrupt, SystemExit):
                print(self.stopped())
                raise
            finally:
                tabulate(study)
            return self._conclude(study)

    def check_possible(self) -> None:
        """Raises UserError if no launch is possible on this machine."""
        if obstacles := self.plan.obstacles():
            raise UserError("\n".join(f"not possible here: {text}" for text in obstacles))

    @contextmanager
    def opened(self, about: dict[str, Any] | None = None, **added: Any) -> Iterator[Study]:
        """The sweep's study, new or begun earlier, open for writing.

        A new study.json begins with `about`, by default the sweep's own; `added` is put into it in
        either case. Raises UserError if it cannot be written, or was begun in another environment.
        """
        options = self.config.options
        begun = self.about() if about is None else about
        study = Study.open(Path(options.out), self.plan, begun, fresh=options.fresh)
        try:
            self.check_environment(study)
            # The presentation and the checks asked for may have changed.
            asked = self.config.columns_asked
            study.add(options=asdict(options), columns_asked=asked, **added)
            yield study
        finally:
            study.close()

    def runner(
        self,
        study: Study,
        instrument: "Instrument",
        show: "Display",
        steering: "Steering | None" = None,
    ) -> "Runner":
        """A runner for the plan's launches."""
        from harness.runner import Runner

        return Runner(
            config=self.config,
            study=study,
            gpus=self.gpus,
            instrument=instrument,
            display=show,
            models=Path(self.config.options.out) / ".models",
            salt=randbits(32) if self.config.choice.kind == "external" else 0,
            steering=steering,
        )

    def stopped(self) -> str:
        """The message on an interruption."""
        without = " (without fresh=true)" if self.config.options.fresh else ""
        return f"stopped: finished runs are kept; the same command{without} continues"

    def _conclude(self, study: Study) -> int:
        """Print what failed and why; returns the exit code."""
        runs = failures(study)
        settings = dict.fromkeys(launch.setting for launch in self.plan.launches)
        found = [study.check(setting, name) for setting in settings for name in self._checks]
        checks = [record["failure"] for record in found if record and "failure" in record]
        for line in reasons([*runs, *checks]):
            print(line)
        failed = [("run", len(runs)), ("check", len(checks))]
        if runs or checks:
            text = " and ".join(plural(n, what) for what, n in failed if n)
            print(f"{text} failed; retry=true tries again")
        return 1 if runs or checks or study.damaged() else 0

    def instrument(self, study: Study) -> "Instrument":
        """The study's load generator: the one it was begun with, else calibrated now."""
        from harness.instrument import Instrument

        if (begun := study.about.get("instrument")) is not None:
            instrument = Instrument.from_study(begun)
        else:
            is_tls = any(getattr(e, "url", "").startswith("https:") for e in self.config.engines)
            client = self.config.options.client
            instrument = Instrument.make(client, self.config.loads, over_tls=is_tls)
            study.add(instrument=asdict(instrument))
        print(instrument.line(), flush=True)
        return instrument

    def check_environment(self, study: Study) -> None:
        """Raises UserError if the study was begun in another environment."""
        if (what := changed(study.about["environment"], self.environment)) is not None:
            raise UserError(
                f"{study.folder} was begun in another environment ({what}): fresh=true measures"
                " again."
            )

    def _say_where(self, study: Study, left_runs: int, left_launches: int) -> None:
        done = len(self.plan.runs) - left_runs
        print(f"study: {study.folder}", flush=True)
        if not left_runs and left_launches:
            settings = plural(left_launches, "engine setting")
            print(f"all runs are done, checks of {settings} to do", flush=True)
        elif not left_runs:
            print("all runs are done; fresh=true measures again", flush=True)
        else:
            least_s, most_s = self.plan.span_s()
            share = left_runs / len(self.plan.runs)
            had = f"{done} done, " if done else ""
            time = between(least_s * share, most_s * share)
            print(f"runs: {had}{left_runs} to do, {time}", flush=True)

    def about(self) -> dict[str, Any]:
        """The entries of study.json besides the plan."""
        config = self.config
        return {
            "command": self.command,
            "begun_utc": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
            "engine": self._served_by(),
            "simulated": config.choice.kind == "sim",
            "model": asdict(config.model),
            "load": load_text(config),
            "axes": config.axes,
            "options": asdict(config.options),
            "monitor": asdict(config.monitor),
            "runs": [run.id for run in self.plan.runs],
            "environment": asdict(self.environment),
        }

    def _served_by(self) -> str:
        choice = self.config.choice
        if choice.kind == "external":
            return "a server that somebody else runs"
        gpus = " and ".join(dict.fromkeys(launch.gpus for launch in self.plan.launches))
        return f"vLLM {choice.vllm_version} on {gpus}" if choice.vllm_version else gpus


def failures(study: Study) -> list[dict[str, Any]]:
    """The failures of all failed runs."""
    return [run.record["failure"] for run in study.runs() if not run.ok]


def reasons(failed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each distinct failure with its count."""
    counts = Counter(f"{failure['kind']}: {failure['message']}" for failure in failed)
    return [f"{count}x {reason}" for reason, count in counts.items()]


def _told(word: str) -> str:
    """A word with its value masked if it sets an environment variable that may be a secret.

    The variable's name may be inside the value: engine.env={NAME: VALUE}.
    """
    name, equals, value = word.partition("=")
    return name + equals + (masked(word, value) if SETS_VARIABLES.search(word) else value)


def used(config: Config, environment: Environment) -> tuple[Gpu, ...]:
    """The GPUs that servers of this configuration may take, in CUDA's order."""
    return environment.gpus if config.choice.place == "gpu" else ()
