"""All pictures of a study: its plots, the timelines of its runs, and none from before.

Each says in its file that it is ours. Only those are removed when a study no longer asks for them:
whatever else somebody put into plots/ is theirs.
"""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from harness.plots import MADE_BY, draw
from harness.study import Study
from harness.timeline import draw_timelines

HEAD_BYTES = 512  # of a file, which hold what matplotlib is told of it


def draw_all(study: Study, points: pd.DataFrame) -> list[Path]:
    """Draw what the points and samples allow into plots/, in place of all that was; the files."""
    folder = study.folder / "plots"
    drawn = [*draw(points, study.about, folder), *draw_timelines(study, points, folder)]
    _remove_stale(folder, drawn)
    return drawn


def _remove_stale(folder: Path, drawn: Collection[Path]) -> None:
    for path in folder.glob("*.png"):
        if path not in drawn:
            with path.open("rb") as file:
                is_ours = MADE_BY["Software"].encode() in file.read(HEAD_BYTES)
            if is_ours:
                path.unlink()
