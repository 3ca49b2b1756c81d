"""The prior: what every setting of a space should achieve, before anything is launched.

It translates settings, with vLLM's defaults, into the inputs of the arithmetic in
harness/tune/steady.py, whose results are rows like those of the points table. It knows the GPUs of
harness/sim/gpus.py, dense decoders, and loads with a steady state. Settings that it does not model
make no difference to it.

How fast the host's CPU is, it learns from the first launch. Expected is what the arithmetic gives
for the defaults on a host that is `cpu_slowdown` times slower than the one whose constants it has;
the slowdown that explains the measurement best minimises

    (log(measured / expected) / ERROR)² + (log(cpu_slowdown) / SPREAD)²

the first term averaged over the loads, whose errors are alike. So a gap that no CPU explains, as
where the GPUs are the limit, leaves the host as it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean
from typing import Any, Self

import numpy as np

from harness.capacity.columns import capacity_column
from harness.config import Config
from harness.engines.config import SIM_NUM_GPUS, SimEngine
from harness.engines.parallel import copies, decided
from harness.kv_cache import DEFAULT_UTILIZATION
from harness.model import Model
from harness.sim.decoder import BYTES_OF, Decoder
from harness.sim.gpus import GPUS, Gpu
from harness.sim.options import default_max_num_batched_tokens, default_max_num_seqs
from harness.sim.roofline import Roofline, captured_tokens
from harness.tune.space import Served, Space
from harness.tune.steady import Server, Traffic, at_capacity, estimated
from harness.tune.strategy import Forecast
from harness.tune.trial import Rows, Setting
from harness.utilisation import decoder_of
from loadgen.config import Length, Load, SharedPrefix, Slo
from loadgen.lengths import sampler
from monitors.nvml import Gpu as Card

DRAWS = 2000  # samples for the mean of a length distribution
ERROR = 0.2  # standard deviation of log(measured / expected), as harness/sim/roofline.py has it
SPREAD = 0.5  # of log(slowdown): three hosts of H200s had 1.4, 2.6 and 2.8
SLOWDOWNS = tuple(1.08**step for step in range(-4, 19))  # 0.74 to 4


def gpu_name(nvml_name: str) -> str | None:
    """The simulator's name for a GPU that NVML calls, e.g., "NVIDIA H200"; None if unknown."""
    words = nvml_name.lower().replace("-", " ").split()
    return next((name for name in GPUS if name in words), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """The inputs of a forecast. `gpu` is the simulator's name for the GPU; None if unknown."""

    model: Model
    loads: Sequence[Load]
    gpu: str | None
    num_gpus: int
    slo: Slo  # the limits that loads with a capacity search must keep
    cpu_slowdown: float = 1.0  # of the host, against the one that the constants are of

    @classmethod
    def of(cls, config: Config, loads: Sequence[Load], gpus: Sequence[Card]) -> Self:
        """The prior for the machine that serves: this one's `gpus`, or the simulator's GPU."""
        engine = config.engines[0]
        gpu, num_gpus = gpu_name(gpus[0].name) if gpus else None, config.choice.num_gpus
        if isinstance(engine, SimEngine):
            gpu, num_gpus = engine.gpu, SIM_NUM_GPUS
        slo = config.options.slo
        return cls(model=config.model, loads=loads, gpu=gpu, num_gpus=num_gpus, slo=slo)

    def unknown(self) -> str | None:
        """A sentence on why there can be no forecast; None if there can."""
        if self.gpu is None:
            return "there is no GPU whose peaks are known (harness/sim/gpus.py)"
        if _decoder(self.model) is None:
            return f"{self.model.name} is not known to be a dense decoder"
        return next(filter(None, map(_unsteady, self.loads)), None)

    def forecast(self, space: Space, *, only: Setting | None = None) -> Forecast | None:
        """The rows expected of each setting, one per load; None for a setting that should not fit.

        Of every setting, or of one alone. Returns None if there can be no forecast, as `unknown`
        explains. The search then relies on its measurements alone.
        """
        decoder = _decoder(self.model)
        if self.unknown() is not None or self.gpu is None or decoder is None:
            return None
        card, traffics = GPUS[self.gpu], [_traffic(load) for load in self.loads]

        @cache  # many settings are the same to the arithmetic
        def estimate(server: Server, traffic: Traffic) -> dict[str, Any]:
            if traffic.sought:
                return at_capacity(server, traffic, self.slo)
            return estimated(server, traffic)

        def rows(setting: Setting) -> tuple[dict[str, Any], ...] | None:
            engine = decided(space.engine(setting), self.model, self.num_gpus)
            server = server_of(engine, decoder, card, self.cpu_slowdown)
            fits = server.cache_tokens >= (engine.max_model_len or decoder.max_position_embeddings)
            return tuple(estimate(server, each) for each in traffics) if fits else None

        return {each: rows(each) for each in (space.settings() if only is None else (only,))}

    def fitted(self, space: Space, measured: Rows) -> Self:
        """This prior for the host on which the defaults gave these rows, one per load."""

        def misfit(slowdown: float) -> float:
            prior = replace(self, cpu_slowdown=slowdown)
            expected = (prior.forecast(space, only=space.default) or {}).get(space.default) or ()
            gaps = [
                math.log(row[column] / guess[column])
                for load, row, guess in zip(self.loads, measured, expected, strict=False)
                if row.get(column := _speed(load)) and guess.get(column)
            ]
            error = fmean((gap / ERROR) ** 2 for gap in gaps) if gaps else 0.0
            return error + (math.log(slowdown) / SPREAD) ** 2

        return replace(self, cpu_slowdown=min(SLOWDOWNS, key=misfit))


def server_of(engine: Served, decoder: Decoder, gpu: Gpu, cpu_slowdown: float = 1.0) -> Server:
    """The server that an engine amounts to, with vLLM's defaults, on a host of this slowdown.

    Its tensor parallel size must have been decided.
    """
    dtype = BYTES_OF.get(engine.dtype or "auto", BYTES_OF.get(decoder.dtype, 2))
    seqs = engine.max_num_seqs or default_max_num_seqs(gpu)
    tokens = engine.max_num_batched_tokens or default_max_num_batched_tokens(gpu)
    kv = (engine.kv_cache_dtype or "auto").startswith("fp8")
    model = Roofline(
        decoder=decoder,
        gpu=gpu,
        tensor_parallel_size=engine.tensor_parallel_size or 1,
        weight_value_bytes=1 if engine.quantization else dtype,
        kv_value_bytes=1 if kv else dtype,
        graph_tokens=_graph_tokens(engine, seqs),
        async_scheduling=engine.async_scheduling is not False,
        api_server_count=1,
        cpu_slowdown=cpu_slowdown,
    )
    cache_bytes = model.kv_cache_bytes(engine.gpu_memory_utilization or DEFAULT_UTILIZATION)
    engines = engine.data_parallel_size or 1
    return Server(
        roofline=model,
        num_gpus=model.tensor_parallel_size * copies(engine),
        replicas=engine.replicas or 1,
        engines=engines,
        api_servers=engine.api_server_count or engines,
        seats=min(seqs, tokens),
        step_tokens=tokens,
        cache_tokens=max(0, cache_bytes) // model.kv_bytes_per_token,
        stream_interval=engine.stream_interval or 1,
        prefix_caching=engine.enable_prefix_caching is not False,
    )


def _graph_tokens(engine: Served, seqs: int) -> int:
    """The most tokens of a step that runs as a CUDA graph; 0 without graphs."""
    compilation = engine.extra.get("compilation_config")
    mode = compilation.get("cudagraph_mode") if isinstance(compilation, dict) else None
    if engine.enforce_eager or mode == "NONE":
        return 0
    asked = engine.extra.get("max_cudagraph_capture_size")
    return asked if isinstance(asked, int) else captured_tokens(seqs)


def _unsteady(load: Load) -> str | None:
    """Why a load's steady state cannot be predicted; None if it can."""
    if load.arrival in ("ramp", "trace") or load.conversation or load.prompts.kind == "dataset":
        return "loads of traces, ramps, conversations or datasets have no steady state"
    if load.concurrency is None and load.rate_rps is None and _sought(load) is None:
        return "the load's rate is found by measurement"
    return None


def _speed(load: Load) -> str:
    """The column that shows how fast a server is under this load."""
    return _sought(load) or ("e2e_p50_s" if load.is_open else "output_tok_per_s")


def _traffic(load: Load) -> Traffic:
    prompts = load.prompts
    return Traffic(
        input_tokens=_mean(load.input_tokens),
        output_tokens=_mean(load.output_tokens),
        shared_frac=prompts.hit_frac if isinstance(prompts, SharedPrefix) else 0.0,
        concurrency=load.concurrency,
        rate_rps=load.rate_rps,
        duration_s=load.duration_s,
        sought=_sought(load),
    )


def _sought(load: Load) -> str | None:
    """The column of the capacity that a load with `search` searches for, or None."""
    return None if load.search is None else capacity_column(load)


def _mean(length: Length) -> float:
    draw, random = sampler(length), np.random.default_rng(0)
    return float(np.mean([draw(random) for _ in range(DRAWS)]))


def _decoder(model: Model) -> Decoder | None:
    shape = None if model.shape is None else model.shape.__dict__
    return decoder_of({"name": model.name, "path": model.path, "shape": shape})
