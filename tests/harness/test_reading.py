from pathlib import Path

import pandas as pd
import pytest

from harness.errors import UserError
from harness.reading import has_study, read_study
from harness.study import Study
from harness.tables import write_tables
from tests.harness.builders import fill, plan, study
from tests.harness.report.studies import REFERENCE, captured, without_samples


def made(folder: Path) -> Path:
    chosen = plan("load.concurrency=1,2", "repeats.launches=2")
    kept = study(folder, chosen)
    fill(kept, chosen)
    return kept.folder


def everything_in(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_tables_are_made_of_raw_samples_and_reading_changes_nothing(tmp_path: Path) -> None:
    folder = made(tmp_path)
    before = everything_in(folder)
    tables = read_study(folder)
    assert everything_in(folder) == before
    assert len(tables.runs) == 4
    assert list(tables.points["runs_all"]) == [2, 2]
    assert tables.about["sweep"] == "single"
    assert list(tables.shown()["TTFT p50 ms"]) == ["50.0", "50.0"], "in units for people"


def test_without_samples_the_stored_table_says_the_same(tmp_path: Path) -> None:
    folder = made(tmp_path)
    fresh = read_study(folder)
    kept = Study(folder)
    write_tables(kept)
    without_samples(kept)
    stored = read_study(str(folder))
    pd.testing.assert_frame_equal(stored.points, fresh.points, check_dtype=False)


def test_what_is_no_study_is_told_before_and_refused(tmp_path: Path) -> None:
    assert not has_study(tmp_path)
    with pytest.raises(UserError, match=r"not a study: it has no study\.json"):
        read_study(tmp_path)


def test_a_point_is_labelled_by_what_was_swept_and_its_profile_is_found(tmp_path: Path) -> None:
    chosen = plan("load.concurrency=1,2")
    kept = study(tmp_path, chosen)
    fill(kept, chosen)
    run = chosen.runs[1].id
    captured(kept, run)
    tables = read_study(kept.folder)
    assert tables.label(run) == "concurrency=2"
    assert [capture.run for capture in tables.captures] == [run]


@pytest.mark.parametrize(
    "name", sorted(path.parent.name for path in (REFERENCE / "2xh200").glob("*/study.json"))
)
def test_every_reference_study_can_be_read_as_cloned(name: str) -> None:
    folder = REFERENCE / "2xh200" / name
    tables = read_study(folder)
    assert has_study(folder)
    assert len(tables.points) <= len(tables.runs)
    assert not tables.points["simulated"].any()


def test_the_knee_is_found_in_a_table_from_before_loads_had_kinds() -> None:
    points = read_study(REFERENCE / "2xh200" / "baseline").points
    assert points["knee"].sum() == 1
