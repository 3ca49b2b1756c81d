"""`python -m harness validate`: snapshot, probes, card, drift, files, exit code."""

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import yaml

from harness.conf_files import conf_dirs
from harness.conf_files import options as choices
from harness.environment import Environment, snapshot
from harness.errors import UserError
from harness.hardware import client, drift, saved
from harness.hardware.card import make_card
from harness.hardware.families import FAMILIES, Cards, Family, left_out, stages
from harness.hardware.limits import Product, read_products
from harness.hardware.options import Options
from harness.hardware.options import parse as parse_options
from harness.hardware.probe import Outcome, Probe, ProbeProcess, run_together
from harness.hardware.probes.options import Shape
from harness.hardware.probes.record import Measurement
from harness.hardware.state import state
from harness.hardware.steady import sensors
from harness.overrides import not_there
from loadgen.generator import WorkerError
from loadgen.null_server import NullServerError
from monitors.config import Monitor
from monitors.nvml import memory_used_bytes
from monitors.sampler import Sampler, Targets

REHEARSED_GPUS = (0, 1)
HOST_LIMIT_S = 120.0
KEPT = ("probes", "seconds", "model", "rehearsal")  # the options to save; the others are paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """What is validated, and how."""

    options: Options
    environment: Environment
    cards: Cards
    shape: Shape  # of the model whose products gemm takes


@dataclass(slots=True, kw_only=True)
class Measured:
    """What has been measured so far."""

    measurements: list[Measurement]
    outcomes: list[Outcome]
    samples: dict[str, Any]  # the monitor's GPU columns in the steady state

    @property
    def series(self) -> dict[int, Any]:
        """The rates over time in the steady state, by GPU."""
        told = [outcome.series() for outcome in self.outcomes]
        return {one["gpu"]: one for one in told if one and one["at_s"]}


def validate(words: Sequence[str], extra_conf_dir: Path | None = None) -> int:
    """Run the command given by its words; returns the exit code. Raises UserError."""
    options = parse_options(words)
    if len(options.drift) == 2:
        return _compare(*map(Path, options.drift))
    before = saved.document_of(Path(options.drift[0])) if options.drift else None
    products = read_products(extra_conf_dir)
    shape = _shape(options.model, extra_conf_dir)
    environment = snapshot(options.python)
    cards = _cards(environment, rehearsal=options.rehearsal)
    box = Box(options=options, environment=environment, cards=cards, shape=shape)
    _check_interpreter(box)
    return _measure(box, products, before)


def _measure(box: Box, products: dict[str, Product], before: dict[str, Any] | None) -> int:
    """Run the probes, judge, save and show; returns the exit code."""
    from harness.hardware import page

    options, environment = box.options, box.environment
    began_at_s, begun_utc = perf_counter(), f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    wants_last = before is None and not options.rehearsal
    last = _last(Path(options.out), environment) if wants_last else None
    if last is not None:
        before = last.document
    omitted = left_out(options.probes, len(box.cards.indices))
    families = [family for family in FAMILIES if family not in omitted]
    folder = saved.new_folder(Path(options.out))
    print(f"validation: {folder}; {page.machine(environment)}", flush=True)
    measured = _run(box, families, folder)
    by_gpu = {
        gpu.index: None if options.rehearsal else products.get(gpu.name) for gpu in environment.gpus
    }
    card = make_card(measured.measurements, by_gpu, measured.outcomes, omitted)
    document = {
        "validation_version": saved.VALIDATION_VERSION,
        "begun_utc": begun_utc,
        "took_s": perf_counter() - began_at_s,
        "options": {name: getattr(options, name) for name in KEPT},
        "environment": asdict(environment),
        "measurements": [asdict(told) for told in measured.measurements],
        "probes": [_ended(outcome) for outcome in measured.outcomes],
        "left_out": omitted,
        "verdict": card.verdict,
        "rows": [asdict(row) for row in card.rows],
    }
    document = json.loads(json.dumps(document))  # as it will be read: tuples are lists
    found = drift.differences(before, document) if before else None
    since = Path(options.drift[0]).name if options.drift else (last.id if last else None)
    document["drift"] = {
        "since": since,
        "differences": [asdict(one) | {"grade": str(one.grade)} for one in found or ()],
    }
    validation = saved.save(folder, document)
    page.write(validation, found, measured.series, measured.samples)
    page.show(validation, found)
    return card.exit_code


def _run(box: Box, families: Sequence[Family], folder: Path) -> Measured:
    """Run every family in turn; those of the host first, as those of the cards would disturb it."""
    options, cards = box.options, box.cards
    used = memory_used_bytes(cards.uuids)
    measured = Measured(measurements=state(box.environment, used), outcomes=[], samples={})
    if "host" in families:
        _host(measured, folder, rehearsal=options.rehearsal)
    if "client" in families:
        _say("client")
        measured.measurements += _client()
    told = {
        "seconds": options.seconds,
        "rehearsal": options.rehearsal,
        "model": asdict(box.shape),
        "tensor_parallel_sizes": _tensor_parallel_sizes(box.shape, len(cards.indices)),
    }
    _cards_probes(measured, stages(families, cards, told, options.python), folder)
    measured.measurements += sensors(measured.series, measured.samples)
    if measured.samples:
        _save_samples(measured.samples, folder)
    return measured


def _host(measured: Measured, folder: Path, *, rehearsal: bool) -> None:
    _say("host")
    probe = Probe(
        family="host", gpus=(), uuids=(), options={"rehearsal": rehearsal}, limit_s=HOST_LIMIT_S
    )
    with ProbeProcess(probe, folder / "probes") as process:
        _take(measured, run_together([process]))


def _client() -> list[Measurement]:
    try:
        return client.measurements()
    except (NullServerError, WorkerError, OSError) as error:
        reason = f"{type(error).__name__}: {error}"
        return [Measurement(name="host.client_chunks", unit="chunk/s", reason=reason)]


def _cards_probes(measured: Measured, planned: list[list[Probe]], folder: Path) -> None:
    """Run stage after stage; while one measures, the next one imports PyTorch."""
    with ExitStack() as stack:

        def start(stage: list[Probe]) -> list[ProbeProcess]:
            return [stack.enter_context(ProbeProcess(probe, folder / "probes")) for probe in stage]

        ahead = start(planned[0]) if planned else []
        for index, stage in enumerate(planned):
            mine, ahead = ahead, start(planned[index + 1]) if index + 1 < len(planned) else []
            _say(stage[0].family)
            uuids = tuple(uuid for probe in stage for uuid in probe.uuids)
            is_steady = stage[0].family == "steady" and bool(uuids)
            with (
                Sampler(Monitor(), Targets(gpu_uuids=uuids)) if is_steady else nullcontext() as eye
            ):
                if eye is not None:
                    eye.start()
                _take(measured, run_together(mine))
                if eye is not None:
                    measured.samples = dict(eye.stop().gpu)


def _take(measured: Measured, outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        measured.outcomes.append(outcome)
        measured.measurements += outcome.measurements
        if outcome.failure is not None:
            print(f"  {outcome.probe.label}: {outcome.failure}", flush=True)
            for line in outcome.stderr.splitlines()[-5:]:
                print(f"    {line}", flush=True)


def _say(family: str) -> None:
    print(f"  {family}: {FAMILIES[family].meaning} …", flush=True)  # type: ignore[index]


def _cards(environment: Environment, *, rehearsal: bool) -> Cards:
    if rehearsal:
        return Cards(indices=REHEARSED_GPUS, uuids=())
    return Cards(
        indices=tuple(gpu.index for gpu in environment.gpus),
        uuids=tuple(gpu.uuid for gpu in environment.gpus),
    )


def _check_interpreter(box: Box) -> None:
    """Raise UserError if the interpreter cannot run, or lacks PyTorch that probes of cards need."""
    options, environment = box.options, box.environment
    needs = [family for family in options.probes if FAMILIES[family].kind != "host"]
    if environment.python is None:
        raise UserError(f"python={options.python}: cannot be run.")
    if box.cards.indices and needs and "torch" not in environment.packages:
        raise UserError(
            f"{options.python or sys.executable} has no PyTorch, which the probes of the GPUs need:"
            " name the interpreter that has it by python=PATH, or take probes=host,client."
        )


def _shape(name: str, extra_conf_dir: Path | None) -> Shape:
    known = choices("model", conf_dirs(extra_conf_dir))
    if name not in known:
        raise not_there("shape", name, known)
    told = yaml.safe_load(known[name].read_text())["shape"]
    return Shape(**{field: told[field] for field in Shape.__dataclass_fields__})


def _tensor_parallel_sizes(shape: Shape, num_gpus: int) -> list[int]:
    """1, 2, 4, … as far as there are cards, and the heads can be split."""
    sizes = [1]
    while sizes[-1] * 2 <= num_gpus and shape.num_attention_heads % (sizes[-1] * 2) == 0:
        sizes.append(sizes[-1] * 2)
    return sizes


def _last(out: Path, environment: Environment) -> saved.Validation | None:
    """The last validation of this machine, known by its cards."""
    uuids = {gpu.uuid for gpu in environment.gpus}
    return next((one for one in reversed([*saved.saved(out)]) if one.uuids == uuids), None)


def _ended(outcome: Outcome) -> dict[str, Any]:
    return {
        "family": outcome.probe.family,
        "gpus": list(outcome.probe.gpus),
        "took_s": outcome.took_s,
        "failure": outcome.failure,
        "stderr": outcome.stderr if outcome.failure else "",
        "about": [told for told in outcome.about if not {"ready", "done", "series"} & told.keys()],
    }


def _save_samples(samples: dict[str, Any], folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(samples), folder / "steady_state.parquet")


def _compare(before: Path, now: Path) -> int:
    """Print what differs between the two; returns 1 if they are not comparable."""
    from harness.hardware import page

    found = drift.differences(saved.document_of(before), saved.document_of(now))
    print(page.drift_text(found, str(before)))
    return 1 if drift.worst(found) is drift.Grade.NOT_COMPARABLE else 0
