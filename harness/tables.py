"""Tables of a study, made of its raw samples alone, again whenever they are wanted."""

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from harness.axes import axis_columns, swept, value_of_record
from harness.capacity.columns import capacity_columns
from harness.ceilings import (
    Ceiling,
    decoder_of,
    joules_per_output_token,
    measured_ceiling,
    utilisation,
)
from harness.checks.columns import check_columns
from harness.columns import COLUMNS, Column
from harness.errors import UserError
from harness.kv_cache import demand_frac, expected_tokens
from harness.plan import setting_of
from harness.relations import related
from harness.slo import limits_text, slo_of
from harness.study import SavedRun, Study
from harness.validity import codes
from loadgen.config import Load
from loadgen.metrics import Goodput, Summary, failures_by_kind, goodput, summarise
from loadgen.records import Window
from monitors.metrics import MonitorSummary
from monitors.metrics import summarise as summarise_monitors
from monitors.sampler import SOURCES, Samples, completed

INTENSITY = (
    "concurrency",
    "rate_rps",
    "rate_frac",
)  # of a closed or an open loop: one of them applies
EMPTY = "–"
SIMULATED = "SIMULATED: no hardware was measured."


def runs_table(study: Study, only: Collection[str] | None = None) -> pd.DataFrame:
    """One row a run, in the order of the grid: every column of harness/columns.py that a run has,
    before them one for each axis that has no column of its own. `only`: of these runs.
    """
    about = study.about
    ceiling = measured_ceiling(study.folder, about)
    checked, searched = check_columns(study, about), capacity_columns(study)
    rows = []
    for run in study.runs(only):
        try:
            row = _row(run, about, ceiling)
            of_checks = checked.columns(row["setting"], run.record["load"])
            rows.append(row | of_checks | searched.get(row["run"], {}))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{run.folder} is damaged ({type(error).__name__}: {error}): delete it; the"
                " same command measures it again, `table` leaves it out."
            ) from None
    rows.sort(key=lambda row: (*row["place"], row["launch_repeat"], row["run_repeat"]))
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    names = [column.name for column in COLUMNS if column.name in table]
    axes = list(axis_columns(about["axes"]).values())
    for name in axes:
        table[name] = _of_one_type(table[name])
    return table[[name for name in axes if name not in names] + names]


def row_of(study: Study, run_id: str) -> dict[str, Any]:
    """One run that was saved, by itself: without what checks, searches and a validation tell."""
    (run,) = study.runs({run_id})
    return _row(run, study.about, ceiling=None)


def points_table(runs: pd.DataFrame, axes: dict[str, list[Any]]) -> pd.DataFrame:
    """One row a point: the median of its good runs, how many they are, and how far they spread.

    `spread_frac` is (largest - smallest) / median of output_tok_per_s. What a point is to others
    (gain, speed-up, efficiency) is harness/relations.py's.
    """
    rows: list[dict[Any, Any]] = []
    for _, group in runs.groupby("point", sort=False):
        good = group[group["status"] == "ok"]
        if "stopped" in good:  # of a run that was cut short there are no numbers
            good = good[good["stopped"].isna()]
        if "at_capacity" in good and good["at_capacity"].any():  # of a search, what it found
            good = good[good["at_capacity"] == True]  # noqa: E712  # it may hold None
        row = group.iloc[0].to_dict() | {"spread_frac": None}  # of runs that all failed
        if len(good):
            row = good.iloc[0].to_dict() | good.median(numeric_only=True).to_dict()
            rate = good["output_tok_per_s"]
            row["spread_frac"] = (
                (rate.max() - rate.min()) / rate.median() if len(good) > 1 else None
            )
        row["runs_ok"], row["runs_all"] = len(good), len(group)
        told = good if "at_capacity" in good and len(good) else group
        row["validity"] = _union(told["validity"])
        rows.append(row)
    return related(pd.DataFrame(rows), swept(axes))


def markdown(points: pd.DataFrame, about: dict[str, Any]) -> str:
    """The points as a Markdown table for people, with what it is above it."""
    shown = point_columns(points, about)
    lines = [
        "| " + " | ".join(c.title or c.name for c in shown) + " |",
        "|" + "|".join(" ---: " if c.name != "validity" else " :--- " for c in shown) + "|",
    ]
    for row in points.to_dict("records"):
        lines.append("| " + " | ".join(cell(c, row) for c in shown) + " |")
    return f"{heading(about, points)}\n\n" + "\n".join(lines) + "\n"


def point_columns(points: pd.DataFrame, about: dict[str, Any]) -> list[Column]:
    """What people are shown of these points: without columns that are empty in all of them, unless
    they were swept, or asked for on the command line."""
    rows = points.to_dict("records")
    always = {"validity", *swept(about["axes"]), *about.get("columns_asked", ())}
    shown = [c for c in shown_columns(about) if c.name in points]
    shown = [c for c in shown if c.name in always or any(cell(c, row) != EMPTY for row in rows)]
    if (points["runs_all"] > 1).any():
        shown.append(Column(name="runs_ok", meaning="", title="runs", shown=lambda v: f"{v:.0f}"))
        spread = Column(name="spread_frac", meaning="", title="spread %", shown=_percent)
        shown.insert(1 + _index(shown, "output_tok_per_s"), spread)
    return shown


def heading(about: dict[str, Any], points: pd.DataFrame) -> str:
    """What was measured, in a sentence or two."""
    parts = [f"{about['sweep']}: {about['model']['name']}", about["engine"]]
    text = ", ".join(parts) + f". Load: {about['load']}." + slo_text(about)
    return f"**{SIMULATED}** {text}" if points["simulated"].any() else text


def slo_text(about: dict[str, Any]) -> str:
    """The limits that `goodput_rps` and `slo_met_frac` are about; empty where there are none."""
    limits = limits_text(slo_of(about))
    return f" SLO: {limits}." if limits else ""


def write_tables(study: Study) -> pd.DataFrame | None:
    """Write table.parquet, .csv and .md; returns the points, None if no run is there."""
    runs = runs_table(study)
    if runs.empty:
        return None
    about = study.about
    points = points_table(runs, about["axes"])
    with study.draft("table.parquet") as path:
        runs.to_parquet(path, index=False)
    with study.draft("table.csv") as path:
        runs.to_csv(path, index=False)
    with study.draft("table.md") as path:
        path.write_text(markdown(points, about))
    return points


def _row(run: SavedRun, about: dict[str, Any], ceiling: Ceiling | None) -> dict[str, Any]:
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
        "client_cpu_frac": client.get("cpu_frac"),
        "client_loop_lag_p99_s": client.get("loop_lag_p99_s"),
        "client_error_p50_s": at_load.get("ttft_error_p50_s"),
        "client_error_p99_s": at_load.get("ttft_error_p99_s"),
        "client_clean_chunks_per_s": calibration.get("clean_chunks_per_s"),
        "sim_lag_frac": record.get("sim_lag_frac"),
    }
    sizes = ("tensor_parallel_size", "data_parallel_size", "replicas")
    for name in ("max_num_seqs", "max_num_batched_tokens", *sizes):
        chosen = settings.get(name)  # what was asked for, else what the server says it took
        row[name] = chosen if chosen is not None else facts.get(name)
    for name, column in axis_columns(about["axes"]).items():
        row.setdefault(column, value_of_record(record, name))
    row |= _measures(run, about) if run.whole else _nothing()
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


def _memory_bytes(about: dict[str, Any]) -> int | None:
    """Of the smallest GPU of this machine; None for one without."""
    gpus = (about.get("environment") or {}).get("gpus") or []
    return min((gpu["memory_total_bytes"] for gpu in gpus), default=None)


def _measures(run: SavedRun, about: dict[str, Any]) -> dict[str, Any]:
    window = Window(**run.record["window"])
    load = Load(**run.record["load"])
    requests = run.samples("requests")
    summary = summarise(requests, run.samples("chunks"), window=window, load=load)
    kinds = [f"{number} {kind}" for kind, number in failures_by_kind(requests).items()]
    sampled = {name: completed(name, run.samples(name)) for name in SOURCES}
    monitored = summarise_monitors(
        Samples(**sampled, notes=()), window.opened_at_s, window.closed_at_s
    )
    slo = slo_of(about)
    useful = goodput(requests, window=window, load=load, slo=slo)
    told = {"failure_kinds": ", ".join(kinds), "shares_prompts": load.shares_prompts}
    return asdict(summary) | asdict(monitored) | asdict(useful) | told


def _nothing() -> dict[str, Any]:
    kinds = (Summary, MonitorSummary, Goodput)
    names = [name for kind in kinds for name in kind.__dataclass_fields__]
    return dict.fromkeys([*names, "failure_kinds"])


def load_id(load: dict[str, Any], but: Sequence[str] = ()) -> str:
    """Names a load: the same at every engine setting, also where its rate is a share of each's.

    Loads that differ in nothing `but` these settings get the same name.
    """
    found = ("rate_rps",) if load.get("rate_frac") or load.get("search") else ()
    what = {name: value for name, value in load.items() if name not in (*but, *found)}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:6]


def num_gpus(gpus: str | None) -> int | None:
    """How many "2x NVIDIA H200" are; None for a CPU, and where it is not known."""
    counts = re.findall(r"(\d+)x ", gpus or "")
    return sum(map(int, counts)) if counts else None


def _of_one_type(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Numbers as they are; a column that holds anything else besides, as text."""
    is_number = all(type(value) in (int, float, type(None)) for value in values)
    return values if is_number else values.map(lambda v: v if v is None else value_text(v))


def value_text(value: Any) -> str:
    """A setting's value as people write it; None is left to the server."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "default"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def shown_columns(about: dict[str, Any]) -> list[Column]:
    """What people are shown: the axes, then what the sweep asks for, else all with a title."""
    own = {column.name: column for column in COLUMNS}
    axes = [own.get(n) or Column(name=n, meaning="") for n in axis_columns(about["axes"]).values()]
    axes = [Column(name=c.name, meaning="", title=c.title or c.name, shown=c.shown) for c in axes]
    asked = (about.get("options") or {}).get("columns")
    if not asked:
        extra = [c for c in axes if c.name not in own or not own[c.name].title]
        useful = ("goodput_rps", "slo_met_frac") if slo_text(about) else ()
        return extra + [c.for_people() for c in COLUMNS if c.title or c.name in useful]
    names = [c.name for c in axes]
    rest = [own[name].for_people() for name in asked if name in own and name not in names]
    return [*axes, *rest, *([] if "validity" in asked else [own["validity"]])]


def cell(column: Column, row: dict[Any, Any]) -> str:
    """A value as people are shown it."""
    value = row[column.name]
    if column.name == "output_tok_per_s" and row["status"] != "ok":
        return f"{row['failure']}"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return EMPTY
    if isinstance(value, float) and math.isinf(value):
        return "> run"  # the run was over first
    if isinstance(value, bool | np.bool_):
        return "yes" if value else ""
    is_number = isinstance(value, int | float | np.number)
    return column.shown(value) if column.shown and is_number else value_text(value)


def _percent(value: float) -> str:
    return f"{value * 100:.1f}"


def _union(texts: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(code for text in texts for code in text.split()))


def _index(columns: list[Column], name: str) -> int:
    names = [c.name for c in columns]
    return names.index(name) if name in names else len(names) - 1
