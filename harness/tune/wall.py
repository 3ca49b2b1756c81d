"""What limits a server's throughput, judged by CPU and GPU utilisation. Pure.

API server   its busiest process is at BUSY_CORE of a core or more
GPU          its multiprocessors have work BUSY_GPU of the time or more
both         both of these: giving more to only one of them would gain little
between      neither: the engine's loop, launches and communication. Engine core and workers
             spin while they wait, so a full core of theirs says little; a trace says more
compute      on the CPU build: the worker, which computes there, is at BUSY_CORE of a core or more
load         none of these, and no process is near a full core: the server waits for requests
"""

from math import isnan
from statistics import median

from harness.tune.trial import Rows
from harness.units import cores, percent

BUSY_CORE = 0.9
BUSY_GPU = 0.8
SHARES = {
    "api_server_cpu_frac": "API server",
    "engine_core_cpu_frac": "engine core",
    "worker_cpu_frac": "worker",
    "sm_activity_frac": "SM activity",
}


def wall_of(rows: Rows) -> str | None:
    """The limit, as a key of WALLS; None if too little was measured."""
    seen = shares(rows)
    api, gpu = seen["api_server_cpu_frac"], seen["sm_activity_frac"]
    busy_api = api is not None and api >= BUSY_CORE
    busy_gpu = gpu is not None and gpu >= BUSY_GPU
    if busy_api or busy_gpu:
        return "both" if busy_api and busy_gpu else "api_server" if busy_api else "gpu"
    worker = seen["worker_cpu_frac"]
    if worker is not None and worker >= BUSY_CORE and all(r.get("gpus") == "CPU" for r in rows):
        return "compute"
    loops = [s for n in ("engine_core_cpu_frac", "worker_cpu_frac") if (s := seen[n]) is not None]
    if not loops or (api is None and gpu is None):
        return None
    return "between" if max(loops) >= BUSY_CORE else "load"


def shares(rows: Rows) -> dict[str, float | None]:
    """The median of each share over the runs; None if no run has it."""
    found: dict[str, float | None] = {}
    for name in SHARES:
        values = [float(v) for row in rows if (v := row.get(name)) is not None and not isnan(v)]
        found[name] = median(values) if values else None
    return found


WALLS = {
    "api_server": "the API server process is the limit",
    "gpu": "the GPUs are the limit",
    "both": "the GPUs and the API server process are both near their limit",
    "compute": "the worker, which computes on the CPU, is the limit",
    "between": "neither API server nor GPUs are the limit, but what lies between: the engine's"
    " loop, launches, communication (a trace tells: profile=nsys)",
    "load": "nothing of the server is at its limit: it waits for the load",
}


def sentences(defaults: Rows, tuned: Rows) -> tuple[str, ...]:
    """What was the limit and what is it now, with the numbers; empty if nothing is known."""
    before, after = wall_of(defaults), wall_of(tuned)
    told = []
    if before is not None:
        told.append(f"With the defaults {WALLS[before]} ({_numbers(defaults)}).")
    if after is not None:
        same = " still" if after == before else ""
        told.append(f"Tuned,{same} {WALLS[after]} ({_numbers(tuned)}).")
    return tuple(told)


def _numbers(rows: Rows) -> str:
    parts = []
    for name, share in shares(rows).items():
        if share is not None:
            is_gpu = name == "sm_activity_frac"
            shown = f"{percent(share)} %" if is_gpu else f"{cores(share)} of a core"
            parts.append(f"{SHARES[name]} {shown}")
    return ", ".join(parts)
