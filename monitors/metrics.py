"""What a recording says about a window: pure functions of the samples.

A number is None if what it is computed from was not sampled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monitors.counters import increase, mean_s, rate, ttft_quantile_s
from monitors.gpm import METRICS
from monitors.nvml import REASONS, THROTTLING, UNKNOWN_REASONS
from monitors.sampler import Columns, Samples
from monitors.timing import gap_max_s, jitters_s, missed

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSummary:
    """The columns that monitoring adds to the table."""

    # The first six are means over time and GPUs.
    gpu_util_frac: float | None  # share of the time in which any kernel ran
    sm_activity_frac: float | None  # share of the multiprocessors that had work
    tensor_activity_frac: float | None  # share of the time in which tensor cores computed
    dram_bandwidth_frac: float | None  # share of the memory bandwidth that was used
    nvlink_rx_bytes_per_s: float | None  # of one GPU
    nvlink_tx_bytes_per_s: float | None
    gpu_memory_used_bytes: float | None  # peak of the fullest GPU
    gpu_power_w: float | None  # mean over time, sum over GPUs
    gpu_energy_j: float | None  # in the window, sum over GPUs
    sm_clock_mean_hz: float | None
    sm_clock_min_hz: float | None
    temperature_max_c: float | None
    throttled_frac: float | None  # share of readings with throttling for power or heat
    throttle_reasons: str | None  # every reason seen with its share of readings, largest first
    kv_cache_usage_peak_frac: float | None
    kv_cache_usage_mean_frac: float | None
    preemptions: float | None
    requests_running_mean: float | None
    requests_waiting_mean: float | None
    requests_waiting_frac: float | None  # share of samples with a request waiting
    prefix_cache_hit_frac: float | None
    server_steps_per_s: float | None  # engine steps that gave tokens, of all engines
    server_ttft_mean_s: float | None  # by the server's clock, for first tokens in the window
    server_ttft_p50_s: float | None  # interpolated in a bucket of its histogram
    server_ttft_p99_s: float | None
    server_queue_mean_s: float | None  # this and the next two: of requests that finished
    server_prefill_mean_s: float | None
    server_decode_mean_s: float | None
    api_server_cpu_frac: float | None  # of the busiest API server; at 1.0 it may be the limit
    engine_core_cpu_frac: float | None
    worker_cpu_frac: float | None
    server_cpu_max_frac: float | None  # of the busiest process; 1.0 is one core
    server_cpu_max_role: str | None  # the role of that process
    server_rss_bytes: float | None  # peak of the sum; shared memory counts in each process
    monitor_gap_max_s: float | None
    monitor_jitter_p99_s: float | None  # actual minus due start, for the source that was latest
    monitor_missed: float | None  # deadlines without a sample, over all sources


def summarise(samples: Samples, opened_at_s: float, closed_at_s: float) -> MonitorSummary:
    """The numbers of the window [opened_at_s, closed_at_s], which the recording must contain."""
    gpu, server, host = (
        _window(columns, opened_at_s, closed_at_s)
        for columns in (samples.gpu, samples.server, samples.host)
    )
    busiest = _busiest(host)
    window = opened_at_s, closed_at_s
    return MonitorSummary(
        gpu_util_frac=_over(np.mean, _of_each_gpu(gpu, "utilization_frac")),
        **{name: _over(np.mean, _of_each_gpu(gpu, name)) for name in METRICS},
        gpu_memory_used_bytes=_over(np.max, gpu["memory_used_bytes"]),
        gpu_power_w=_over(np.sum, _of_each_gpu(gpu, "power_instant_w")),
        gpu_energy_j=_energy_j(samples.gpu, *window),
        sm_clock_mean_hz=_over(np.mean, gpu["sm_clock_hz"]),
        sm_clock_min_hz=_over(np.min, gpu["sm_clock_hz"]),
        temperature_max_c=_over(np.max, gpu["temperature_c"]),
        throttled_frac=_throttled_frac(gpu["throttle_reasons"]),
        throttle_reasons=_throttle_reasons(gpu["throttle_reasons"]),
        kv_cache_usage_peak_frac=_over(np.max, server["kv_cache_usage_frac"]),
        kv_cache_usage_mean_frac=_over(np.mean, server["kv_cache_usage_frac"]),
        preemptions=increase(samples.server, "preemptions_total", *window),
        requests_running_mean=_over(np.mean, server["requests_running"]),
        requests_waiting_mean=_over(np.mean, server["requests_waiting"]),
        requests_waiting_frac=_over(np.mean, _positive(server["requests_waiting"])),
        prefix_cache_hit_frac=_prefix_cache_hit_frac(samples.server, *window),
        server_steps_per_s=rate(samples.server, "steps_total", *window),
        server_ttft_mean_s=mean_s(samples.server, "ttft", *window),
        server_ttft_p50_s=ttft_quantile_s(samples.server, 0.5, *window),
        server_ttft_p99_s=ttft_quantile_s(samples.server, 0.99, *window),
        server_queue_mean_s=mean_s(samples.server, "queue", *window),
        server_prefill_mean_s=mean_s(samples.server, "prefill", *window),
        server_decode_mean_s=mean_s(samples.server, "decode", *window),
        api_server_cpu_frac=_cpu_frac(host, "api_server"),
        engine_core_cpu_frac=_cpu_frac(host, "engine_core"),
        worker_cpu_frac=_cpu_frac(host, "worker"),
        server_cpu_max_frac=busiest[1] if busiest else None,
        server_cpu_max_role=busiest[0] if busiest else None,
        server_rss_bytes=_over(np.max, _sum_of_each(host["at_s"], host["rss_bytes"])),
        monitor_gap_max_s=gap_max_s(samples, *window),
        monitor_jitter_p99_s=max(jitters_s(samples, *window).values(), default=None),
        monitor_missed=missed(samples, *window),
    )


def _window(columns: Columns, opened_at_s: float, closed_at_s: float) -> Columns:
    inside = (columns["at_s"] >= opened_at_s) & (columns["at_s"] <= closed_at_s)
    return {name: values[inside] for name, values in columns.items()}


def _over(reduce: Callable[[Floats], Any], values: Floats) -> float | None:
    """`reduce` applied to the known values; None if there are none."""
    known = values[~np.isnan(values)]
    return float(reduce(known)) if known.size else None


def _of_each_gpu(gpu: Columns, name: str) -> Floats:
    """The mean over time for each GPU that has readings, (num_gpus,)."""
    means = [_over(np.mean, gpu[name][gpu["gpu"] == index]) for index in np.unique(gpu["gpu"])]
    return np.array([mean for mean in means if mean is not None])


def _throttled_frac(reasons: npt.NDArray[np.int64]) -> float | None:
    known = reasons[reasons & UNKNOWN_REASONS == 0]
    return float(np.mean(known & THROTTLING != 0)) if known.size else None


def _throttle_reasons(reasons: npt.NDArray[np.int64]) -> str | None:
    """E.g. "sw_power_cap 0.25, gpu_idle 0.01"; empty if there was none."""
    known = reasons[reasons & UNKNOWN_REASONS == 0]
    if not known.size:
        return None
    shares = {name: float(np.mean(known & bit != 0)) for bit, name in REASONS.items()}
    seen = sorted(((share, name) for name, share in shares.items() if share > 0), reverse=True)
    return ", ".join(f"{name} {share:.2g}" for share, name in seen)


def _positive(values: Floats) -> Floats:
    """1.0 where above zero, else 0.0; NaN where unknown."""
    return np.where(np.isnan(values), np.nan, values > 0)


def _energy_j(gpu: Columns, opened_at_s: float, closed_at_s: float) -> float | None:
    """Sum over GPUs of counter increase * (power over the window) / (power over the recording).

    The counter is read only at the edges of the recording, the power all the time. So the counter
    gives the total, and the integral of the power gives the window's share of it. None if a GPU
    lacks either.
    """
    energies_j = []
    for index in np.unique(gpu["gpu"]):
        of_gpu = gpu["gpu"] == index
        counted = of_gpu & ~np.isnan(gpu["energy_j"])
        powered = of_gpu & ~np.isnan(gpu["power_instant_w"])
        if counted.sum() < 2 or powered.sum() < 2:
            return None
        at_s, power_w = gpu["at_s"][powered], gpu["power_instant_w"][powered]
        first_at_s, last_at_s = gpu["at_s"][counted][[0, -1]]
        whole = _integral(at_s, power_w, first_at_s, last_at_s)
        if whole <= 0:
            return None
        increase_j = np.ptp(gpu["energy_j"][counted])
        energies_j.append(increase_j * _integral(at_s, power_w, opened_at_s, closed_at_s) / whole)
    return float(sum(energies_j)) if energies_j else None


def _integral(at_s: Floats, values: Floats, start_at_s: float, end_at_s: float) -> float:
    """The integral from start to end: linear between samples, constant outside them."""
    inside = (at_s > start_at_s) & (at_s < end_at_s)
    x = np.concatenate([[start_at_s], at_s[inside], [end_at_s]])
    y = np.interp(x, at_s, values)
    return float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)))


def _prefix_cache_hit_frac(server: Columns, opened_at_s: float, closed_at_s: float) -> float | None:
    """Tokens found in the prefix cache / tokens looked up; None if none were looked up."""
    hits = increase(server, "prefix_cache_hits_total", opened_at_s, closed_at_s)
    queries = increase(server, "prefix_cache_queries_total", opened_at_s, closed_at_s)
    return hits / queries if hits is not None and queries else None


def _busiest(host: Columns, role: str | None = None) -> tuple[str, float] | None:
    """Role and mean cpu_frac of the process (of that role) that used most CPU in the window.

    The mean is over all samples of the tree, so a short-lived process weighs little.
    """
    known = ~np.isnan(host["cpu_frac"])
    num_samples = np.unique(host["at_s"][known]).size
    if role is not None:
        known &= host["role"] == role
    pids, cpu_frac, roles = (host[name][known] for name in ("pid", "cpu_frac", "role"))
    if not pids.size:
        return None
    used = {pid: cpu_frac[pids == pid].sum() / num_samples for pid in np.unique(pids)}
    pid = max(used, key=lambda pid: used[pid])
    return str(roles[pids == pid][-1]), float(used[pid])


def _cpu_frac(host: Columns, role: str) -> float | None:
    busiest = _busiest(host, role)
    return busiest[1] if busiest else None


def _sum_of_each(groups: Floats, values: Floats) -> Floats:
    """The sum of the values of each group, (num_groups,)."""
    _, which = np.unique(groups, return_inverse=True)
    return np.bincount(which, weights=values).astype(np.float64)
