"""The simulator as a server process: vLLM's flags, no GPU."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.engines.config import SimEngine
from harness.engines.replicas import AnyServer, launch_all
from harness.engines.server import Setup
from harness.engines.start import HOST, launch
from harness.engines.vllm import flags, serving
from harness.model import Model, materialise


def start(
    engine: SimEngine,
    model: Model,
    folder: Path,
    models_folder: Path,
    *,
    on_phase: Callable[[str], None] | None = None,
) -> AnyServer:
    """Start the simulator, or its replicas, and wait for a first token. Raises EngineFailed."""
    served = materialise(model, models_folder)
    arguments = flags(serving(engine) | {"gpu": engine.gpu})
    # so that the server imports this very package, wherever the harness was started
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
    if (replicas := engine.replicas or 1) == 1:
        return launch(setup, folder, on_phase)
    return launch_all([setup] * replicas, folder, on_phase)


def argv(served: str, name: str, port: int, arguments: Sequence[str]) -> list[str]:
    """The whole command line."""
    where = ["--host", HOST, "--port", str(port), "--served-model-name", name]
    return [sys.executable, "-m", "harness.sim", served, *where, *arguments]
