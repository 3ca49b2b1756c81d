"""What is made of a study: its table and plots, again and again, of what is there; and shown."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.study import Study
from harness.units import plural

if TYPE_CHECKING:
    import pandas as pd


def tabulate(study: Study) -> bool:
    """Make the study's table and plots, and show the table; False if there is nothing to show.

    A terminal gets what fits on it, everything else Markdown.
    """
    from rich.console import Console

    from harness.screen import print_table
    from harness.tables import markdown
    from harness.timeline import MAX_RUNS

    for run in study.damaged():
        print(f"note: run {run} is damaged and left out; the sweep's command measures it again")
    if (made := make(study)) is None:
        return False
    points = made.points
    console = Console(highlight=False)
    print()
    if console.is_terminal:
        print_table(console, points, study.about)
    else:
        print(markdown(points, study.about))
    if made.searches is not None:
        print(made.searches)
    print(f"table.md, .csv, .parquet and {plural(made.plots, 'plot')}: {study.folder}", flush=True)
    if len(study.about["runs"]) > MAX_RUNS:
        print(f"no timelines: there are more than {MAX_RUNS} runs", flush=True)
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was written of a study."""

    points: "pd.DataFrame"
    plots: int
    searches: str | None  # what searches for a capacity found; None without one


def make(study: Study) -> Made | None:
    """Write the table and the plots; None if there is nothing to write."""
    from harness.capacity.page import write_capacity
    from harness.pictures import draw_all
    from harness.tables import write_tables

    points = write_tables(study)
    if points is None:
        return None
    plots = draw_all(study, points)
    return Made(points=points, plots=len(plots), searches=write_capacity(study))
