"""The box: what the study was measured on, and what its hardware was certified to do."""

from collections.abc import Iterator, Mapping
from typing import Any

from harness.report.blocks import Block, Cell, Facts, Head, Part, Section, Table, Text, text_table
from harness.report.contents import Contents
from harness.units import gibibytes, megahertz, whole


def machine(contents: Contents) -> Section:
    environment = contents.about.get("environment") or {}
    blocks = [*_gpus(environment, simulated=contents.simulated), *_software(environment)]
    if contents.validation is not None:
        told = tuple(rows(_card(contents.validation)))
        blocks.append(Part(title="Hardware validation", blocks=told))
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
    def told(name: str, form: Any) -> Cell:
        value = gpu.get(name)
        return Cell(text="–" if value is None else form(value), value=value)

    ecc = {True: "on", False: "off"}.get(gpu.get("ecc"), "–")  # type: ignore[arg-type]
    return (
        told("index", whole),
        Cell(text=str(gpu.get("name"))),
        told("memory_total_bytes", gibibytes),
        told("power_limit_w", whole),
        told("sm_clock_max_hz", megahertz),
        told("memory_clock_max_hz", megahertz),
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


def _card(validation: Any) -> Any:
    """What a validation ends in, where it says so; else all of it."""
    if isinstance(validation, Mapping) and "rows" in validation:
        return {n: validation[n] for n in ("begun_utc", "verdict", "rows") if n in validation}
    return validation


def rows(value: Any) -> Iterator[Block]:
    """Any JSON as plain rows: a list of objects as a table, an object as names and values."""
    if isinstance(value, Mapping):
        plain = {k: v for k, v in value.items() if not isinstance(v, Mapping | list)}
        if plain:
            yield Facts(rows=tuple((str(k), Cell(text=_plain(v))) for k, v in plain.items()))
        for name, inner in value.items():
            if name not in plain and inner:
                yield Part(title=str(name).replace("_", " "), blocks=tuple(rows(inner)))
    elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        heads = tuple(dict.fromkeys(str(name) for each in value for name in each))
        yield text_table(heads, tuple(tuple(_plain(e.get(h)) for h in heads) for e in value))
    elif isinstance(value, list):
        yield Text(text=", ".join(map(_plain, value)))
    else:
        yield Text(text=_plain(value))


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return str(value)
