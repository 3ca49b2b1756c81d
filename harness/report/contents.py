"""The contents of a report, read from the study's folder.

If the raw samples are there, tables and plots are first made anew from them. For a study that was
committed or sent without them, the stored table is used, and the report says so.
"""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.artefacts import left_out, make
from harness.captures import Capture, captures
from harness.hardware.saved import FILE, Validation
from harness.reading import has_samples, label_of, stored_tables
from harness.study import SavedRun, Study
from harness.tune.answer import Answer
from harness.tune.answer import read as read_answer

TIMELINE = "timeline-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A study. `runs` has one row per run, `points` one per point; columns as in columns.py."""

    folder: Path
    about: dict[str, Any]  # study.json
    runs: pd.DataFrame
    points: pd.DataFrame
    saved: tuple[SavedRun, ...]  # empty without raw samples
    skipped: int  # runs that were not needed
    left_out: list[str]  # a sentence for each damaged run
    launches: dict[str, dict[str, Any]]  # launch.json of each life of a server
    captures: tuple[Capture, ...]
    plots: tuple[Path, ...]
    validation: Validation | None  # a copy in the study's folder
    answer: Answer | None  # if the study is a tuning's

    @property
    def simulated(self) -> bool:
        return bool(self.about["simulated"] or self.points["simulated"].any())

    @property
    def command(self) -> str:
        return str(self.about["command"])

    def command_with(self, changes: dict[str, str]) -> str:
        """The study's command with these settings in place of its own."""
        words = [w for w in shlex.split(self.command) if w.partition("=")[0] not in changes]
        return shlex.join([*words, *(f"{name}={value}" for name, value in changes.items())])

    def timeline(self, run: str) -> Path | None:
        path = self.folder / "plots" / f"{TIMELINE}{run}.png"
        return path if path in self.plots else None

    def label(self, run: str) -> str:
        """A label that distinguishes the run's point from the others."""
        return label_of(self.about, self.runs, run)


def read(study: Study, *, remake: bool = True) -> Contents:
    """Remake tables and plots, if the raw samples are there, and read everything. Raises UserError.

    Without `remake` they are made only if there is no table yet.
    """
    about = study.about
    is_tabulated = (study.folder / "table.parquet").is_file()
    if (remake or not is_tabulated) and has_samples(tuple(study.runs())):
        make(study)
    saved = tuple(study.runs())  # without those that were found to be damaged
    tables = stored_tables(study)
    runs = tables.runs
    order = [run for run in about["runs"] if (runs["run"] == run).any()]
    return Contents(
        folder=study.folder,
        about=about,
        runs=runs,
        points=tables.points,
        saved=saved if has_samples(saved) else (),
        skipped=len(study.skipped()),
        left_out=left_out(study),
        launches=dict(_launches(study.folder, runs)),
        captures=captures(study.folder, order),
        plots=tuple(_plots(study.folder, order)),
        validation=_validation(study.folder),
        answer=read_answer(study.folder),
    )


def _launches(folder: Path, runs: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any]]]:
    """launch.json by name, in the order of the grid; launches without runs come last."""
    told = {path.parent.name: path for path in sorted(folder.glob("launches/*/launch.json"))}
    for name in dict.fromkeys([*runs["launch"], *told]):
        if name in told:
            yield name, dict(json.loads(told[name].read_text()))


def _plots(folder: Path, order: list[str]) -> Iterator[Path]:
    """The study's plots, then the timelines of these runs."""
    for path in sorted((folder / "plots").glob("*.png")):
        if not path.name.startswith(TIMELINE):
            yield path
    for run in order:
        if (path := folder / "plots" / f"{TIMELINE}{run}.png").is_file():
            yield path


def _validation(folder: Path) -> Validation | None:
    return Validation.read(folder) if (folder / FILE).is_file() else None
