"""What will be run, and in which order: launches (outer), each with its runs (inner). Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from random import Random
from typing import Any

from harness.config import Config
from harness.engines.config import SIM_NUM_GPUS, Engine, ExternalEngine, SimEngine
from harness.engines.feasible import obstacle
from harness.engines.parallel import decided, ranks
from harness.errors import UserError
from harness.identity import (
    MEASUREMENT_VERSION,
    OPERATIONAL,
    digest_of,
    setting_of,
    what_it_does,
)
from harness.labels import engine_label, gpus_text, load_label
from loadgen.config import Load
from loadgen.prompts import file_digests
from monitors.nvml import Gpu

# From process start to a first token, as seen on 2x H200 (vLLM 0.25: 46 to 118 s) and on 2 CPU
# cores (0.32: 28 to 46 s).
STARTUP_S = {"gpu": 75.0, "cpu": 40.0, "sim": 1.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measurement of a point in a launch."""

    id: str
    point: str
    label: str
    load: Load
    case: str
    place: tuple[int, int, int]  # index of the case, of its engine setting, and of its load
    repeat: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One life of one server with one engine setting."""

    id: str
    label: str
    engine: Engine
    gpus: str  # what serves, for people
    repeat: int
    cases: tuple[str, ...]  # the sweep's cases that it serves
    runs: tuple[Run, ...]
    obstacle: str | None = None  # why it cannot be started on this machine

    @property
    def setting(self) -> str:
        """The part of the id that all launches of this engine setting share."""
        return setting_of(self.id)

    @property
    def ranks(self) -> int | None:
        """The number of GPUs that its servers take; None if we do not start them."""
        return None if isinstance(self.engine, ExternalEngine) else ranks(self.engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All launches of a study, in the order in which they run."""

    sweep: str
    id: str
    place: str
    axes: dict[str, list[Any]]
    launches: tuple[Launch, ...]

    @property
    def runs(self) -> list[Run]:
        """All runs, in order."""
        return [run for launch in self.launches for run in launch.runs]

    def obstacles(self) -> list[str]:
        """Why nothing of this plan can be done on this machine; empty if any launch can."""
        found = [launch.obstacle for launch in self.launches if launch.obstacle is not None]
        return list(dict.fromkeys(found)) if len(found) == len(self.launches) else []

    def span_s(self) -> tuple[float, float]:
        """The least and the most time it should take; start-ups are taken from experience."""
        possible = [launch for launch in self.launches if launch.obstacle is None]
        started = [launch for launch in possible if launch.ranks is not None]
        starts_s = STARTUP_S[self.place] * len(started)
        loads = [run.load for launch in possible for run in launch.runs]
        least_s = sum(load.planned_s + 0.5 for load in loads)
        most_s = sum(_longest_s(load) + 0.5 for load in loads)
        return starts_s + least_s, starts_s + most_s


def make_plan(config: Config, gpus: Sequence[Gpu], flags: frozenset[str] | None = None) -> Plan:
    """Expand the grid. `gpus` are those that servers may take, in CUDA's order: part of every id.

    `flags` are those that the installed vLLM knows, None if unknown. Raises UserError if two points
    of the grid are the same, if two cases would run one server in two ways, and if a share of a
    capacity is asked for that no run finds.
    """
    identity = {
        "measurement_version": MEASUREMENT_VERSION,
        "vllm": config.choice.vllm_version,
        "gpus": [gpu.uuid for gpu in gpus],
        "model": asdict(config.model),
    }
    settings, options = _settings(config, identity), config.options
    _check_shares(settings)
    order, asked = Random(options.seed), options.repeats.runs
    launches = []
    for launch_repeat in range(1, options.repeats.launches + 1):
        # Every round contains every engine setting once, so slow drift affects all of them alike.
        for setting in _ordered(settings, options.order, order):
            runs = [
                _run(setting, cell, identity, config, (launch_repeat, run_repeat))
                for run_repeat in range(1, max(cell.repeats(asked) for cell in setting.cells) + 1)
                for cell in _ordered(setting.cells, options.order, order)
                if run_repeat <= cell.repeats(asked)
            ]
            launches.append(
                Launch(
                    id=f"{setting.digest}-{launch_repeat}",
                    label=setting.label(config),
                    engine=setting.engine,
                    gpus=gpus_text(setting.engine, gpus),
                    repeat=launch_repeat,
                    cases=setting.cases,
                    # Runs that need a capacity come after those that find it.
                    runs=tuple(sorted(runs, key=lambda run: run.load.is_found_late)),
                    obstacle=obstacle(setting.engine, config.model, gpus, flags),
                )
            )
    return Plan(
        sweep=config.sweep,
        id=_id_of(config, [run for launch in launches for run in launch.runs]),
        place=config.choice.place,
        axes=config.axes,
        launches=tuple(launches),
    )


def _id_of(config: Config, runs: Sequence[Run]) -> str:
    """A plan's id: a digest of its runs, and of options that affect only what is stored of them."""
    options = config.options
    stored_by = [options.seed, asdict(config.monitor), asdict(options.client)]
    stored_by += sorted(f"{run.point} {run.case}" for run in runs if run.case)
    if any(run.load.search for run in runs):
        stored_by.append(asdict(options.slo))
    return digest_of(sorted(run.id for run in runs), options.order, stored_by)[:6]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """A load of an engine setting, and its place in the sweep."""

    case: str
    place: tuple[int, int, int]
    load: Load

    def repeats(self, asked: int) -> int:
        """How often it is measured per launch; a search has a run for each of its probes."""
        return self.load.search.probes if self.load.search else asked


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """An engine setting with the loads of all cases that have it; one server serves them all."""

    engine: Engine
    digest: str
    cells: list[_Cell]

    @property
    def cases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.case for cell in self.cells if cell.case))

    def label(self, config: Config) -> str:
        axes = engine_label(self.engine, config.axes)
        return "  ".join(filter(None, [", ".join(self.cases), axes])) or config.choice.kind


def _settings(config: Config, identity: dict[str, Any]) -> list[_Setting]:
    """Every engine setting once, in the order of the cases.

    A point that two cases share belongs to the first. Raises UserError if a case has a point twice.
    """
    settings: dict[str, _Setting] = {}
    earlier: set[str] = set()
    for number, case in enumerate(config.cases):
        mine: set[str] = set()
        for (row, asked), (column, load) in product(enumerate(case.engines), enumerate(case.loads)):
            engine = as_served(asked, config)
            digest = digest_of(what_it_does(engine), identity)
            point = digest_of(digest, asdict(load))
            if point in mine:
                raise UserError(
                    "two points of the grid are the same: an axis holds a value twice, or only"
                    f" settings that change no measurement ({', '.join(OPERATIONAL)})."
                )
            mine.add(point)
            if point not in earlier:
                setting = settings.setdefault(
                    digest, _Setting(engine=engine, digest=digest, cells=[])
                )
                if setting.engine != engine:
                    raise UserError(
                        f"cases '{setting.cells[0].case}' and '{case.name}' share a server, and"
                        f" differ in how it is run ({', '.join(OPERATIONAL)}): set that for both."
                    )
                place = (number, row, column)
                setting.cells.append(_Cell(case=case.name, place=place, load=load))
        earlier |= mine
    return list(settings.values())


def _check_shares(settings: Sequence[_Setting]) -> None:
    """Raises UserError for a share of a capacity without closed-loop runs that find it.

    These must be on the same server, with the same requests.
    """
    for setting in settings:
        closed = [cell.load for cell in setting.cells if cell.load.arrival == "closed"]
        for cell in setting.cells:
            is_share = cell.load.rate_frac is not None
            if is_share and not any(load.asks_like(cell.load) for load in closed):
                raise UserError(
                    f"load.rate_frac{f' (case {cell.case!r})' if cell.case else ''} is a share of"
                    " the capacity that closed loops find with the same requests on the same"
                    " server, and there are none: add a case with arrival: closed, or set"
                    " load.rate_rps instead."
                )


def as_served(engine: Engine, config: Config) -> Engine:
    """The engine with its tensor parallel size filled in, so that ids and tables include it."""
    if isinstance(engine, ExternalEngine):
        return engine
    num_gpus = SIM_NUM_GPUS if isinstance(engine, SimEngine) else config.choice.num_gpus
    return decided(engine, config.model, num_gpus)


def _run(
    setting: _Setting,
    cell: _Cell,
    identity: dict[str, Any],
    config: Config,
    repeats: tuple[int, int],
) -> Run:
    load = cell.load
    point = digest_of(what_it_does(setting.engine), asdict(load), file_digests(load), identity)
    # Every engine setting gets the same prompts at the same load (pairs), never twice in a launch.
    seed = digest_of(config.options.seed, asdict(load), repeats)
    launch_repeat, run_repeat = repeats
    of_several = len({other.case for other in setting.cells}) > 1
    label = load_label(load, config.axes)
    if load.search is not None:
        label = f"{label} probe {run_repeat} of {load.search.probes}".strip()
    return Run(
        id=f"{point}-{launch_repeat}-{run_repeat}",
        point=point,
        label=f"{cell.case}  {label}" if of_several else label,
        load=load,
        case=cell.case,
        place=cell.place,
        repeat=run_repeat,
        seed=int(seed[:8], 16),
    )


def _ordered(items: Sequence[Any], order: str, random: Random) -> list[Any]:
    return random.sample(items, len(items)) if order == "shuffled" else list(items)


def _longest_s(load: Load) -> float:
    return load.planned_s + load.drain_s if load.is_open else load.warmup_max_s + load.duration_s
