"""One command's work on a study: plan it, do what is missing, tabulate and draw what is there."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import randbits
from typing import TYPE_CHECKING, Any, Self

from harness.config import Config
from harness.engines.flags import known_flags
from harness.environment import Environment, masked, snapshot
from harness.errors import UserError
from harness.plan import Plan, make_plan
from harness.study import Study
from harness.units import plural, span
from loadgen.config import Dataset, Empirical, Load, SharedPrefix
from monitors.nvml import Gpu

if TYPE_CHECKING:
    from harness.instrument import Instrument

ARRIVALS = {
    "closed": "closed loop",
    "constant": "even arrivals",
    "poisson": "Poisson arrivals",
    "gamma": "gamma arrivals",
    "ramp": "Poisson arrivals",
    "trace": "arrivals and lengths",
}


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
        """The uuids of those that servers may take, in CUDA's order."""
        return tuple(gpu.uuid for gpu in used(self.config, self.environment))

    @property
    def command(self) -> str:
        """What was typed, secrets masked."""
        return shlex.join(["python", "-m", "harness", *map(_told, self.words)])

    def engine_line(self) -> str:
        """Which engine, on what, and why."""
        choice = self.config.choice
        return f"engine: {choice.kind} ({choice.why}); {self._served_by()}"

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
        without = ", the checks not counted" if self._checks else ""
        lines.append(
            f"{launches} launch{'es' * (launches != 1)}, {runs} run{'s' * (runs != 1)},"
            f" {span(least_s)} to {span(most_s)}{without}; nothing was started"
        )
        return "\n".join(lines)

    @property
    def _checks(self) -> list[str]:
        return self.config.options.checks.names

    def run(self) -> int:
        """Do what the study lacks; returns the exit code.

        Raises UserError if no launch is possible on this machine.
        """
        from harness.export import export
        from harness.instrument import Instrument
        from harness.profiling import Profiler
        from harness.progress import display
        from harness.runner import Runner, wanted
        from harness.tables import write_tables

        config, options = self.config, self.config.options
        if obstacles := self.plan.obstacles():
            raise UserError("\n".join(f"not possible here: {text}" for text in obstacles))
        print(self.engine_line(), flush=True)
        out = Path(options.out)
        study = Study.open(out, self.plan, self.about(), fresh=options.fresh)
        try:
            self.check_environment(study)
            study.add(options=asdict(options))  # what is shown, and which checks, may have changed
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
                    runner = Runner(
                        config=config,
                        study=study,
                        gpus=self.gpus,
                        instrument=instrument,
                        display=show,
                        models=out / ".models",
                        salt=randbits(32) if config.choice.kind == "external" else 0,
                    )
                    runner.work(left)
                    export(study)
                    if (
                        config.profile.kind != "none"
                        and (points := write_tables(study)) is not None
                    ):
                        Profiler(runner=runner, plan=self.plan).work(points)
            except (KeyboardInterrupt, SystemExit):
                without = " (without fresh=true)" if options.fresh else ""
                print(f"stopped: finished runs are kept; the same command{without} continues")
                raise
            finally:
                tabulate(study)
            return self._conclude(study)
        finally:
            study.close()

    def _conclude(self, study: Study) -> int:
        """Say what failed, and why; the exit code."""
        runs = [run.record["failure"] for run in study.runs() if not run.ok]
        settings = dict.fromkeys(launch.setting for launch in self.plan.launches)
        found = [study.check(setting, name) for setting in settings for name in self._checks]
        checks = [record["failure"] for record in found if record and "failure" in record]
        reasons = [f"{failure['kind']}: {failure['message']}" for failure in [*runs, *checks]]
        for reason in dict.fromkeys(reasons):
            print(f"{reasons.count(reason)}x {reason}")
        failed = [("run", len(runs)), ("check", len(checks))]
        if reasons:
            text = " and ".join(f"{n} {what}{'s' * (n > 1)}" for what, n in failed if n)
            print(f"{text} failed; retry=true tries again")
        return 1 if reasons else 0

    def instrument(self, study: Study) -> "Instrument":
        """The study's load generator: calibrated now, or as the study was begun with."""
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
        """Nothing unlike is mixed: a study is continued on what it was begun on.

        The harness' own version and commit may move on.
        """
        begun, now = study.about["environment"], json.loads(json.dumps(asdict(self.environment)))
        for name in ("gpus", "driver_version", "packages", "variables"):
            if begun[name] != now[name]:
                raise UserError(
                    f"{study.folder} was begun in another environment"
                    f" ({name}{_difference(begun[name], now[name])}): fresh=true measures again."
                )

    def _say_where(self, study: Study, left_runs: int, left_launches: int) -> None:
        done = len(self.plan.runs) - left_runs
        print(f"study: {study.folder}", flush=True)
        if not left_runs and left_launches:
            settings = f"{left_launches} engine setting{'s' * (left_launches > 1)}"
            print(f"all runs are there, checks of {settings} to do", flush=True)
        elif not left_runs:
            print("all runs are there; fresh=true measures again", flush=True)
        else:
            least_s, most_s = self.plan.span_s()
            share = left_runs / len(self.plan.runs)
            had = f"{done} runs are there, " if done else ""
            time = f"{span(least_s * share)} to {span(most_s * share)}"
            print(f"{had}{left_runs} to do, {time}", flush=True)

    def about(self) -> dict[str, Any]:
        """What study.json tells besides the plan."""
        config = self.config
        return {
            "command": self.command,
            "begun_utc": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
            "engine": self._served_by(),
            "simulated": config.choice.kind == "sim",
            "model": asdict(config.model),
            "load": _load_text(config),
            "axes": config.axes,
            "options": asdict(config.options),
            "monitor": asdict(config.monitor),
            "runs": [run.id for run in self.plan.runs],
            "environment": asdict(self.environment),
        }

    def _served_by(self) -> str:
        choice = self.config.choice
        if choice.kind == "external":
            return "a server somebody runs"
        gpus = " and ".join(dict.fromkeys(launch.gpus for launch in self.plan.launches))
        return f"vLLM {choice.vllm_version} on {gpus}" if choice.vllm_version else gpus


def _difference(before: Any, now: Any) -> str:
    """Which entries of two parts of a snapshot differ, and how."""
    if not isinstance(before, dict):
        return ""
    names = [n for n in sorted(before | now) if before.get(n) != now.get(n)]
    return ": " + ", ".join(f"{n} was {before.get(n)}, is {now.get(n)}" for n in names)


def _told(word: str) -> str:
    name, equals, value = word.partition("=")
    secret = name.lstrip("+").startswith("engine.env.")
    return name + equals + (masked(name.rpartition(".")[2], value) if secret else value)


def used(config: Config, environment: Environment) -> tuple[Gpu, ...]:
    """The GPUs that servers of this configuration may take, in CUDA's order."""
    return environment.gpus if config.choice.place == "gpu" else ()


def tabulate(study: Study) -> bool:
    """Make the study's table and plots of what is there, and show the table; False if nothing is.

    A terminal gets what fits on it, everything else Markdown.
    """
    from rich.console import Console

    from harness.capacity.page import write_capacity
    from harness.plots import draw
    from harness.screen import print_table
    from harness.tables import markdown, write_tables
    from harness.timeline import MAX_RUNS, draw_timelines

    for run in study.damaged():
        print(f"note: run {run} is damaged and left out; the sweep's command measures it again")
    points = write_tables(study)
    if points is None:
        return False
    plots = draw(points, study.about, study.folder / "plots")
    plots += draw_timelines(study, points, study.folder / "plots")
    searches = write_capacity(study)
    console = Console(highlight=False)
    print()
    if console.is_terminal:
        print_table(console, points, study.about)
    else:
        print(markdown(points, study.about))
    if searches is not None:
        print(searches)
    print(f"table.md, .csv, .parquet and {plural(len(plots), 'plot')}: {study.folder}", flush=True)
    if len(study.about["runs"]) > MAX_RUNS:
        print(f"no timelines: there are more than {MAX_RUNS} runs", flush=True)
    return True


def _load_text(config: Config) -> str:
    """The load in a sentence: what is the same in all runs."""
    load, loads = config.loads[0], config.loads

    def same(name: str) -> bool:
        return all(getattr(other, name) == getattr(load, name) for other in loads)

    parts = [" and ".join(dict.fromkeys(ARRIVALS[other.arrival] for other in loads))]
    if load.concurrency is not None and same("concurrency"):
        parts.append(f"concurrency {load.concurrency}")
    if load.rate_rps is not None and same("rate_rps"):
        to = f" to {load.rate_end_rps:g}" if load.rate_end_rps is not None else ""
        parts.append(f"{load.rate_rps:g}{to} req/s")
    if load.trace is not None:
        return f"{parts[0]} of {Path(load.trace.path).name}, speed {load.trace.speed:g}"
    if load.conversation is not None:
        parts.append(f"{load.conversation.turns} turns, {load.conversation.think_s:g} s between")
    if same("prompts"):
        parts += _shared(load)
    is_text = isinstance(load.prompts, Dataset)
    for name, unit in (("input_tokens", "tokens in"), ("output_tokens", "out")):
        value = getattr(load, name)
        if same(name) and not (name == "input_tokens" and is_text):
            parts.append(
                f"{value} {unit}" if isinstance(value, int) else f"{_spread(value)} {unit}"
            )
    return ", ".join(parts)


def _shared(load: Load) -> list[str]:
    match load.prompts:
        case SharedPrefix(groups=groups, hit_frac=hit_frac):
            return [f"{hit_frac:.0%} of each prompt shared in {groups} groups"]
        case Dataset(path=path):
            return [f"prompts of {Path(path).name}"]
    return []


def _spread(length: Any) -> str:
    """A distribution of lengths in a word or two."""
    if isinstance(length, Empirical):
        return f"as in {Path(length.path).name}"
    return f"{length.dist} {length.min} to {length.max}"
