"""A study as a comparison sees it: each run's settings, results and validity codes.

It reads the disk; everything after it is pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.grid import leaves
from harness.identity import OPERATIONAL
from harness.study import SavedRun, Study
from harness.tables import runs_table

NOT_SET = ("kind",)  # an engine's kind is not one of its settings
MAX_PROMPTS = 64  # per run, to see whether two runs sent the same prompts
NS_PER_S = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run. Settings are flat, by dotted name below `engine` and `load`."""

    id: str
    launch: str  # one life of a server
    launch_repeat: int
    run_repeat: int
    begun_at_s: float | None  # UTC; None for a run that measured nothing
    engine: dict[str, Any]
    load: dict[str, Any]
    row: dict[str, Any]  # the table's row, with every metric
    validity: tuple[str, ...]
    prompts: dict[int, tuple[int, int]]  # request -> (input tokens, tokens asked for); first turns
    has_samples: bool

    @property
    def ok(self) -> bool:
        """Whether the run measured something."""
        return bool(self.row["status"] == "ok")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One study as read from disk."""

    folder: Path
    about: dict[str, Any]
    runs: tuple[Measured, ...]
    skipped: int = 0  # runs that were not needed, or probes of a search other than its result
    has_table: bool = False  # a stored table; all there is of a study sent without its runs

    @property
    def good(self) -> list[Measured]:
        """The runs that measured something."""
        return [run for run in self.runs if run.ok]

    @property
    def launches(self) -> int:
        """Number of launches that measured something."""
        return len({run.launch for run in self.good})

    @property
    def simulated(self) -> bool:
        """Whether any of it was simulated, not measured on hardware."""
        return bool(self.about["simulated"]) or any(run.row["simulated"] for run in self.runs)


def read_evidence(folder: Path) -> Evidence:
    """Read a study. Raises UserError if the folder is not one, or is damaged."""
    study = Study(folder)
    about, saved = study.about, list(study.runs())
    sampled = [run for run in saved if not run.ok or _has_samples(run)]
    table = runs_table(study) if saved and len(sampled) == len(saved) else None
    rows = {} if table is None else {row["run"]: row for row in table.to_dict("records")}
    measured = [_measured(run, rows.get(run.record["id"])) for run in saved]
    runs = [run for run in measured if run.row.get("at_capacity") is not False]
    has_table = any((folder / f"table.{kind}").is_file() for kind in ("parquet", "csv"))
    return Evidence(
        folder=folder,
        about=about,
        runs=tuple(runs),
        skipped=len(study.skipped()) + len(measured) - len(runs),
        has_table=has_table,
    )


def _measured(run: SavedRun, row: Mapping[Any, Any] | None) -> Measured:
    record = run.record
    known = dict(row) if row is not None else {"status": record["status"], "simulated": False}
    return Measured(
        id=record["id"],
        launch=record["launch"],
        launch_repeat=record["launch_repeat"],
        run_repeat=record["run_repeat"],
        begun_at_s=_begun_at_s(record),
        engine=engine_settings(record["engine"]),
        load=load_settings(run.asked_load),
        row={str(name): value for name, value in known.items()},
        validity=tuple(str(known.get("validity") or "").split()),
        prompts=_prompts(run) if run.ok else {},
        has_samples=_has_samples(run),
    )


def _has_samples(run: SavedRun) -> bool:
    return all((run.folder / f"{name}.parquet").is_file() for name in ("requests", "chunks"))


def _begun_at_s(record: Mapping[str, Any]) -> float | None:
    window = record.get("window")
    if not window:
        return None
    since_pair_s = window["started_at_s"] - window["clock_monotonic_s"]
    return float(window["clock_utc_ns"] / NS_PER_S + since_pair_s)


def _prompts(run: SavedRun) -> dict[int, tuple[int, int]]:
    """Token counts of the first requests, by number.

    Only first turns: later ones contain the server's earlier replies.
    """
    requests = run.samples("requests")
    if not requests:
        return {}
    chosen = (requests["status"] == "ok") & (requests["turn"] == 1)
    order = np.flatnonzero(chosen)[np.argsort(requests["request"][chosen])][:MAX_PROMPTS]
    columns = (requests[n][order] for n in ("request", "input_tokens", "output_tokens_asked"))
    return {int(r): (int(i), int(o)) for r, i, o in zip(*columns, strict=True)}


def engine_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """An engine's settings by dotted name, without the operational ones."""
    return dict(leaves({n: v for n, v in stored.items() if n not in (*OPERATIONAL, *NOT_SET)}))


def load_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A load's settings by dotted name."""
    return dict(leaves(stored))
