from pathlib import Path
from typing import Any

import pytest

from harness.capacity.closed import capacity_rps
from harness.plan import Plan
from harness.study import Study
from loadgen.config import Load
from tests.harness.builders import fill, plan, record, requests, study


@pytest.fixture
def made() -> Plan:
    return plan("load.concurrency=2,4", "repeats.launches=2")


@pytest.fixture
def kept(tmp_path: Path, made: Plan) -> Study:
    """Launches of 700 and 1,400 requests in a window of 10 s."""
    kept = study(tmp_path, made)
    fill(kept, made)
    return kept


def half(**changes: Any) -> Load:
    lengths = {"input_tokens": 512, "output_tokens": 128}
    return Load(**{"arrival": "poisson", "rate_frac": 0.5} | lengths | changes)


def test_each_launch_has_the_capacity_that_its_own_closed_loops_found(
    kept: Study, made: Plan
) -> None:
    found = [capacity_rps(kept, launch.id, half()) for launch in made.launches]
    assert found == [pytest.approx(70, rel=0.01), pytest.approx(140, rel=0.01)]


def test_the_best_run_tells_it(kept: Study, made: Plan) -> None:
    launch = made.launches[0]
    saved = next(run for run in kept.runs() if run.record["id"] == launch.runs[1].id)
    folder = kept.folder / "launches" / saved.record["launch"]
    better = record(made, launch.runs[1], folder)
    kept.save_run(launch.runs[1].id, better, **requests(900, 0.05, 0.01))
    assert capacity_rps(kept, launch.id, half()) == pytest.approx(90, rel=0.01)


def test_a_second_life_of_the_launch_counts(kept: Study, made: Plan) -> None:
    launch = made.launches[0]
    folder = kept.new_launch(launch.id)
    assert folder.name == f"{launch.id}.2"
    better = record(made, launch.runs[0], folder)
    kept.save_run(launch.runs[0].id, better, **requests(800, 0.05, 0.01))
    assert capacity_rps(kept, launch.id, half()) == pytest.approx(80, rel=0.01)


@pytest.mark.parametrize(
    "changes",
    [
        {"input_tokens": 64},
        {"output_tokens": {"dist": "uniform", "min": 1, "max": 256}},
        {"prompts": {"kind": "shared_prefix", "groups": 2, "hit_frac": 0.5}},
        {"endpoint": "chat"},
        {"endpoint": "chat", "conversation": {"turns": 2}},
    ],
)
def test_the_capacity_for_other_requests_says_nothing(
    kept: Study, made: Plan, changes: dict[str, Any]
) -> None:
    assert capacity_rps(kept, made.launches[0].id, half(**changes)) is None


def test_runs_that_failed_and_other_launches_tell_nothing(kept: Study, made: Plan) -> None:
    for run in made.launches[0].runs:
        folder = kept.folder / "launches" / f"{made.launches[0].id}.1"
        kept.save_run(run.id, record(made, run, folder, status="failed"))
    assert capacity_rps(kept, made.launches[0].id, half()) is None
    assert capacity_rps(kept, "unknown-1", half()) is None
    assert capacity_rps(kept, made.launches[1].id, half()) is not None
