"""What a setting should give, by arithmetic: no server, no simulation, half a millisecond.

The steady state of a server whose steps take the simulator's roofline time
(harness/sim/roofline.py), for requests of mean length. One engine keeps B requests in its steps;

    fresh    = B / output                        prompts that begin in a step, Poisson
    mixed    = 1 − exp(−fresh)                   share of steps with a prompt in them, more where
                                                 max_num_batched_tokens cuts prompts in pieces
    step_s   = (1 − mixed) · roofline(B decoding) + mixed · roofline(B decoding, and prompts)
    rate     = B / (output · step_s)             requests a second

B is the largest for which

    B <= max_num_seqs, cached tokens / (input + output / 2), budget · output / (input + output)
    rate · (chunks · API_CHUNK_S + API_REQUEST_S) <= API servers        what they have time for
    B + rate · (time outside of the engine) <= concurrency              closed loop, Little's law
    rate <= the rate that is asked for                                  open loop

A load that searches gives the highest rate (or concurrency) at which ttft and tpot keep the limits.
All tokens leave at B / step_s; tpot is step_s; ttft is what remains of a request's time, in a
closed loop by Little's law, concurrency / rate. Percentiles are taken to be the mean, and energy
to be proportional to GPU-seconds: what is wrong by a factor is wrong for the defaults, too, and
the search learns the rest. An estimate is for ranking; it is never shown as a result.

It does not know what graphs, kernels and formats of other makes cost, nor data parallel balance;
settings that it does not know are all alike to it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from harness.ceilings import decoder_of
from harness.engines.config import SIM_NUM_GPUS, SimEngine
from harness.engines.parallel import copies, decided
from harness.kv_cache import DEFAULT_UTILIZATION
from harness.model import Model
from harness.sim import roofline
from harness.sim.decoder import BYTES_OF, Decoder
from harness.sim.gpus import GPUS, Gpu
from harness.sim.options import default_max_num_batched_tokens, default_max_num_seqs
from harness.sim.roofline import Roofline, Work, captured_tokens
from harness.tune.space import Served, Space
from harness.tune.strategy import Forecast
from harness.tune.trial import Setting
from loadgen.config import Length, Load, SharedPrefix, Slo
from loadgen.lengths import sampler

BLOCK_TOKENS = 16
DRAWS = 2000  # for the mean of a length
HALVINGS = 18  # of the logarithm
LEAST_SHARE = 1e-6  # of the most requests that an engine could keep
CAPACITY_HALVINGS = 16
MOST_RPS, MOST_STREAMS = 1e5, 1e5


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the arithmetic needs to know of a setting."""

    roofline: Roofline
    num_gpus: int
    replicas: int
    engines: int  # of one replica
    api_servers: int  # of one replica
    seats: int
    step_tokens: int
    cache_tokens: int  # of one engine; below one request where it does not fit
    stream_interval: int
    prefix_caching: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Requests of mean length: so many at a time, or so many a second."""

    input_tokens: float
    output_tokens: float
    shared_frac: float  # of a prompt, which others have too
    concurrency: int | None
    rate_rps: float | None
    duration_s: float
    sought: str | None = None  # what is to be found: concurrency or rate_rps


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """An engine's steps while it keeps so many requests."""

    plain_s: float
    mixed_s: float
    mean_s: float


def gpu_name(nvml_name: str) -> str | None:
    """The simulator's name of a GPU that NVML calls "NVIDIA H200"; None where it knows none."""
    words = nvml_name.lower().replace("-", " ").split()
    return next((name for name in GPUS if name in words), None)


def unknown(model: Model, loads: Sequence[Load], gpu: str | None) -> str | None:
    """Why there can be no forecast, in a sentence; None where there can."""
    if gpu is None:
        return "the GPU is none whose peaks are known (harness/sim/gpus.py)"
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
            _at_capacity(server, traffic, limits) if traffic.sought else estimated(server, traffic)
        )

    found: dict[Setting, tuple[dict[str, Any], ...] | None] = {}
    for setting in space.settings():
        engine = decided(space.engine(setting), model, num_gpus)
        server = server_of(engine, decoder, card)
        fits = server.cache_tokens >= (engine.max_model_len or decoder.max_position_embeddings)
        found[setting] = tuple(estimate(server, t) for t in traffics) if fits else None
    return found


def estimated(server: Server, traffic: Traffic) -> dict[str, Any]:
    """The row of the points table that this should give, as far as it can be told."""
    requests = _requests(server, traffic)
    steps = _steps(server, traffic, requests)
    rate = _rate_rps(server, traffic, requests, steps)
    outside_s = _outside_s(server)
    ttft_s = outside_s + steps.mixed_s
    if traffic.concurrency is not None:
        per_replica = traffic.concurrency / server.replicas
        ttft_s = max(ttft_s, per_replica / rate - (traffic.output_tokens - 1) * steps.mean_s)
    else:
        assert traffic.rate_rps is not None
        busy = _api_busy_frac(server, traffic, rate)
        ttft_s += _request_s(server) * busy / max(0.02, 1 - busy) / 2
        wanted = traffic.rate_rps / server.replicas
        if rate < 0.999 * wanted:  # a queue grows as long as the window is open
            ttft_s += traffic.duration_s * (wanted / rate - 1) / 2
    e2e_s = ttft_s + (traffic.output_tokens - 1) * steps.mean_s
    rate *= server.replicas
    output = rate * traffic.output_tokens
    row: dict[str, Any] = {
        "output_tok_per_s": output,
        "output_tok_per_s_run": output,
        "total_tok_per_s": rate * (traffic.input_tokens + traffic.output_tokens),
        "requests_per_s": rate,
        "num_gpus": server.num_gpus,
        "j_per_output_token": server.num_gpus / output,
        "itl_p50_s": steps.plain_s,
        "itl_p99_s": steps.mixed_s,
    }
    for name, value in (("ttft", ttft_s), ("tpot", steps.mean_s), ("e2e", e2e_s)):
        row |= {f"{name}_{part}_s": value for part in ("mean", "p50", "p90", "p99")}
    return row


def _at_capacity(server: Server, traffic: Traffic, slo: Slo) -> dict[str, Any]:
    """The row at the highest rate, or concurrency, that keeps the limits, and that number in it."""
    assert traffic.sought is not None
    is_rate = traffic.sought == "rate_rps"
    low, high = 0.0, MOST_RPS if is_rate else MOST_STREAMS
    best: dict[str, Any] = {}
    for _ in range(CAPACITY_HALVINGS):
        middle = (low * high) ** 0.5 if low else high / 8
        if is_rate:
            row = estimated(server, replace(traffic, rate_rps=middle))
        else:
            row = estimated(server, replace(traffic, concurrency=round(middle)))
        kept = _keeps(row, slo) and (not is_rate or row["requests_per_s"] > 0.99 * middle)
        low, high = (middle, high) if kept else (low, middle)
        best = row if kept or not best else best
    return best | {"capacity_rps" if is_rate else "capacity_concurrency": low or high}


def _keeps(row: Mapping[str, Any], slo: Slo) -> bool:
    limits = {"ttft_mean_s": slo.ttft_s, "tpot_mean_s": slo.tpot_s, "e2e_mean_s": slo.e2e_s}
    return all(limit is None or row[name] <= limit for name, limit in limits.items())


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


def _requests(server: Server, traffic: Traffic) -> float:
    """How many an engine keeps in its steps: the most for which nothing is short."""
    blocks = -(-(traffic.input_tokens + traffic.output_tokens / 2) // BLOCK_TOKENS)
    prompt, reply = _computed(server, traffic), traffic.output_tokens
    most = min(
        server.seats,
        server.cache_tokens / (blocks * BLOCK_TOKENS),
        server.step_tokens * reply / (prompt + reply),
    )
    low, high = float(most) * LEAST_SHARE, float(most)
    if _has_enough(server, traffic, high):
        return high
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _has_enough(server, traffic, middle) else (low, middle)
    return high


def _has_enough(server: Server, traffic: Traffic, requests: float) -> bool:
    rate = _rate_rps(server, traffic, requests, _steps(server, traffic, requests))
    if _api_busy_frac(server, traffic, rate) > 1:
        return False
    if traffic.concurrency is not None:
        inside = requests * server.engines
        return inside + rate * _outside_s(server) <= traffic.concurrency / server.replicas
    assert traffic.rate_rps is not None
    return rate <= traffic.rate_rps / server.replicas


def _steps(server: Server, traffic: Traffic, requests: float) -> Steps:
    prompt = _computed(server, traffic)
    context = traffic.input_tokens + traffic.output_tokens / 2
    decoding = max(1.0, requests)
    fresh = requests / traffic.output_tokens
    mixed = max(1e-6, 1 - math.exp(-fresh))
    chunk = max(1.0, min(fresh * prompt / mixed, server.step_tokens - requests))
    mixed = min(1.0, fresh * prompt / chunk)
    looked_at = decoding * context
    plain = _work(decoding, decoding, looked_at, looked_at)
    both = _work(
        decoding + chunk,
        decoding + chunk / prompt,
        looked_at + chunk,
        looked_at + chunk * (traffic.input_tokens - prompt / 2),
    )
    plain_s, mixed_s = server.roofline.step_s(plain), server.roofline.step_s(both)
    return Steps(plain_s=plain_s, mixed_s=mixed_s, mean_s=(1 - mixed) * plain_s + mixed * mixed_s)


def _work(tokens: float, sequences: float, context: float, pairs: float) -> Work:
    return Work(
        tokens=round(tokens),
        sequences=round(sequences),
        context_tokens=round(context),
        attention_pairs=round(pairs),
    )


def _rate_rps(server: Server, traffic: Traffic, requests: float, steps: Steps) -> float:
    """Of one replica."""
    return server.engines * requests / (traffic.output_tokens * steps.mean_s)


def _api_busy_frac(server: Server, traffic: Traffic, rate_rps: float) -> float:
    chunks = 1 + (traffic.output_tokens - 1) / server.stream_interval
    cost_s = chunks * roofline.API_CHUNK_S + roofline.API_REQUEST_S
    return rate_rps * cost_s / server.api_servers


def _request_s(server: Server) -> float:
    return roofline.API_REQUEST_S / server.api_servers


def _outside_s(server: Server) -> float:
    """From the client to the engine, where nothing queues."""
    return _request_s(server) + roofline.API_LATENCY_S


def _computed(server: Server, traffic: Traffic) -> float:
    """Tokens of a prompt that no cache has."""
    hit = traffic.shared_frac if server.prefix_caching else 0.0
    return max(1.0, traffic.input_tokens * (1 - hit))


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
