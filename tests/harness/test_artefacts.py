import shutil
from pathlib import Path

import pandas as pd
import pytest

from harness.artefacts import make, tabulate
from harness.export import export
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


@pytest.mark.parametrize("name", ["requests", "chunks", "server"])
def test_a_run_whose_samples_are_damaged_is_left_out_and_named(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = plan("load.concurrency=1,2")
    kept = study(tmp_path, made)
    fill(kept, made, num=20)
    bad, good = made.runs
    (kept.folder / "runs" / bad.id / f"{name}.parquet").write_bytes(b"PAR1 cut off")
    assert tabulate(kept)
    assert list(pd.read_parquet(kept.folder / "table.parquet")["run"]) == [good.id]
    assert f"note: run {bad.id} is damaged (" in capsys.readouterr().out
    assert list(kept.damaged()) == [bad.id]
    export(kept)  # goes on without it, too


def test_a_study_of_damaged_runs_alone_has_no_table(tmp_path: Path) -> None:
    made = plan("load.concurrency=1,2")
    kept = study(tmp_path, made)
    fill(kept, made, num=20)
    for run in made.runs:
        (kept.folder / "runs" / run.id / "requests.parquet").write_bytes(b"")
    assert make(kept) is None
    assert list(kept.damaged()) == [run.id for run in made.runs]


def test_a_study_that_drew_nothing_has_nothing_to_remove(tmp_path: Path) -> None:
    made = plan("load.concurrency=1")
    kept = study(tmp_path, made)
    fill(kept, made, num=20)
    assert drawn(kept) == [f"timeline-{made.runs[0].id}.png"]
