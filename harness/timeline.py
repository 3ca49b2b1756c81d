"""Everything that was sampled in one run on one clock, joined on a common grid.

Requests and chunks are known exactly. Samples are not: a gauge is taken to hold until the next
sample, and a mean over the time since the previous sample (GPM, CPU) to hold back to that one.
Where a sample is too far away the value is NaN, not a guess.
"""

from math import isnan
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.study import SavedRun
from harness.validity import MAX_GAP_S
from loadgen.metrics import arrivals
from monitors.nvml import THROTTLING, UNKNOWN_REASONS
from monitors.sampler import completed

Floats = npt.NDArray[np.float64]
Series = dict[str, Floats]

STEP_S = 0.1


def timeline(run: SavedRun) -> Series:
    """Series of equal length on a grid of `STEP_S`; `t_s` counts from the window's opening.

    A grid point stands for the time until the next one. `window_s` is the window's length, the same
    everywhere. All series are always there; what was not sampled is NaN. If a run was stopped
    before its window opened, `t_s` counts from its start; if before the window closed, the window
    lasts to its end.
    """
    window = run.record["window"]
    opened_at_s = _reached(window["opened_at_s"], window["started_at_s"])
    first = np.ceil((window["started_at_s"] - opened_at_s) / STEP_S)
    last = np.floor((window["ended_at_s"] - opened_at_s) / STEP_S + 1e-6)  # whole steps only
    t_s = np.arange(first, max(last, first + 1)) * STEP_S
    at_s = t_s + opened_at_s
    length_s = _reached(window["closed_at_s"], window["ended_at_s"]) - opened_at_s
    return {
        "t_s": t_s,
        "window_s": np.full(len(t_s), length_s),
        **_load(run, at_s),
        **_server(completed("server", run.samples("server")), at_s),
        **_gpus(completed("gpu", run.samples("gpu")), at_s),
        **_host(completed("host", run.samples("host")), at_s),
    }


def _reached(at_s: float, otherwise_at_s: float) -> float:
    return otherwise_at_s if isnan(at_s) else at_s


def _load(run: SavedRun, at_s: Floats) -> Series:
    requests = run.samples("requests")
    begun = np.sort(requests["sent_at_s"][~np.isnan(requests["sent_at_s"])])
    ended = np.sort(requests["ended_at_s"][~np.isnan(requests["sent_at_s"])])
    in_flight = np.searchsorted(begun, at_s, "right") - np.searchsorted(ended, at_s, "right")
    come, span_s = np.zeros(len(at_s)), (at_s[0], at_s[-1] + STEP_S)
    for tokens, come_at_s in arrivals(requests, run.chunks):
        come += np.histogram(come_at_s, bins=len(at_s), range=span_s, weights=tokens)[0]
    return {"requests_in_flight": in_flight.astype(float), "output_tok_per_s": come / STEP_S}


def _server(server: Any, at_s: Floats) -> Series:
    names = ("requests_running", "requests_waiting", "kv_cache_usage_frac")
    return {name: held(server["at_s"], server[name], at_s) for name in names}


def _gpus(gpu: Any, at_s: Floats) -> Series:
    """Means over GPUs; for power the sum, the lowest clock, and whether any GPU was throttled."""
    each: dict[str, list[Floats]] = {name: [] for name in (*_GPU, "throttled")}
    for index in np.unique(gpu["gpu"]):
        mine = gpu["gpu"] == index
        sampled_at_s, reasons = gpu["at_s"][mine], gpu["throttle_reasons"][mine]
        throttled = np.where(reasons & UNKNOWN_REASONS, np.nan, reasons & THROTTLING != 0)
        each["throttled"].append(held(sampled_at_s, throttled, at_s))
        for name, (since, _) in _GPU.items():
            values = gpu[name][mine]
            each[name].append((held_back if since else held)(sampled_at_s, values, at_s))
    if not each["throttled"]:
        return {name: np.full(len(at_s), np.nan) for name in each}
    joined = {name: reduce(np.array(each[name]), axis=0) for name, (_, reduce) in _GPU.items()}
    return joined | {"throttled": np.max(np.array(each["throttled"]), axis=0)}


# column -> (whether it is a mean since the previous sample, how GPUs are combined)
_GPU: dict[str, tuple[bool, Any]] = {
    "utilization_frac": (False, np.mean),
    "sm_activity_frac": (True, np.mean),
    "tensor_activity_frac": (True, np.mean),
    "dram_bandwidth_frac": (True, np.mean),
    "power_instant_w": (False, np.sum),
    "sm_clock_hz": (False, np.min),
}


def _host(host: Any, at_s: Floats) -> Series:
    """CPU use of the busiest process of each role."""
    series = {}
    for role in ("api_server", "engine_core", "worker"):
        mine = (host["role"] == role) & ~np.isnan(host["cpu_frac"])
        sampled_at_s = np.unique(host["at_s"][mine])
        which = np.searchsorted(sampled_at_s, host["at_s"][mine])
        busiest = np.zeros(len(sampled_at_s))
        np.maximum.at(busiest, which, host["cpu_frac"][mine])
        series[f"{role}_cpu_frac"] = held_back(sampled_at_s, busiest, at_s)
    return series


def held(sampled_at_s: Floats, values: Floats, at_s: Floats) -> Floats:
    """The previous sample's value at each instant; NaN if it is more than `MAX_GAP_S` old."""
    if not len(sampled_at_s):
        return np.full(len(at_s), np.nan)
    place = np.searchsorted(sampled_at_s, at_s, side="right") - 1
    taken = np.maximum(place, 0)
    fresh = (place >= 0) & (at_s - sampled_at_s[taken] <= MAX_GAP_S)
    return np.where(fresh, values[taken], np.nan)


def held_back(sampled_at_s: Floats, values: Floats, at_s: Floats) -> Floats:
    """The next sample's value at each instant; NaN if it is more than `MAX_GAP_S` away."""
    return held(-sampled_at_s[::-1], values[::-1], -at_s[::-1])[::-1]
