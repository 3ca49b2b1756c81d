"""Labels for people: what distinguishes a launch or run from the others, and what serves it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.axes import value_of
from harness.engines.config import Engine, ExternalEngine, SimEngine
from harness.engines.parallel import ranks
from harness.units import named_values
from loadgen.config import Load
from monitors.nvml import Gpu


def engine_label(engine: Engine, axes: Mapping[str, Sequence[Any]]) -> str:
    """What distinguishes this engine from the grid's others; empty if nothing does."""
    return _named(engine, _swept("engine.", axes))


def load_label(load: Load, axes: Mapping[str, Sequence[Any]]) -> str:
    """What distinguishes this load from the grid's others, always with its intensity.

    A load that searches for its intensity is labelled without it.
    """
    names = _swept("load.", axes)
    if load.search is None and (intensity := _intensity(load)) not in names:
        names.append(intensity)
    return _named(load, names)


def _swept(group: str, axes: Mapping[str, Sequence[Any]]) -> list[str]:
    """The settings of a group that have more than one value."""
    names = (name for name, values in axes.items() if len(values) > 1)
    return [name.removeprefix(group) for name in names if name.startswith(group)]


def _intensity(load: Load) -> str:
    if load.rate_frac is not None:
        return "rate_frac"
    return {"closed": "concurrency", "trace": "trace.speed"}.get(load.arrival, "rate_rps")


def _named(settings: Engine | Load, names: Sequence[str]) -> str:
    tree = asdict(settings)
    values = {name.rpartition(".")[2]: value_of(tree, name) for name in names}
    return named_values({n: v for n, v in values.items() if v is not None}, separator=" ")


def gpus_text(engine: Engine, gpus: Sequence[Gpu]) -> str:
    """The GPUs that serve, e.g. "2x NVIDIA H200"."""
    if isinstance(engine, ExternalEngine):
        return "unknown"
    if isinstance(engine, SimEngine):
        return f"{ranks(engine)}x {engine.gpu} (simulated)"
    return counted([gpu.name for gpu in gpus[: ranks(engine)]]) or "CPU"


def counted(names: Sequence[str]) -> str:
    """Each name once, with how often it is there: "2x NVIDIA H200, 1x NVIDIA L4"."""
    return ", ".join(f"{names.count(n)}x {n}" for n in dict.fromkeys(names))
