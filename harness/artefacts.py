"""Makes a study's table and plots from whatever it has so far, and shows the table.

Our plots are marked as such in their metadata. Only marked ones are removed when the study no
longer asks for them; anything else in plots/ belongs to the user.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.markdown import Markdown

from harness.capacity.page import write_capacity
from harness.plots import MADE_BY, draw
from harness.screen import print_table
from harness.study import DamagedRunError, Study
from harness.tables import markdown, write_tables
from harness.terminal import Terminal
from harness.timeline_plot import MAX_RUNS, draw_timelines
from harness.units import plural

HEAD_BYTES = 512  # the start of a PNG file, which holds its metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was written for a study."""

    points: pd.DataFrame
    plots: tuple[Path, ...]
    searches: str | None  # results of capacity searches, as Markdown; None without any


def tabulate(study: Study) -> bool:
    """Make the study's table and plots, and show the table; False if there is nothing to show.

    A terminal gets the columns that fit, anything else Markdown.
    """
    made = make(study)
    for note in left_out(study):
        print(f"note: {note}")
    if made is None:
        return False
    points = made.points
    console = Terminal()
    print()
    if console.is_terminal:
        print_table(console, points, study.about)
    else:
        print(markdown(points, study.about))
    if made.searches is not None and console.is_terminal:
        console.print(Markdown(made.searches))
    elif made.searches is not None:
        print(made.searches)
    plots = plural(len(made.plots), "plot")
    print(f"table.md, .csv, .parquet and {plots}: {study.folder}", flush=True)
    if len(study.about["runs"]) > MAX_RUNS:
        print(f"no timelines, because there are more than {MAX_RUNS} runs", flush=True)
    return True


def left_out(study: Study) -> list[str]:
    """A sentence for each damaged run, once the study's table and plots are made without it."""
    return [
        f"run {run} is damaged ({why}) and left out: delete {study.folder / 'runs' / run}, and the"
        " sweep's command measures it again"
        for run, why in study.damaged().items()
    ]


def make(study: Study) -> Made | None:
    """Write the table, and replace all plots; None if there is nothing to write.

    Damaged runs are left out. Raises UserError if study.json or a launch.json is damaged.
    """
    while True:
        try:
            return _made(study)
        except DamagedRunError as damage:
            study.leave_out(damage)


def _made(study: Study) -> Made | None:
    """As `make`. Raises DamagedRunError."""
    tables = write_tables(study)
    if tables is None:
        return None
    points, folder = tables.points, study.folder / "plots"
    grid = draw(points, study.about, folder, tables.runs)
    plots = (*grid, *draw_timelines(study, points, folder))
    _remove_stale(folder, plots)
    return Made(points=points, plots=plots, searches=write_capacity(study))


def _remove_stale(folder: Path, drawn: Collection[Path]) -> None:
    for path in folder.glob("*.png"):
        if path not in drawn:
            with path.open("rb") as file:
                is_ours = MADE_BY["Software"].encode() in file.read(HEAD_BYTES)
            if is_ours:
                path.unlink()
