"""Traces of what regressed: what is captured, and what is refused before anything is started.

Nothing starts a server here: a point with two replicas cannot be captured, which says as much of
the way there and back. tests/vllm captures a real one.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from harness.captures import RECORD, captures
from harness.cli import run
from harness.engines.config import Engine, SimEngine, VllmEngine
from harness.environment import MASK, Environment, snapshot
from harness.errors import UserError
from harness.guard.outcome import Comparison, Outcome
from harness.instrument import Instrument
from harness.report.comparison import from_json
from harness.report.traces import capture
from harness.study import Study
from profiles.config import Profile
from tests.harness.builders import plan, record, requests, study
from tests.harness.models import TINY
from tests.harness.report.studies import COMMAND, captured, comparison

TORCH = Profile(kind="torch")
CANNOT = VllmEngine(replicas=2)  # be captured
WHY = "a profiler looks at one server, and this point has 2"


@pytest.fixture(scope="module")
def here() -> Environment:
    return snapshot()


def measured(out: Path, here: Environment, engine: Engine = CANNOT) -> Study:
    """Two points of a study that was measured in this environment."""
    made = plan("load.concurrency=1,2")
    kept = study(out, made)
    told = json.loads(json.dumps(asdict(here)))
    kept.add(command=COMMAND, model=asdict(TINY), environment=told)
    kept.add(instrument=asdict(Instrument.none()))
    for launch in made.launches:
        folder = kept.new_launch(launch.id)
        kept.save_launch(folder, {"gpus": launch.gpus})
        for each in launch.runs:
            told = record(made, each, folder, engine=asdict(engine))
            kept.save_run(each.id, told, **requests(20, 0.05, 0.01))
    kept.close()
    return kept


def judged(baseline: Study, candidate: Study, **changes: Any) -> Comparison:
    told = comparison(baseline.folder, candidate.folder, candidate.about["runs"]) | changes
    return from_json(json.dumps(told))


def of_runs(kept: Study) -> list[tuple[str, str | None]]:
    """What was captured of the study's first and second point, and why not."""
    runs = kept.about["runs"]
    return [(str(runs.index(c.run)), c.reason) for c in captures(kept.folder, runs)]


def test_both_sides_of_a_regressed_point_are_captured_and_a_failure_is_kept_with_its_reason(
    tmp_path: Path, here: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline, candidate = (measured(tmp_path / name, here) for name in ("a", "b"))
    capture(judged(baseline, candidate), baseline, candidate, TORCH, 2)
    assert of_runs(baseline) == of_runs(candidate) == [("0", WHY)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 traces to capture, with a server start each"
    assert lines[1:3] == ["capture baseline, concurrency=1", f"  no profile: {WHY}"]


def test_what_is_there_is_not_captured_again_and_what_failed_is_tried_again(
    tmp_path: Path, here: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline, candidate = (measured(tmp_path / name, here) for name in ("a", "b"))
    first = candidate.about["runs"][0]
    captured(baseline, first)
    captured(candidate, first, status="failed", failure="absent", reason="no nsys here")
    kept = baseline.folder / "runs" / first / "profile" / "nsys" / RECORD
    before = kept.stat().st_mtime_ns
    capture(judged(baseline, candidate), baseline, candidate, Profile(kind="nsys"), 2)
    assert kept.stat().st_mtime_ns == before
    assert of_runs(candidate) == [("0", WHY)]
    assert capsys.readouterr().out.startswith("1 trace to capture")
    captured(candidate, first, kind="torch")
    captured(baseline, first, kind="torch")
    capture(judged(baseline, candidate), baseline, candidate, TORCH, 2)
    assert capsys.readouterr().out == "all traces exist already\n"


def test_the_worst_points_come_first_and_the_others_are_counted(
    tmp_path: Path, here: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline, candidate = (measured(tmp_path / name, here) for name in ("a", "b"))
    told = judged(baseline, candidate)
    mild, worse = told.points[2], replace(told.points[0], ratio=0.3, verdict=told.points[2].verdict)
    capture(replace(told, points=(mild, worse)), baseline, candidate, TORCH, 1)
    assert of_runs(candidate) == [("1", WHY)]
    assert "2 points regressed: capturing the worst 1" in capsys.readouterr().out


def test_where_nothing_has_regressed_nothing_is_captured(
    tmp_path: Path, here: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = measured(tmp_path, here, SimEngine())
    told = replace(judged(kept, kept), points=judged(kept, kept).points[:2])
    capture(told, kept, kept, TORCH, 2)
    assert capsys.readouterr().out == "nothing has regressed: nothing to capture\n"
    capture(replace(told, points=(), verdict=Outcome.REFUSED), kept, kept, TORCH, 2)
    assert capsys.readouterr().out == "the comparison is refused: nothing to capture\n"
    assert of_runs(kept) == []


def test_a_baseline_that_is_gone_leaves_the_candidate(tmp_path: Path, here: Environment) -> None:
    candidate = measured(tmp_path, here)
    capture(judged(candidate, candidate), None, candidate, TORCH, 2)
    assert of_runs(candidate) == [("0", WHY)]


def test_a_secret_that_was_not_stored_is_told_instead_of_a_capture(
    tmp_path: Path, here: Environment
) -> None:
    kept = measured(tmp_path, here, VllmEngine(env={"HF_TOKEN": MASK}))
    capture(judged(kept, kept), None, kept, TORCH, 2)
    ((_, reason),) = of_runs(kept)
    assert reason is not None
    assert reason.startswith("the value of engine.env.HF_TOKEN was not stored")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"environment": None}, "which is not recorded"),
        ({"driver_version": "1.2.3"}, "driver_version"),
        ({"packages": {"vllm": "0.0.1"}}, "packages: .*vllm was 0.0.1, is "),
        ({"gpus": [{"name": "NVIDIA B200"}]}, "gpus"),
    ],
)
def test_another_environment_is_refused_before_anything_is_started(
    tmp_path: Path, here: Environment, changes: dict[str, Any], says: str
) -> None:
    baseline, candidate = (measured(tmp_path / name, here) for name in ("a", "b"))
    told = None if "environment" in changes else candidate.about["environment"] | changes
    candidate.add(environment=told)
    with pytest.raises(UserError, match=f"needs the environment in which .*{says}"):
        capture(judged(baseline, candidate), baseline, candidate, TORCH, 2)
    assert of_runs(baseline) == of_runs(candidate) == []


def test_the_simulator_has_no_profiler(tmp_path: Path, here: Environment) -> None:
    kept = measured(tmp_path, here, SimEngine())
    with pytest.raises(UserError, match="profile=torch needs engine=vllm: sim has no profiler"):
        capture(judged(kept, kept), None, kept, TORCH, 2)


def test_settings_that_this_harness_does_not_know_are_refused_by_their_name(
    tmp_path: Path, here: Environment
) -> None:
    kept = measured(tmp_path, here)
    kept.add(model=kept.about["model"] | {"flavour": "sweet"})
    with pytest.raises(UserError, match=r"stored by another version of the harness \(flavour: "):
        capture(judged(kept, kept), None, kept, TORCH, 2)


def test_nothing_is_captured_in_a_study_where_another_harness_is_at_work(
    tmp_path: Path, here: Environment
) -> None:
    kept, other = measured(tmp_path, here), Study(tmp_path)
    other.folder = kept.folder
    other.lock()
    with pytest.raises(UserError, match="another harness is at work"):
        capture(judged(kept, kept), None, kept, TORCH, 2)
    other.close()
    assert of_runs(kept) == []


def test_the_report_is_made_after_a_capture_that_failed(tmp_path: Path, here: Environment) -> None:
    kept = measured(tmp_path, here)
    told = tmp_path / "told.json"
    told.write_text(judged(kept, kept).to_json())
    assert run(["report", str(kept.folder), f"comparison={told}", "profile=torch"]) == 0
    assert f"Not captured (other): {WHY}" in (kept.folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["profile=nsys"], "profile=nsys captures what has regressed: say against=BASELINE."),
        (["profile=perf"], "profile.kind=perf: must be none, nsys or torch."),
        (["profile=torch", "profile.points=0"], "profile.points=0: the number of points"),
        (["profile=torch", "profile.points=knee"], "profile.points=knee: the number of points"),
        (["profile=torch", "profile.seconds=0"], "profile.seconds=0: must be more than 0."),
        (["profile.points=3"], "what is captured is said by profile=nsys or profile=torch."),
    ],
)
def test_words_that_mean_no_capture_are_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert run(["report", str(tmp_path), *words]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert len(told.splitlines()) == 1
