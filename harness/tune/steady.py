"""Estimates a setting's performance by arithmetic: no server, no simulation, half a millisecond.

It computes the steady state of a server whose steps take the simulator's roofline time
(harness/sim/roofline.py), for requests of mean length. One engine has B requests in each step:

    fresh    = B / output                        prompts that begin in a step, Poisson
    mixed    = 1 − exp(−fresh)                   share of steps with a prompt in them; larger if
                                                 max_num_batched_tokens splits prompts
    step_s   = (1 − mixed) · roofline(B decoding) + mixed · roofline(B decoding, and prompts)
    rate     = B / (output · step_s)             requests per second

B is the largest for which

    B <= max_num_seqs, cached tokens / (input + output / 2), budget · output / (input + output)
    rate · (chunks · chunk_s + request_s) <= API servers                their CPU time
    B + rate · (time outside of the engine) <= concurrency              closed loop, Little's law
    rate <= the rate that is asked for                                  open loop

For a load with a search, the estimate is at the highest rate (or concurrency) that keeps the
limits. Tokens leave at B / step_s, and tpot is step_s. In a closed loop, ttft is what remains of a
request's time, which by Little's law is concurrency / rate. Percentiles are taken to equal the
mean, and energy to be proportional to GPU-seconds: an error by a factor applies to the defaults,
too, and the search learns the rest. Estimates are for ranking and are never shown as results.

The arithmetic does not know what other makes of graphs, kernels and formats cost, nor data-parallel
imbalance. Settings that it does not model make no difference to it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.capacity.columns import RATE
from harness.kv_cache import DEFAULT_BLOCK_TOKENS
from harness.sim import roofline
from harness.sim.roofline import Roofline, Work
from loadgen.config import Slo

HALVINGS = 18  # of the interval of log B
LEAST_SHARE = 1e-6  # lower end of that interval, as a share of the most requests an engine can hold
CAPACITY_HALVINGS = 16
MOST_RPS, MOST_STREAMS = 1e5, 1e5


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the arithmetic needs to know about a setting."""

    roofline: Roofline
    num_gpus: int
    replicas: int
    engines: int  # of one replica
    api_servers: int  # of one replica
    seats: int
    step_tokens: int
    cache_tokens: int  # of one engine; less than one request if the model does not fit
    stream_interval: int
    prefix_caching: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Requests of mean length, at a fixed concurrency or a fixed rate."""

    input_tokens: float
    output_tokens: float
    shared_frac: float  # share of a prompt that it has in common with others
    concurrency: int | None
    rate_rps: float | None
    duration_s: float
    sought: str | None = None  # the column of the capacity to search for


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Durations of an engine's steps at a given number of requests."""

    plain_s: float
    mixed_s: float
    mean_s: float


def estimated(server: Server, traffic: Traffic) -> dict[str, Any]:
    """The row of the points table to expect, with the columns that can be estimated."""
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
        if rate < 0.999 * wanted:  # overload: the queue grows throughout the window
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


def at_capacity(server: Server, traffic: Traffic, slo: Slo) -> dict[str, Any]:
    """The row at the highest rate, or concurrency, that keeps the limits, with that capacity."""
    assert traffic.sought is not None
    is_rate = traffic.sought == RATE
    low, high = 0.0, MOST_RPS if is_rate else MOST_STREAMS
    best: dict[str, Any] = {}
    for _ in range(CAPACITY_HALVINGS):
        middle = (low * high) ** 0.5 if low else high / 8
        if is_rate:
            row = estimated(server, replace(traffic, rate_rps=middle))
        else:
            row = estimated(server, replace(traffic, concurrency=max(1, round(middle))))
        kept = _keeps(row, slo) and (not is_rate or row["requests_per_s"] > 0.99 * middle)
        low, high = (middle, high) if kept else (low, middle)
        best = row if kept or not best else best
    return best | {traffic.sought: low or high}


def _keeps(row: Mapping[str, Any], slo: Slo) -> bool:
    limits = {"ttft_mean_s": slo.ttft_s, "tpot_mean_s": slo.tpot_s, "e2e_mean_s": slo.e2e_s}
    return all(limit is None or row[name] <= limit for name, limit in limits.items())


def _requests(server: Server, traffic: Traffic) -> float:
    """How many requests an engine has in each step: the most for which no resource runs short."""
    blocks = -(-(traffic.input_tokens + traffic.output_tokens / 2) // DEFAULT_BLOCK_TOKENS)
    prompt, reply = _computed(server, traffic), traffic.output_tokens
    most = min(
        server.seats,
        server.cache_tokens / (blocks * DEFAULT_BLOCK_TOKENS),
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
    """Requests per second of one replica."""
    return server.engines * requests / (traffic.output_tokens * steps.mean_s)


def _api_busy_frac(server: Server, traffic: Traffic, rate_rps: float) -> float:
    chunks = 1 + (traffic.output_tokens - 1) / server.stream_interval
    cost_s = chunks * server.roofline.api_chunk_s + server.roofline.api_request_s
    return rate_rps * cost_s / server.api_servers


def _request_s(server: Server) -> float:
    return server.roofline.api_request_s / server.api_servers


def _outside_s(server: Server) -> float:
    """Seconds from the client to the engine, without queueing."""
    return _request_s(server) + roofline.API_LATENCY_S


def _computed(server: Server, traffic: Traffic) -> float:
    """Tokens of a prompt that must be computed, because the prefix cache lacks them."""
    hit = traffic.shared_frac if server.prefix_caching else 0.0
    return max(1.0, traffic.input_tokens * (1 - hit))
