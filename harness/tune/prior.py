"""What every setting of a space should give, before anything is launched.

From settings to what the arithmetic of harness/tune/steady.py needs, with vLLM's defaults, and back
to rows like those of the points table. It knows the GPUs of harness/sim/gpus.py, dense decoders,
and loads that have a steady state; settings that it does not know are all alike to it.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

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
from harness.tune.trial import Setting
from harness.utilisation import decoder_of
from loadgen.config import Length, Load, SharedPrefix, Slo
from loadgen.lengths import sampler

DRAWS = 2000  # for the mean of a length


def gpu_name(nvml_name: str) -> str | None:
    """The simulator's name of a GPU that NVML calls "NVIDIA H200"; None where it knows none."""
    words = nvml_name.lower().replace("-", " ").split()
    return next((name for name in GPUS if name in words), None)


def unknown(model: Model, loads: Sequence[Load], gpu: str | None) -> str | None:
    """Why there can be no forecast, in a sentence; None where there can."""
    if gpu is None:
        return "there is no GPU whose peaks are known (harness/sim/gpus.py)"
    if _decoder(model) is None:
        return f"{model.name} is not known to be a dense decoder"
    for load in loads:
        if load.arrival in ("ramp", "trace") or load.conversation or load.prompts.kind == "dataset":
            return "loads of traces, ramps, conversations or datasets have no steady state"
        if load.concurrency is None and load.rate_rps is None and _sought(load) is None:
            return "the load's rate is found by measurement"
    return None


def forecast(
    space: Space,
    model: Model,
    loads: Sequence[Load],
    gpu: str | None,
    num_gpus: int,
    slo: Slo | None = None,
) -> Forecast | None:
    """The rows that each setting should give, one for each load; None for a setting that should not
    fit. `gpu` is one of the simulator's names, and is not asked for where the simulator serves.
    `slo` has the limits of loads that search for the most that keeps them.

    None at all where `unknown` says why: the search then goes by its measurements alone.
    """
    if isinstance(space.pinned, SimEngine):
        gpu, num_gpus = space.pinned.gpu, SIM_NUM_GPUS
    decoder = _decoder(model)
    if unknown(model, loads, gpu) is not None or gpu is None or decoder is None:
        return None
    card, traffics = GPUS[gpu], [_traffic(load) for load in loads]
    limits = slo or Slo()

    @cache  # many settings are alike to the arithmetic
    def estimate(server: Server, traffic: Traffic) -> dict[str, Any]:
        return (
            at_capacity(server, traffic, limits) if traffic.sought else estimated(server, traffic)
        )

    found: dict[Setting, tuple[dict[str, Any], ...] | None] = {}
    for setting in space.settings():
        engine = decided(space.engine(setting), model, num_gpus)
        server = server_of(engine, decoder, card)
        fits = server.cache_tokens >= (engine.max_model_len or decoder.max_position_embeddings)
        found[setting] = tuple(estimate(server, t) for t in traffics) if fits else None
    return found


def server_of(engine: Served, decoder: Decoder, gpu: Gpu) -> Server:
    """What a setting comes to; its tensor parallel size is decided. Defaults are vLLM's."""
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
    """The most tokens of a step that is in a CUDA graph."""
    compilation = engine.extra.get("compilation_config")
    mode = compilation.get("cudagraph_mode") if isinstance(compilation, dict) else None
    if engine.enforce_eager or mode == "NONE":
        return 0
    asked = engine.extra.get("max_cudagraph_capture_size")
    return asked if isinstance(asked, int) else captured_tokens(seqs)


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
    """What a load searches for, if it does (its `search`)."""
    if getattr(load, "search", None) is None:
        return None
    return "rate_rps" if load.is_open else "concurrency"


def _mean(length: Length) -> float:
    draw, random = sampler(length), np.random.default_rng(0)
    return float(np.mean([draw(random) for _ in range(DRAWS)]))


def _decoder(model: Model) -> Decoder | None:
    shape = None if model.shape is None else model.shape.__dict__
    return decoder_of({"name": model.name, "path": model.path, "shape": shape})
