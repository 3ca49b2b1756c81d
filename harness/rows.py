"""A row of the runs' table: one run's results, from its raw samples and its stored records."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.axes import axis_values
from harness.ceilings import Ceiling
from harness.identity import setting_of
from harness.kv_cache import demand_frac, expected_tokens
from harness.slo import slo_of
from harness.study import SavedRun
from harness.utilisation import decoder_of, joules_per_output_token, utilisation
from harness.validity import codes
from loadgen.config import Load
from loadgen.metrics import (
    Goodput,
    Summary,
    failures_by_kind,
    goodput,
    send_lag_p99_s,
    summarise,
)
from loadgen.records import Columns, Window
from monitors.metrics import MonitorSummary
from monitors.metrics import summarise as summarise_monitors
from monitors.sampler import SOURCES, Samples, completed

# Settings that give the intensity of a closed or open loop; one of them applies.
INTENSITY = ("concurrency", "rate_rps", "rate_frac")


def row_of(run: SavedRun, about: dict[str, Any], ceiling: Ceiling | None) -> dict[str, Any]:
    """The row of a run by itself, without columns from checks and searches.

    `ceiling` is the measured one, if any. Raises OSError, ValueError or KeyError if the run is
    damaged.
    """
    record, launch = run.record, run.launch
    settings = record["engine"] | record["load"]
    facts, client = launch.get("facts") or {}, record.get("client") or {}
    calibration = (about.get("instrument") or {}).get("calibration") or {}
    at_load = calibration.get("at_load") or {}
    row: dict[str, Any] = {
        "sweep": about["sweep"],
        "run": record["id"],
        "point": record["point"],
        "launch": record["launch"],
        "launch_repeat": record["launch_repeat"],
        "run_repeat": record["run_repeat"],
        "setting": setting_of(record["launch"]),
        "load": load_id(record["load"]),
        "load_kind": load_id(record["load"], INTENSITY),
        "case": record.get("case") or None,
        "place": record["place"],
        "engine": record["engine"]["kind"],
        "simulated": about["simulated"] or str(facts.get("vllm_version")).startswith("simulator"),
        "model": launch.get("model") or about["model"]["name"],
        "vllm_version": facts.get("vllm_version"),
        "gpus": launch.get("gpus"),
        "num_gpus": num_gpus(launch.get("gpus")),
        "status": record["status"],
        "failure": (record.get("failure") or {}).get("kind"),
        "stopped": record.get("stopped"),
        "arrival": record["load"]["arrival"],
        "concurrency": record["load"]["concurrency"],
        "rate_rps": record["load"]["rate_rps"],
        "rate_frac": record["load"].get("rate_frac"),
        "kv_cache_tokens": facts.get("kv_cache_tokens"),
        "startup_s": sum((launch.get("startup_s") or {}).values()) or None,
        "foreign_processes": launch.get("foreign_processes"),
        "not_monitored": record.get("not_monitored"),
        "client_transport": client.get("transport"),
        "client_workers": client.get("workers"),
        "client_error_p50_s": at_load.get("ttft_error_p50_s"),
        "client_error_p99_s": at_load.get("ttft_error_p99_s"),
        "client_clean_chunks_per_s": calibration.get("clean_chunks_per_s"),
    }
    sizes = ("tensor_parallel_size", "data_parallel_size", "replicas")
    for name in ("max_num_seqs", "max_num_batched_tokens", *sizes):
        chosen = settings.get(name)  # as asked for, else as the server reports it
        row[name] = chosen if chosen is not None else facts.get(name)
    row = axis_values(record, about["axes"]) | row
    row |= _measures(run, about) if run.whole else _nothing()
    if run.ok and not run.whole:
        row |= kept_up(record, run.samples("requests"))
    decoder = decoder_of(about["model"])
    row |= utilisation(row, record["engine"], decoder, ceiling)
    memory_bytes = _memory_bytes(about) if row["engine"] == "vllm" else None
    row["kv_cache_expected_tokens"] = expected_tokens(
        decoder, record["engine"], int(row["tensor_parallel_size"] or 1), memory_bytes
    )
    row["kv_demand_frac"] = demand_frac(row)
    row["j_per_output_token"] = joules_per_output_token(row)
    row["validity"] = " ".join(codes(row))
    return row


def kept_up(record: dict[str, Any], requests: Columns) -> dict[str, Any]:
    """The columns that tell how well our own side kept up, in a run made in full or stopped."""
    client = record.get("client") or {}
    return {
        "client_cpu_frac": client.get("cpu_frac"),
        "client_loop_lag_p99_s": client.get("loop_lag_p99_s"),
        "sim_lag_frac": record.get("sim_lag_frac"),
        "send_lag_p99_s": send_lag_p99_s(requests, Window(**record["window"])),
    }


def _memory_bytes(about: dict[str, Any]) -> int | None:
    """The memory of the machine's smallest GPU; None without GPUs."""
    gpus = (about.get("environment") or {}).get("gpus") or []
    return min((gpu["memory_total_bytes"] for gpu in gpus), default=None)


def _measures(run: SavedRun, about: dict[str, Any]) -> dict[str, Any]:
    window = Window(**run.record["window"])
    load = Load(**run.record["load"])
    requests = run.samples("requests")
    summary = summarise(requests, run.chunks, window=window, load=load)
    kinds = [f"{number} {kind}" for kind, number in failures_by_kind(requests).items()]
    sampled = {name: completed(name, run.samples(name)) for name in SOURCES}
    monitored = summarise_monitors(
        Samples(**sampled, notes=()), window.opened_at_s, window.closed_at_s
    )
    slo = slo_of(about)
    useful = goodput(requests, window=window, load=load, slo=slo)
    told = {"failure_kinds": ", ".join(kinds), "shares_prompts": load.shares_prompts}
    measured = asdict(summary) | asdict(monitored) | asdict(useful) | told
    return measured | kept_up(run.record, requests)


def _nothing() -> dict[str, Any]:
    kinds = (Summary, MonitorSummary, Goodput)
    names = [name for kind in kinds for name in kind.__dataclass_fields__]
    return dict.fromkeys([*names, "failure_kinds"])


def load_id(load: dict[str, Any], but: Sequence[str] = ()) -> str:
    """An id for a load that is the same at every engine setting.

    That holds even if the rate is a share of each setting's capacity. Loads that differ only in the
    settings `but` get the same id.
    """
    found = ("rate_rps",) if load.get("rate_frac") or load.get("search") else ()
    what = {name: value for name, value in load.items() if name not in (*but, *found)}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:6]


def num_gpus(gpus: str | None) -> int | None:
    """The number of GPUs in a text like "2x NVIDIA H200"; None for a CPU, or if unknown."""
    counts = re.findall(r"(\d+)x ", gpus or "")
    return sum(map(int, counts)) if counts else None
