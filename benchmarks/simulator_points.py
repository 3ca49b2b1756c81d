"""The points of `results/reference`, each with the settings and the load it was run with.

Settings are those of the launch (`launch.json`), not of the case's name. What is left out is left
out by a rule: runs that failed, runs that are `not_steady`, and settings that the simulator says
have no effect on it.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

REFERENCE = Path(__file__).resolve().parents[1] / "results/reference"
# By the name that they are told by. Two folders are the two sides of one comparison.
STUDIES = {
    "baseline": ["2xh200/baseline"],
    "frontend": ["2xh200/frontend"],
    "batching": ["2xh200/batching"],
    "batching_traced": ["2xh200/batching_traced"],
    "perf_story": ["2xh200/perf_story"],
    "parallel": ["2xh200/parallel"],
    "kv_cache": ["2xh200/kv_cache"],
    "kv_cache_saturation": ["2xh200/kv_cache_saturation"],
    "regression/same": [f"2xh200/regression/same/{side}" for side in ("baseline", "candidate")],
    "regression/eager": [f"2xh200/regression/eager/{side}" for side in ("baseline", "candidate")],
    "precision": ["2xh200/precision"],
    "precision_7b": ["2xh200/precision_7b"],
    "h200/batching": ["h200/batching"],
    "h200/kv_cache": ["h200/kv_cache"],
}
MEASURED = ["output_tok_per_s", "ttft_p50_s", "tpot_p50_s"]
TIMES = ["warmup_s", "window_s"]
LOAD = ["concurrency", "rate_frac", "rate_rps", "input_tokens", "hit_frac"]
RESOLVED = ["case", "max_num_seqs", "max_num_batched_tokens"]
# How a server is started and found, which no time depends on.
INCIDENTAL = frozenset({"kind", "python", "env", "port", "start_timeout_s"}) | {
    "first_token_timeout_s",
    "stop_timeout_s",
}
NOT_IMITATED = frozenset({"data_parallel_size", "quantization"})
# In study.json's sentence about the load: "512 tokens in, uniform 64 to 192 out". It leaves out
# what differs between runs; the lengths of prompts are then a column of the table.
INPUT_TOKENS = re.compile(r"(\d+) tokens in\b")
OUTPUT_TOKENS = re.compile(r"(?:uniform (\d+) to )?(\d+) out\b")
PREFIX_GROUPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    study: str
    case: str
    engine: dict[str, Any]
    """What the launch set."""
    shape: dict[str, Any]
    """The model's config."""
    max_num_seqs: int
    max_num_batched_tokens: int
    concurrency: int | None
    rate_frac: float | None
    rate_rps: float | None
    input_tokens: int
    output_tokens: tuple[int, int]
    hit_frac: float | None
    warmup_s: float
    window_s: float
    measured: tuple[float, ...]
    """Of MEASURED: the median of all runs of this point."""

    @property
    def load(self) -> str:
        rate = f"rate {self.rate_frac:.0%}" if self.rate_frac else ""
        streams = rate or f"{self.concurrency} streams"
        shared = f", {self.hit_frac:.0%} shared" if self.hit_frac is not None else ""
        return streams + (f" of {self.input_tokens:,}" if self.input_tokens != 512 else "") + shared

    @property
    def setting(self) -> str:
        """What is not a default, in a few words."""
        told = {k: v for k, v in self.engine.items() if k != "extra"}
        told = {"tp" if k == "tensor_parallel_size" else k: v for k, v in told.items()}
        told |= {k: "…" if isinstance(v, dict) else v for k, v in self.engine["extra"].items()}
        return " ".join(f"{name}={value}" for name, value in told.items())

    @property
    def configuration(self) -> str:
        """Equal for points that should measure the same."""
        what = (self.shape, self.engine, self.load, self.rate_rps, self.output_tokens)
        limits = (self.max_num_seqs, self.max_num_batched_tokens)
        return json.dumps((what, limits), sort_keys=True)


@dataclass(slots=True, kw_only=True)
class Reading:
    points: list[Point] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    """Why -> number of rows."""


def read() -> Reading:
    reading = Reading()
    for study, folders in STUDIES.items():
        rows = [row for folder in folders for row in _rows(REFERENCE / folder)]
        kept = []
        for row in rows:
            if reason := _why_not(row):
                reading.left_out[reason] = reading.left_out.get(reason, 0) + 1
            else:
                kept.append(row)
        reading.points += _points(study, kept)
    return reading


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    table = pd.read_parquet(folder / "table.parquet")
    names = [*RESOLVED, *LOAD, *TIMES, *MEASURED, "validity", "launch"]
    table = table.reindex(columns=names).astype(object)
    study = json.loads((folder / "study.json").read_text())
    of_study = {
        "shape": study["model"].get("shape") or {},
        "input_tokens": _input_tokens(study["load"]),
        "output_tokens": _output_tokens(study["load"]),
    }
    for row in table.where(table.notna(), None).to_dict("records"):
        said = json.loads((folder / "launches" / row["launch"] / "launch.json").read_text())
        engine = {
            name: value
            for name, value in said["engine"].items()
            if value is not None and name not in INCIDENTAL
        }
        of_run = {name: value for name, value in row.items() if value is not None}
        yield row | of_study | of_run | {"engine": engine}


def _input_tokens(load: str) -> int | None:
    said = INPUT_TOKENS.search(load)
    return int(said[1]) if said else None


def _output_tokens(load: str) -> tuple[int, int]:
    said = OUTPUT_TOKENS.search(load)
    assert said, f"no length of replies in: {load}"
    return int(said[1] or said[2]), int(said[2])


def _why_not(row: dict[str, Any]) -> str | None:
    validity = (row["validity"] or "").split()
    if row["output_tok_per_s"] is None:
        return "failed"
    if "not_steady" in validity:
        return "not_steady"
    if not row["shape"]:
        return "a model whose shape the study does not tell"
    for name in sorted(NOT_IMITATED & set(row["engine"])):
        return f"{name}, which has no effect on the simulator"
    return None


def _points(study: str, rows: list[dict[str, Any]]) -> Iterator[Point]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        key = json.dumps([row[name] for name in (*RESOLVED, *LOAD, "engine")], sort_keys=True)
        groups.setdefault(key, []).append(row)
    for group in groups.values():
        first = group[0]
        middle = pd.DataFrame(group)[[*TIMES, *MEASURED]].astype(float).median()
        yield Point(
            study=study,
            case=first["case"] or "",
            engine=first["engine"],
            shape=first["shape"],
            max_num_seqs=int(first["max_num_seqs"]),
            max_num_batched_tokens=int(first["max_num_batched_tokens"]),
            concurrency=None if first["concurrency"] is None else int(first["concurrency"]),
            rate_frac=first["rate_frac"],
            rate_rps=first["rate_rps"],
            input_tokens=int(first["input_tokens"]),
            output_tokens=first["output_tokens"],
            hit_frac=first["hit_frac"],
            warmup_s=middle["warmup_s"],
            window_s=middle["window_s"],
            measured=tuple(middle[name] for name in MEASURED),
        )
