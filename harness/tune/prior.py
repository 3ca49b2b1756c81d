"""What a setting should give, by arithmetic: no server, no simulation."""

from collections.abc import Sequence

from harness.model import Model
from harness.tune.space import Space
from harness.tune.strategy import Forecast
from loadgen.config import Load


def gpu_name(nvml_name: str) -> str | None:
    """The simulator's name of a GPU that NVML calls "NVIDIA H200"; None where it knows none."""
    from harness.sim.gpus import GPUS

    words = nvml_name.lower().replace("-", " ").split()
    return next((name for name in GPUS if name in words), None)


def forecast(
    space: Space,  # noqa: ARG001
    model: Model,  # noqa: ARG001
    loads: Sequence[Load],  # noqa: ARG001
    gpu: str | None,  # noqa: ARG001
    num_gpus: int,  # noqa: ARG001
) -> Forecast | None:
    """The rows that each setting should give, one for each load; None for a setting that should not
    fit. None at all where the GPU, the model or a load is of a kind that the arithmetic does not
    know: the search then goes by its measurements alone."""
    return None
