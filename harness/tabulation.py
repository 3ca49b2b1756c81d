"""A study's table and plots: made of what is there, again and again, and shown."""

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
    points, plots = make(study)
    if points is None:
        return False
    console = Console(highlight=False)
    print()
    if console.is_terminal:
        print_table(console, points, study.about)
    else:
        print(markdown(points, study.about))
    print(f"table.md, .csv, .parquet and {plural(plots, 'plot')}: {study.folder}", flush=True)
    if len(study.about["runs"]) > MAX_RUNS:
        print(f"no timelines: there are more than {MAX_RUNS} runs", flush=True)
    return True


def make(study: Study) -> tuple["pd.DataFrame | None", int]:
    """Write the table and the plots; the table, None if there is nothing, and how many plots."""
    from harness.pictures import draw_all
    from harness.tables import write_tables

    points = write_tables(study)
    if points is None:
        return None, 0
    return points, len(draw_all(study, points))
