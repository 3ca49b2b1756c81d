import json
from pathlib import Path

import numpy as np
import pytest

from harness.errors import UserError
from harness.runner import wanted
from harness.study import Study
from tests.harness.builders import about, fill, plan, record, study


def test_the_same_plan_finds_its_study_again(tmp_path: Path) -> None:
    made = plan("load.concurrency=1,2")
    first = study(tmp_path, made)
    first.close()
    assert study(tmp_path, made).folder == first.folder


def test_another_plan_gets_a_study_of_its_own(tmp_path: Path) -> None:
    first = study(tmp_path, plan("load.concurrency=1"))
    assert study(tmp_path, plan("load.concurrency=2")).folder != first.folder


def test_a_fresh_study_leaves_the_old_one_alone(tmp_path: Path) -> None:
    made = plan()
    first = study(tmp_path, made)
    fresh = Study.open(tmp_path, made, about(made), fresh=True)
    assert fresh.folder != first.folder
    first.close()
    fresh.close()
    assert study(tmp_path, made).folder == fresh.folder, "the newest is continued"


def test_only_one_harness_works_in_a_study(tmp_path: Path) -> None:
    made = plan()
    first = study(tmp_path, made)
    with pytest.raises(UserError, match="another harness"):
        study(tmp_path, made)
    first.close()
    study(tmp_path, made)


def test_samples_come_back_as_they_were_saved(tmp_path: Path) -> None:
    made = plan()
    kept = study(tmp_path, made)
    fill(kept, made, num=3)
    (run,) = kept.runs()
    assert run.ok
    assert run.samples("requests")["request"].tolist() == [0, 1, 2, 3, 4]
    assert run.samples("chunks")["at_s"].dtype == np.float64
    assert run.samples("gpu") == {}
    assert run.launch["facts"]["max_num_batched_tokens"] == 8192


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_samples_are_the_same_however_many_rows_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    made = plan()
    kept = study(tmp_path, made)
    (run,) = made.runs
    folder = kept.new_launch(made.launches[0].id)
    columns = {
        "whole": np.array([3, 1, 2]),
        "real": np.array([0.5, np.nan, np.inf]),
        "flag": np.array([True, False, True]),
        "text": np.array(["a", None, "b"], dtype=object),
    }
    nothing = {"text": np.zeros(0, dtype=object), "real": np.zeros(0)}
    kept.save_run(run.id, record(made, run, folder), host=columns, gpu=nothing)
    monkeypatch.setattr("harness.samples.BATCH", batch)
    (saved,) = kept.runs()
    read = saved.samples("host")
    for name, values in columns.items():
        assert read[name].dtype == values.dtype
        np.testing.assert_array_equal(read[name], values)
    assert {name: values.dtype.kind for name, values in saved.samples("gpu").items()} == {
        "text": "O",
        "real": "f",
    }


def test_a_half_written_run_is_not_there(tmp_path: Path) -> None:
    made = plan()
    kept = study(tmp_path, made)
    draft = kept.folder / "runs" / f".{made.runs[0].id}"
    draft.mkdir()
    (draft / "run.json").write_text("{}")
    assert kept.status(made.runs[0].id) is None
    kept.close()
    study(tmp_path, made)
    assert not draft.exists(), "and it is cleared away when the study is opened again"


def test_wanted_is_what_is_not_there_yet(tmp_path: Path) -> None:
    made = plan("engine.max_num_seqs=1,2", "load.concurrency=1,2")
    kept = study(tmp_path, made)
    folder = kept.new_launch(made.launches[0].id)
    kept.save_launch(folder, {})
    first, second, *others = made.runs
    kept.save_run(first.id, record(made, first, folder))
    kept.save_run(second.id, record(made, second, folder, status="failed"))

    left = [run.id for launch in wanted(made, kept, retry=False) for run in launch.runs]
    assert left == [run.id for run in others]
    left = [run.id for launch in wanted(made, kept, retry=True) for run in launch.runs]
    assert left == [run.id for run in (second, *others)]


def test_a_second_life_of_a_launch_has_a_folder_of_its_own(tmp_path: Path) -> None:
    kept = study(tmp_path, plan())
    assert [kept.new_launch("x").name for _ in range(3)] == ["x.1", "x.2", "x.3"]


def test_a_launch_has_the_facts_of_its_last_life_that_was_up(tmp_path: Path) -> None:
    kept = study(tmp_path, plan())
    assert kept.facts("x") == {}
    for life in range(1, 12):
        facts = {"max_num_seqs": life} if life < 11 else None  # the last one did not come up
        kept.save_launch(kept.new_launch("x"), {"facts": facts})
    assert kept.facts("x") == {"max_num_seqs": 10}


def test_a_run_that_is_done_again_replaces_the_failed_one(tmp_path: Path) -> None:
    made = plan()
    kept = study(tmp_path, made)
    folder = kept.new_launch(made.launches[0].id)
    kept.save_launch(folder, {})
    (run,) = made.runs
    kept.save_run(run.id, record(made, run, folder, status="failed"))
    kept.save_run(run.id, record(made, run, folder))
    assert kept.status(run.id) == "ok"
    assert json.loads((kept.folder / "runs" / run.id / "run.json").read_text())["status"] == "ok"


def test_a_folder_that_is_no_study_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a study"):
        list(Study(tmp_path).runs())


@pytest.mark.parametrize(
    ("text", "says"), [("{}", "it has no 'sweep'"), ("[1]", "is damaged"), ("{", "is damaged")]
)
def test_a_study_json_of_another_shape_is_one_sentence(
    tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(UserError, match=says):
        _ = Study(tmp_path).about


def test_a_damaged_launch_is_named_and_a_damaged_run_is_told(tmp_path: Path) -> None:
    made = plan()
    kept = study(tmp_path, made)
    fill(kept, made)
    (run,) = kept.runs()
    (kept.folder / "launches" / run.record["launch"]).mkdir(parents=True, exist_ok=True)
    (kept.folder / "launches" / run.record["launch"] / "launch.json").write_text("xx")
    with pytest.raises(UserError, match=r"launch\.json is damaged"):
        list(kept.runs())
    (run.folder / "run.json").write_text('{"a":')
    assert kept.damaged() == {run.record["id"]: "run.json cannot be read"}
    assert list(kept.runs()) == []
