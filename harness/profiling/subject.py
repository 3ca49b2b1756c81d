"""What is profiled: a point as it was measured, on a separate server."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from harness.engines.config import Engine, VllmEngine
from harness.engines.parallel import ranks
from harness.errors import UserError
from harness.model import Model
from harness.study import SavedRun
from loadgen.config import Load
from loadgen.wording import rule_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An engine setting under a load, as one run of a study had them."""

    engine: VllmEngine
    load: Load  # with the rate that was found, if it was a share of the capacity
    model: Model
    seed: int
    gpu_uuids: tuple[str, ...]  # those its server uses, in CUDA's order
    title: str

    @classmethod
    def of(
        cls, run: SavedRun, model: Model, engine: Engine, gpus: tuple[str, ...], title: str
    ) -> Self:
        """The subject of a run that measured something; `gpus` are all that servers may use."""
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
    """The engine as stored in run.json, with masked secrets. Raises UserError."""
    engine: Engine = _known(Engine, run.record["engine"], f"engine of {run.folder}")
    return engine


def stored_model(about: Mapping[str, Any]) -> Model:
    """The model as stored in study.json. Raises UserError."""
    model: Model = _known(Model, about["model"], f"model of the study of {about['sweep']}")
    return model


def _known(schema: Any, told: Any, what: str) -> Any:
    try:
        return TypeAdapter(schema).validate_python(told)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"the {what} was stored by another version of the harness ({where}: {rule_of(first)}):"
            " only that one can start it again."
        ) from None
