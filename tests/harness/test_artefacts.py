import shutil
from pathlib import Path

from harness.artefacts import make
from harness.study import Study
from tests.harness.builders import fill, plan, study
from tests.harness.report.studies import PIXEL


def drawn(kept: Study) -> list[str]:
    made = make(kept)
    assert made is not None
    return sorted(path.name for path in made.plots)


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
