"""The settings of an engine. vLLM's keep vLLM's names; `None` leaves a setting to vLLM.

There are three kinds: `vllm` and `sim` are started by the harness with the same settings;
`external` is a server that somebody else runs. `engine=auto` is resolved to one of them before this
schema is applied.
"""

import os
import re
from dataclasses import asdict
from ipaddress import IPv6Address
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from harness.environment import masked
from loadgen.config import STRICT

# Environment variables are text, also where YAML reads a number (OMP_NUM_THREADS=1).
Text = Annotated[str, BeforeValidator(lambda v: str(v) if type(v) in (int, float) else v)]
URL = re.compile(r"https?://(\[(?P<ipv6>[^/\s\]]+)\]|[^/\s:\[\]]+)(:(?P<port>\d{1,5}))?(/\S*)?")
SIM_NUM_GPUS = 2  # in the machine that the simulator imitates


@dataclass(kw_only=True, config=STRICT)
class ServeSettings:
    """The `vllm serve` settings that sweeps often vary; `extra` holds all others.

    `replicas` is the number of such servers.
    """

    tensor_parallel_size: int | None = Field(
        None,
        ge=1,
        description="GPUs that each layer is split across; default: all that the heads allow",
    )
    data_parallel_size: int | None = Field(
        None, ge=1, description="engines behind one API, each with the whole model"
    )
    max_num_seqs: int | None = Field(None, ge=1, description="maximum requests per step")
    max_num_batched_tokens: int | None = Field(
        None, ge=1, description="maximum tokens per step (the scheduler's budget)"
    )
    max_model_len: int | None = Field(None, ge=1, description="maximum prompt + output tokens")
    gpu_memory_utilization: float | None = Field(
        None, gt=0, le=1, description="share of each GPU's memory that vLLM may take"
    )
    dtype: str | None = Field(None, description="type of weights and activations, e.g. bfloat16")
    quantization: str | None = Field(None, description="weight quantisation, e.g. fp8")
    kv_cache_dtype: str | None = Field(None, description="type of the KV cache, e.g. fp8")
    block_size: int | None = Field(None, ge=1, description="tokens per KV cache block")
    enable_prefix_caching: bool | None = Field(
        None, description="reuse KV cache blocks of identical prefixes"
    )
    enable_chunked_prefill: bool | None = Field(None, description="split long prompts across steps")
    async_scheduling: bool | None = Field(
        None, description="schedule a step while the previous one runs"
    )
    enforce_eager: bool | None = Field(None, description="no CUDA graphs, no compilation")
    api_server_count: int | None = Field(None, ge=1, description="number of API server processes")
    stream_interval: int | None = Field(None, ge=1, description="tokens per streamed chunk")
    replicas: int | None = Field(
        None,
        ge=1,
        description="number of such servers, each on its own GPUs; the client spreads the load",
    )
    extra: dict[str, Any] = Field(
        default_factory=dict, description="any other flag: engine.extra.NAME=VALUE -> --name value"
    )

    @model_validator(mode="after")
    def _extra_is_extra(self) -> Self:
        """The row would show the named setting, and the server would obey the flag."""
        for name in self.extra:
            named = name.replace("-", "_")
            if named in type(self).__dataclass_fields__:
                raise ValueError(f"engine.extra.{name}: say engine.{named}")
        return self

    def headers(self) -> dict[str, str]:
        """Headers sent with every request: none, because our own servers need no key."""
        return {}


@dataclass(kw_only=True, config=STRICT)
class VllmEngine(ServeSettings):
    """A real `vllm serve` process."""

    kind: Literal["vllm"] = "vllm"
    python: str | None = Field(None, description="interpreter that has vLLM; default: this one")
    env: dict[str, Text] = Field(
        default_factory=dict,
        description="environment variables of the server: engine.env.NAME=VALUE",
    )
    port: int | None = Field(
        None, ge=1, le=65535, description="port of the server; default: a free one"
    )
    start_timeout_s: float = Field(900.0, gt=0, description="limit from process start to /health")
    first_token_timeout_s: float = Field(
        120.0,
        gt=0,
        description="limit from /health to a first token, and for silence in a streamed run",
    )
    stop_timeout_s: float = Field(
        30.0, gt=0, description="time to exit after SIGINT, before SIGTERM"
    )

    @model_validator(mode="after")
    def _replicas_do_not_collide(self) -> Self:
        if (self.replicas or 1) > 1:
            if self.port is not None:
                raise ValueError("engine.port is for one server: leave it unset with replicas")
            if "CUDA_VISIBLE_DEVICES" in self.env:
                raise ValueError(
                    "engine.env.CUDA_VISIBLE_DEVICES would put all replicas on the same GPUs: set"
                    " it in the environment of the harness"
                )
        return self


@dataclass(kw_only=True, config=STRICT)
class SimEngine(ServeSettings):
    """The simulator: vLLM's scheduling, step times from a roofline model, no GPU."""

    kind: Literal["sim"] = "sim"
    gpu: Literal["b200", "h200", "h100", "a100", "l40s", "l4", "a10g"] = Field(
        "h200",
        description="GPU to simulate; median error on 2x H200: 11 % in throughput, 18 % in TTFT, "
        "11 % in TPOT (extra.cpu_slowdown=1.35 where the host was busy); no other GPU was compared",
    )
    start_timeout_s: float = Field(60.0, gt=0, description="limit from process start to /health")
    first_token_timeout_s: float = Field(
        30.0,
        gt=0,
        description="limit from /health to a first token, and for silence in a streamed run",
    )
    stop_timeout_s: float = Field(
        5.0, gt=0, description="time to exit after SIGINT, before SIGTERM"
    )

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        for name in ("quantization", "data_parallel_size"):
            if getattr(self, name) is not None:
                raise ValueError(f"engine.{name} has no effect on the simulator: leave it unset")
        return self


def _is_url(value: str) -> str:
    found = URL.fullmatch(value)
    try:
        if found is None or not 0 < int(found["port"] or 80) < 2**16:
            raise ValueError
        if found["ipv6"] is not None:
            IPv6Address(found["ipv6"])
    except ValueError:
        raise ValueError(
            "must be the address of a server, e.g. http://127.0.0.1:8000 or http://[::1]:8000"
        ) from None
    return value


@dataclass(kw_only=True, config=STRICT)
class ExternalEngine:
    """A server that somebody else runs; it is neither started nor stopped."""

    kind: Literal["external"] = "external"
    url: Annotated[str, AfterValidator(_is_url)] = Field(
        description="address of the server, e.g. http://127.0.0.1:8000"
    )
    served_model: str | None = Field(
        None, description="model to ask for; default: the first of /v1/models"
    )
    api_key_env: str | None = Field(
        None, description="environment variable with the API key, sent as a bearer token"
    )
    header_env: dict[str, str] = Field(
        default_factory=dict,
        description="more headers: NAME -> environment variable with its value",
    )
    first_token_timeout_s: float = Field(
        120.0, gt=0, description="limit for a first token, and for silence in a streamed run"
    )

    def headers(self) -> dict[str, str]:
        """Headers sent with every request; read from the environment, and never stored.

        Raises ValueError if the environment lacks a variable.
        """
        headers = {name: _from_environment(env, name) for name, env in self.header_env.items()}
        if self.api_key_env is not None:
            key = _from_environment(self.api_key_env, "Authorization")
            headers["Authorization"] = f"Bearer {key}"
        return headers


def _from_environment(variable: str, header: str) -> str:
    if not (value := os.environ.get(variable)):
        raise ValueError(f"the environment has no {variable}, which the header {header} needs")
    return value


Engine = Annotated[VllmEngine | SimEngine | ExternalEngine, Field(discriminator="kind")]


def stored(engine: Engine) -> dict[str, Any]:
    """The settings as they may be written to disk: secrets in the server's environment masked."""
    settings = asdict(engine)
    if "env" in settings:
        settings["env"] = {name: masked(name, value) for name, value in settings["env"].items()}
    return settings
