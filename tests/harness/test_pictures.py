import shutil
from pathlib import Path

from harness.pictures import draw_all
from harness.study import Study
from harness.tables import write_tables
from tests.harness.builders import fill, plan, study
from tests.harness.report.studies import PIXEL


def drawn(kept: Study) -> list[str]:
    points = write_tables(kept)
    assert points is not None
    return sorted(path.name for path in draw_all(kept, points))


def test_a_plot_that_is_no_longer_asked_for_goes_and_one_of_others_stays(tmp_path: Path) -> None:
    made = plan("load.concurrency=1,2")
    kept = study(tmp_path, made)
    fill(kept, made, num=20)
    asked = {"x": "concurrency", "y": ["output_tok_per_s"]}
    kept.add(options={"plots": {"first": asked}})
    plots = kept.folder / "plots"
    before = drawn(kept)
    (plots / "theirs.png").write_bytes(PIXEL)
    shutil.copy(plots / "first.png", plots / "first.txt")
    kept.add(options={"plots": {"second": asked}})
    after = drawn(kept)
    assert set(before) - set(after) == {"first.png"}
    there = sorted(path.name for path in plots.iterdir())
    assert there == sorted([*after, "theirs.png", "first.txt"])


def test_a_study_that_drew_nothing_has_nothing_to_remove(tmp_path: Path) -> None:
    made = plan("load.concurrency=1")
    kept = study(tmp_path, made)
    fill(kept, made, num=20)
    assert drawn(kept) == [f"timeline-{made.runs[0].id}.png"]
