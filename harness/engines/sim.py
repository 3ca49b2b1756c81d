"""The simulator as a server process: vLLM's flags, no GPU."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.engines.config import SIM_NUM_GPUS, SimEngine
from harness.engines.server import HOST, Server, Setup, launch
from harness.engines.vllm import flags, serving
from harness.model import Model, materialise


def start(
    engine: SimEngine,
    model: Model,
    folder: Path,
    models_folder: Path,
    *,
    on_phase: Callable[[str], None] | None = None,
) -> Server:
    """Start the simulator and wait for a first token. Raises EngineFailed."""
    served = materialise(model, models_folder)
    arguments = flags(serving(engine, model, SIM_NUM_GPUS) | {"gpu": engine.gpu})
    # the server finds this very package, wherever the harness was started
    here = str(Path(__file__).resolve().parents[2])
    python_path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    setup = Setup(
        command=lambda port: argv(served, model.name, port, arguments),
        executable=sys.executable,
        env={"PYTHONPATH": python_path},
        model=model.name,
        port=None,
        gpu_uuids=(),
        start_timeout_s=engine.start_timeout_s,
        first_token_timeout_s=engine.first_token_timeout_s,
        stop_timeout_s=engine.stop_timeout_s,
    )
    return launch(setup, folder, on_phase)


def argv(served: str, name: str, port: int, arguments: Sequence[str]) -> list[str]:
    """The whole command line."""
    where = ["--host", HOST, "--port", str(port), "--served-model-name", name]
    return [sys.executable, "-m", "harness.sim", served, *where, *arguments]
