"""What people read of a launch and of a run: what tells it from the others, and what serves it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.axes import value_of
from harness.engines.config import Engine, ExternalEngine, SimEngine
from harness.engines.parallel import ranks
from harness.units import as_said
from loadgen.config import Load
from monitors.nvml import Gpu


def label_of(settings: Any, group: str, axes: dict[str, list[Any]]) -> str:
    """What tells this engine or load from the others of the grid; a load's intensity always."""
    swept = [name for name, values in axes.items() if len(values) > 1]
    names = [name.removeprefix(f"{group}.") for name in swept if name.startswith(f"{group}.")]
    if isinstance(settings, Load):
        named = {"closed": "concurrency", "trace": "trace.speed"}
        intensity = named.get(settings.arrival, "rate_rps")
        if settings.rate_frac is not None:
            intensity = "rate_frac"
        if settings.search is not None:
            return _named(settings, names)
        names += [intensity] if intensity not in names else []
    return _named(settings, names)


def _named(settings: Any, names: Sequence[str]) -> str:
    tree = asdict(settings)
    values = {name.rpartition(".")[2]: value_of(tree, name) for name in names}
    return " ".join(f"{n}={as_said(v)}" for n, v in values.items() if v is not None)


def gpus_text(engine: Engine, gpus: Sequence[Gpu]) -> str:
    """What serves: "2x NVIDIA H200"."""
    if isinstance(engine, ExternalEngine):
        return "unknown"
    if isinstance(engine, SimEngine):
        return f"{ranks(engine)}x {engine.gpu} (simulated)"
    names = [gpu.name for gpu in gpus[: ranks(engine)]]
    return ", ".join(f"{names.count(n)}x {n}" for n in dict.fromkeys(names)) or "CPU"
