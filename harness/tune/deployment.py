"""How to run a setting elsewhere: a command line, container arguments, an engine's YAML. Pure.

The entry point of the image vllm/vllm-openai is `vllm serve`, so the container's arguments are what
follows it, beginning with the model.
"""

import shlex
from dataclasses import dataclass
from typing import Any

import yaml

from harness.engines.config import stored
from harness.engines.flags import flag_of
from harness.engines.vllm import flags, serving
from harness.identity import OPERATIONAL
from harness.model import Model
from harness.sim.options import NOT_OF_VLLM
from harness.tune.space import Served

IMAGE = "vllm/vllm-openai"
WEIGHTS = "/path/to/"  # a placeholder for a shape, whose weights only their owner can locate


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One engine setting, ready to be run. Secrets in its environment are masked."""

    command: str
    arguments: tuple[str, ...]  # for the container
    image: str
    replicas: int  # number of such servers, each on its own GPUs
    env: dict[str, str]
    engine_yaml: str

    @classmethod
    def of(cls, engine: Served, model: Model, vllm_version: str | None) -> "Deployment":
        """From an engine as in a plan, with all that the harness decides filled in."""
        settings = {n: v for n, v in serving(engine).items() if flag_of(n) not in NOT_OF_VLLM}
        arguments = (*_model(model), *flags(settings))
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
    """The model by path or id; for a shape, a placeholder path for the real weights."""
    if model.shape is not None:
        return [f"{WEIGHTS}{model.name}"]
    revision = ["--revision", model.revision] if model.revision else []
    return [str(model.path), *revision]


def _engine_yaml(engine: Served) -> str:
    """The YAML that `engine=tuned` reads: every setting that is set.

    Left out are the operational settings of this machine, and masked environment variables.
    """
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
