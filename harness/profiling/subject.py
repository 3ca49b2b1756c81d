"""What is profiled: a point as it was measured, on a server of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import TypeAdapter

from harness.engines.config import Engine, VllmEngine
from harness.engines.parallel import ranks
from harness.model import Model
from harness.study import SavedRun
from loadgen.config import Load


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An engine setting under a load, as one run of a study had them."""

    engine: VllmEngine
    load: Load  # its rate found, where it was a share of the capacity
    model: Model
    seed: int
    gpu_uuids: tuple[str, ...]  # that its server takes, in CUDA's order
    title: str

    @classmethod
    def of(
        cls, run: SavedRun, model: Model, engine: Engine, gpus: tuple[str, ...], title: str
    ) -> Self:
        """A run that measured something. `gpus` are all that servers may take."""
        assert isinstance(engine, VllmEngine)
        return cls(
            engine=engine,
            load=Load(**run.record["load"]),
            model=model,
            seed=run.record["seed"],
            gpu_uuids=gpus[: ranks(engine)],
            title=title,
        )


def stored_engine(run: SavedRun) -> Engine:
    """As run.json has it: the secrets of its environment are masked."""
    engine: Engine = TypeAdapter(Engine).validate_python(run.record["engine"])
    return engine


def stored_model(about: Mapping[str, Any]) -> Model:
    """As study.json has it."""
    return TypeAdapter(Model).validate_python(about["model"])
