"""A trial's launch: its runs, whom the short one spares, what the whole says."""

from pathlib import Path
from typing import Any

import pytest

from harness.config import compose
from harness.errors import UserError
from harness.overrides import parse
from harness.plan import Launch, Plan
from harness.steering import Following, Send, Skip
from harness.study import SavedRun, Study
from harness.tune.launching import (
    FULL,
    SCREEN,
    Screening,
    alone,
    check_floor,
    limits_s,
    outcome_of,
    rows_of,
    shortened,
    sound_row,
    spared_s,
)
from harness.tune.trial import Outcome
from harness.tune.tuning import Tuning
from loadgen.config import Load
from tests.harness import builders
from tests.harness.tune.small import TUNE, words

SCREENED = TUNE.replace("screen: null", "screen: {duration_s: 0.3, below_frac: 0.8}")
LIMITED = TUNE.replace("requests_failed < 1", "requests_failed < 1, ttft_p99_s < 0.5")


def tuning(folder: Path, text: str = SCREENED) -> Tuning:
    config_dir, *said = words(folder, text=text)[1:]
    return Tuning.prepare(compose(parse(said), Path(config_dir)), said)


def launch_of(made: Tuning, number: int) -> tuple[Plan, Launch]:
    plan = made.launching.plan(made.space.settings()[number], number)
    return plan, plan.launches[0]


def study_of(folder: Path, made: Tuning, *plans: Plan) -> Study:
    (folder / "out").mkdir(exist_ok=True)
    study = Study.open(folder / "out", made.base.plan, made._about(), fresh=False)
    study.add(runs=[run.id for plan in plans for run in plan.runs])
    return study


def save(study: Study, plan: Plan, run: Any, num: int, **changes: Any) -> None:
    folder = study.new_launch(plan.launches[0].id)
    study.save_launch(folder, {"gpus": "2x h200 (simulated)", "facts": {}, "startup_s": {}})
    samples = {} if changes else builders.requests(num, 0.05, 0.01)
    study.save_run(run.id, builders.record(plan, run, folder, **changes), **samples)


def test_a_launch_asks_everything_the_short_run_first(tmp_path: Path) -> None:
    _, launch = launch_of(tuning(tmp_path), 1)
    assert [run.case for run in launch.runs] == [SCREEN, FULL]
    assert launch.label == "trial 1: enforce_eager=true"


def test_a_request_alone_is_sent_in_the_first_launch_where_a_latency_is_limited(
    tmp_path: Path,
) -> None:
    made = tuning(tmp_path, LIMITED)
    cases = [[run.case for run in launch_of(made, number)[1].runs] for number in (0, 1)]
    assert cases == [["alone", FULL], [FULL]]
    (again,) = made.launching.plan(made.space.default, 1).launches
    assert [run.case for run in again.runs] == ["alone", FULL], "if the machine failed the first"
    (first,) = [run.load for run in launch_of(made, 0)[1].runs if run.case == "alone"]
    assert first.concurrency == 1


def test_the_short_run_asks_for_the_like_and_is_short() -> None:
    load = Load(arrival="closed", concurrency=1024, warmup_max_s=60, duration_s=20)
    short = shortened(load, 3.0)
    assert short.asks_like(load)
    assert (short.duration_s, short.warmup_s, short.warmup_max_s) == (3.0, 3.0, 9.0)
    open_loop = Load(arrival="gamma", rate_rps=5, burstiness=2.0)
    assert alone(open_loop).arrival == "closed"
    assert alone(open_loop).asks_like(open_loop)


def test_what_all_runs_measured_is_told_in_the_order_of_the_loads(tmp_path: Path) -> None:
    made = tuning(tmp_path)
    plan, launch = launch_of(made, 1)
    study = study_of(tmp_path, made, plan)
    for run in launch.runs:
        save(study, plan, run, 700)
    outcome = outcome_of(study, launch)
    assert outcome.state == "ok"
    assert [row["case"] for row in outcome.rows] == [FULL]


def test_a_run_that_failed_fails_the_trial_with_its_kind(tmp_path: Path) -> None:
    made = tuning(tmp_path)
    plan, launch = launch_of(made, 1)
    study = study_of(tmp_path, made, plan)
    failure = {"kind": "out_of_memory", "message": "", "evidence": []}
    for run in launch.runs:
        save(study, plan, run, 700, status="failed", failure=failure)
    assert outcome_of(study, launch).failure == "out_of_memory"


def test_a_trial_whose_full_runs_were_skipped_is_a_clear_loser(tmp_path: Path) -> None:
    made = tuning(tmp_path)
    plan, launch = launch_of(made, 1)
    study = study_of(tmp_path, made, plan)
    short, full = launch.runs
    save(study, plan, short, 100)
    save(study, plan, full, 0, status="skipped", reason="a clear loser")
    outcome = outcome_of(study, launch)
    assert outcome.state == "screened"
    assert [row["case"] for row in outcome.rows] == [SCREEN]


@pytest.mark.parametrize(("num", "is_lost"), [(200, True), (600, False), (700, False)])
def test_a_clear_loser_is_spared_the_rest(tmp_path: Path, num: int, is_lost: bool) -> None:
    """Against 700 requests in the short run of the best so far."""
    made = tuning(tmp_path)
    (first, _), (second, launch) = launch_of(made, 0), launch_of(made, 1)
    study = study_of(tmp_path, made, first, second)
    save(study, first, first.runs[0], 700)
    save(study, second, launch.runs[0], num)
    steering = Screening(
        study=study,
        objective=made.objective,
        short_run=launch.runs[0].id,
        best=rows_of(study, [first.runs[0].id])[first.runs[0].id],
        best_full={},
        below_frac=0.8,
        follow=Following(study=study),
    )
    decision = steering(launch, launch.runs[1])
    assert isinstance(decision, Skip if is_lost else Send), decision
    assert isinstance(steering(launch, launch.runs[0]), Send), "the short run itself is sent"


def test_of_a_clear_loser_the_search_is_told_what_a_full_run_might_have_given(
    tmp_path: Path,
) -> None:
    """Short runs look twice as good as full ones here, and their TTFT half as bad."""
    made = tuning(tmp_path)
    study = study_of(tmp_path, made, launch_of(made, 0)[0])
    screening = Screening(
        study=study,
        objective=made.objective,
        short_run="",
        best={"output_tok_per_s": 2000.0, "ttft_p99_s": 0.1, "preemptions": 0, "case": "screen"},
        best_full={"output_tok_per_s": 1000.0, "ttft_p99_s": 0.2, "preemptions": 3, "case": "full"},
        below_frac=0.8,
        follow=Following(study=study),
    )
    short = {"output_tok_per_s": 1200.0, "ttft_p99_s": 0.3, "preemptions": 1, "case": "screen"}
    (row,) = screening.told(Outcome.screened([short])).rows
    assert row == short | {"output_tok_per_s": 600.0, "ttft_p99_s": pytest.approx(0.6)}
    whole = Outcome.measured([short])
    assert screening.told(whole) is whole


def test_only_a_run_that_can_be_judged_by_has_a_row(tmp_path: Path) -> None:
    made = tuning(tmp_path)
    (first, defaults), (second, launch) = launch_of(made, 0), launch_of(made, 1)
    study = study_of(tmp_path, made, first, second)
    assert sound_row(study, defaults, SCREEN) is None, "not there yet"
    save(study, first, defaults.runs[0], 700)
    save(study, second, launch.runs[0], 700, status="failed", failure={"kind": "out_of_memory"})
    row = sound_row(study, defaults, SCREEN)
    assert row is not None
    assert row["run"] == defaults.runs[0].id
    assert sound_row(study, launch, SCREEN) is None
    assert sound_row(study, defaults, "alone") is None, "it was not planned"


def test_only_limits_of_times_have_a_floor(tmp_path: Path) -> None:
    made = tuning(tmp_path, LIMITED)
    assert limits_s(made.config, made.objective) == {"ttft": 0.5}


def test_a_limit_above_the_floor_is_let_be() -> None:
    check_floor({"ttft_p50_s": 0.4, "requests_ok": 20}, {"ttft": 0.5})
    check_floor({"ttft_p50_s": None, "requests_ok": 0}, {"ttft": 0.5, "tpot": 0.1})
    with pytest.raises(UserError, match=r"TTFT < 500 ms cannot be kept.*600 ms \(median of 20\)"):
        check_floor({"ttft_p50_s": 0.6, "requests_ok": 20}, {"ttft": 0.5})


def test_two_studies_of_other_goals_are_two(tmp_path: Path) -> None:
    other = TUNE.replace("output_tok_per_s", "requests_per_s")
    assert tuning(tmp_path, TUNE).base.plan.id != tuning(tmp_path, other).base.plan.id


def test_a_larger_budget_continues_the_same_study(tmp_path: Path) -> None:
    more = TUNE.replace("launches: 10", "launches: 20")
    assert tuning(tmp_path, TUNE).base.plan.id == tuning(tmp_path, more).base.plan.id


def saved(run: str, case: str, took_s: float, **launch: Any) -> SavedRun:
    record = {"id": run, "case": case, "window": {"started_at_s": 5.0, "ended_at_s": 5.0 + took_s}}
    return SavedRun(record=record, launch=launch, folder=Path())


def test_the_proof_is_spared_the_runs_beside_the_full_loads() -> None:
    runs = [saved("a", "alone", 4.0), saved("b", SCREEN, 6.0), saved("c", FULL, 30.0)]
    assert spared_s(runs, {"a", "b", "c"}) == 10.0
    assert spared_s(runs, {"c"}) == 0.0, "the others were there before this command"
    assert spared_s(runs, ()) == 0.0


def test_the_proof_is_spared_compiling_as_far_as_another_start_shows() -> None:
    cold, warm = {"startup_s": {"compile": 16.0}}, {"startup_s": {"compile": 3.5}}
    eager = {"startup_s": {"compile": 0.5}, "engine": {"enforce_eager": True}}
    first, second = saved("a", FULL, 30.0, **warm), saved("b", FULL, 30.0, **cold)
    third = saved("c", FULL, 30.0, **eager)
    assert spared_s([second, third], {"b"}) == 0.0, "nothing shows what is left of it"
    assert spared_s([first, second, third], {"b"}) == 12.5
    assert spared_s([first, second, third], {"a"}) == 0.0
    assert spared_s([first, second, third], {"c"}) == 0.0, "it does not compile"
