"""The box: the machine that the study was measured on, and its hardware validation."""

from collections.abc import Iterator, Mapping
from typing import Any

from harness.ceilings import last_validation
from harness.hardware.card import NUMBERS, TITLES, cells
from harness.hardware.card import reasons as reasons_of
from harness.report.blocks import (
    Block,
    Cell,
    Facts,
    Fold,
    Head,
    Items,
    Part,
    Section,
    Table,
    Text,
    Tone,
    number,
)
from harness.report.contents import Contents
from harness.units import gibibytes, megahertz, plural, whole

UNCERTIFIED = (
    "These GPUs were not validated before this study, so nothing says what they can do:"
    " python -m harness validate."
)
VERDICT_TONES: Mapping[str, Tone] = {"PASS": "good", "WARN": "doubt", "FAIL": "bad"}


def machine(contents: Contents) -> Section:
    environment = contents.about.get("environment") or {}
    blocks = [*_gpus(environment, simulated=contents.simulated), *_software(environment)]
    if certified := tuple(_certified(contents)):
        blocks.append(Part(title="Hardware validation", blocks=certified))
    if not blocks:
        blocks = [Text(text="study.json has no snapshot of the environment.", tone="muted")]
    return Section(id="box", title="The box", blocks=tuple(blocks))


def _gpus(environment: Mapping[str, Any], *, simulated: bool) -> Iterator[Block]:
    gpus = environment.get("gpus") or []
    if simulated and not gpus:
        yield Text(text="No GPU: the server was a simulator. The host is where that ran.")
    elif not gpus:
        yield Text(text="No GPU is visible on this machine.")
    else:
        heads = ("GPU", "model", "memory GiB", "power limit W", "SM clock MHz", "memory clock MHz")
        yield Table(
            heads=(*(Head(title=h, is_text=h == "model") for h in heads), Head(title="ECC")),
            rows=tuple(_gpu(gpu) for gpu in gpus),
        )


def _gpu(gpu: Mapping[str, Any]) -> tuple[Cell, ...]:
    ecc = {True: "on", False: "off"}.get(gpu.get("ecc"), "–")  # type: ignore[arg-type]
    return (
        number(gpu.get("index"), whole),
        Cell(text=str(gpu.get("name"))),
        number(gpu.get("memory_total_bytes"), gibibytes),
        number(gpu.get("power_limit_w"), whole),
        number(gpu.get("sm_clock_max_hz"), megahertz),
        number(gpu.get("memory_clock_max_hz"), megahertz),
        Cell(text=ecc),
    )


def _software(environment: Mapping[str, Any]) -> Iterator[Block]:
    host = environment.get("host") or {}
    packages = environment.get("packages") or {}
    facts = {
        "driver": environment.get("driver_version"),
        "CUDA of the driver": environment.get("cuda_driver_version"),
        "CPU": host.get("cpu_model"),
        "cores": _cores(host),
        "memory": _memory(host),
        "kernel": host.get("kernel"),
        "Python of the server": environment.get("python"),
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()) or None,
    }
    known = tuple((name, Cell(text=str(told))) for name, told in facts.items() if told is not None)
    if known:
        yield Facts(rows=known)
    if variables := environment.get("variables"):
        rows = tuple((name, Cell(text=str(v), is_code=True)) for name, v in variables.items())
        yield Part(title="Environment variables", blocks=(Facts(rows=rows),))


def _cores(host: Mapping[str, Any]) -> str | None:
    if host.get("num_cpus") is None:
        return None
    limit = host.get("cgroup_cpus")
    told = f"{host['num_cpus']}, of which {host.get('num_cpus_usable')} may be used"
    return told if limit is None else f"{told}; control group's limit {limit:g}"


def _memory(host: Mapping[str, Any]) -> str | None:
    if host.get("memory_bytes") is None:
        return None
    told, limit = f"{gibibytes(host['memory_bytes'])} GiB", host.get("cgroup_memory_bytes")
    return told if limit is None else f"{told}; control group's limit {gibibytes(limit)} GiB"


def _certified(contents: Contents) -> Iterator[Block]:
    """The card of the validation stored with the study, else of the GPUs' last one before it."""
    environment = contents.about.get("environment") or {}
    if contents.simulated or not environment.get("gpus"):
        return
    found = contents.validation or last_validation(contents.folder, contents.about)
    if found is None:
        yield Text(text=UNCERTIFIED, tone="muted")
        return
    card = found.card
    yield Text(
        text=f"{card.verdict}: {found.id}, made on {found.begun_utc} UTC, the last validation of"
        f" {'these GPUs' if len(found.uuids) > 1 else 'this GPU'} before the study.",
        tone=VERDICT_TONES.get(card.verdict, "plain"),
    )
    if reasons := reasons_of(card):
        yield Items(items=tuple(reasons))
    judged = Table(
        heads=tuple(
            Head(title=title or "verdict", is_text=place not in NUMBERS)
            for place, title in enumerate(TITLES)
        ),
        rows=tuple(tuple(Cell(text=text) for text in cells(row)) for row in card.short()),
    )
    yield Fold(title=f"{plural(len(judged.rows), 'value')} of the card", blocks=(judged,))
