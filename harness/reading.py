"""A study's tables for notebooks and scripts: `read_study(folder)`.

    from harness.reading import read_study

    study = read_study("results/reference/2xh200/baseline")
    study.points.plot(x="concurrency", y="output_tok_per_s")

If a study has its raw samples, the tables are made from them; if it was committed or sent without
them, the stored table is read. Reading changes nothing on disk.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.axes import swept
from harness.captures import Capture, captures
from harness.errors import UserError
from harness.study import SavedRun, Study
from harness.tables import cell, point_columns, points_table, runs_table
from harness.units import named_values

TEXTS = (
    *("run", "point", "launch", "status", "failure", "stopped", "failure_kinds", "validity"),
    "gpus",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyTables:
    """A study as tables, in base units with the unit in the column's name.

    `runs` has one row per run, with the columns of `--help columns`. `points` has one row per
    point: the median of its good runs, their number (`runs_ok` of `runs_all`) and spread
    (`spread_frac`), and its relation to other points (`speedup`, `knee`, …). `about` is study.json.
    """

    folder: Path
    about: dict[str, Any]
    runs: pd.DataFrame
    points: pd.DataFrame

    def shown(self) -> pd.DataFrame:
        """The points as in table.md: the sweep's columns, as text in display units."""
        columns = point_columns(self.points, self.about)
        rows = [[cell(column, row) for column in columns] for row in self.points.to_dict("records")]
        return pd.DataFrame(rows, columns=[column.title or column.name for column in columns])

    @property
    def captures(self) -> tuple[Capture, ...]:
        """The profiles of its runs, in the order of the grid."""
        return captures(self.folder, self.about["runs"])

    def label(self, run: str) -> str:
        """A label for the run's point among the others, e.g. `case=eager, max_num_seqs=16`."""
        return label_of(self.about, self.runs, run)


def read_study(folder: Path | str) -> StudyTables:
    """The tables of the study in a folder. Raises UserError if there is none or it is damaged."""
    study = Study(Path(folder))
    if not has_samples(tuple(study.runs())):
        return stored_tables(study)
    return _with_points(study, runs_table(study))


def has_study(folder: Path | str) -> bool:
    """Whether the folder is a study, for pages that read studies which may not exist yet."""
    return (Path(folder) / "study.json").is_file()


def label_of(about: dict[str, Any], runs: pd.DataFrame, run: str) -> str:
    """A label for the run's point among the others; without swept axes, the run's id.

    Axes that do not apply to the point are left out, unless nothing else identifies it.
    """
    row = runs[runs["run"] == run]
    names = [] if row.empty else [name for name in swept(about["axes"]) if name in row]
    applying = [name for name in names if row[name].notna().all()]
    told = {name: row[name].iloc[0] for name in applying or names}
    return named_values(told) or f"run {run}"


def has_samples(saved: tuple[SavedRun, ...]) -> bool:
    """Whether the raw samples are there, so that a table can be made."""
    good = [run for run in saved if run.ok]
    return bool(saved) and all((run.folder / "requests.parquet").is_file() for run in good)


def stored_tables(study: Study) -> StudyTables:
    """The tables as last written. Raises UserError if there are none."""
    return _with_points(study, _stored(study.folder))


def _with_points(study: Study, runs: pd.DataFrame) -> StudyTables:
    about = study.about
    points = points_table(runs, about["axes"])
    return StudyTables(folder=study.folder, about=about, runs=runs, points=points)


def _stored(folder: Path) -> pd.DataFrame:
    parquet, csv = folder / "table.parquet", folder / "table.csv"
    if parquet.is_file():
        table = pd.read_parquet(parquet)
    elif csv.is_file():
        table = pd.read_csv(csv)
    else:
        raise UserError(f"{folder} holds neither samples of a run nor a table: nothing to report.")
    for name in TEXTS:  # a CSV reads empty text as NaN
        if name in table:
            table[name] = table[name].astype(object).where(table[name].notna(), None)
    table["validity"] = table["validity"].map(lambda codes: codes or "")
    return table
