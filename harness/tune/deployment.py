"""How to run a setting elsewhere: a command line, a container's arguments, an engine's YAML. Pure.

The image vllm/vllm-openai begins with `vllm serve`, so its arguments are what follows that: the
model first, by position.
"""

import shlex
from dataclasses import dataclass
from typing import Any

import yaml

from harness.engines.config import stored
from harness.engines.vllm import flags, serving
from harness.identity import OPERATIONAL
from harness.model import Model
from harness.tune.space import Served

IMAGE = "vllm/vllm-openai"
WEIGHTS = "/path/to/"  # of a shape, whose weights only their owner knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One engine setting, for those who will run it. Secrets of its environment are masked."""

    command: str
    arguments: tuple[str, ...]  # of the container
    image: str
    replicas: int  # such servers, each on its own GPUs
    env: dict[str, str]
    engine_yaml: str

    @classmethod
    def of(cls, engine: Served, model: Model, vllm_version: str | None) -> "Deployment":
        """`engine` with all that the harness decides, as a plan has it."""
        arguments = (*_model(model), *flags(serving(engine)))
        env = stored(engine).get("env", {})
        return cls(
            command=" ".join(
                [
                    *(f"{name}={shlex.quote(value)}" for name, value in env.items()),
                    shlex.join(["vllm", "serve", *arguments]),
                ]
            ),
            arguments=arguments,
            image=f"{IMAGE}:v{vllm_version}" if vllm_version else IMAGE,
            replicas=engine.replicas or 1,
            env=env,
            engine_yaml=_engine_yaml(engine),
        )


def _model(model: Model) -> list[str]:
    """By its path or id; a shape's real weights are named by whoever has them."""
    if model.shape is not None:
        return [f"{WEIGHTS}{model.name}"]
    revision = ["--revision", model.revision] if model.revision else []
    return [str(model.path), *revision]


def _engine_yaml(engine: Served) -> str:
    """What `engine=tuned` reads: all that is set, without how the server is run on this machine,
    and without an environment that is masked."""
    settings: dict[str, Any] = {
        name: value
        for name, value in stored(engine).items()
        if value not in (None, {}) and name not in (*OPERATIONAL, "env")
    }
    kind = settings.pop("kind")
    own = getattr(engine, "env", {})
    env = {name: v for name, v in stored(engine).get("env", {}).items() if v == own.get(name)}
    tree = {"kind": kind, **settings, **({"env": env} if env else {})}
    text: str = yaml.safe_dump(tree, sort_keys=False)
    return (
        f"# The best that a search found: answer.md beside conf/ says whether it is proven.\n{text}"
    )
