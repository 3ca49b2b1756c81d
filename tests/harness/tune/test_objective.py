import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.checks.config import Checks
from harness.tune.column import lacking
from harness.tune.constraint import Constraint, contradiction
from harness.tune.trial import Outcome
from loadgen.config import Slo
from tests.harness.test_config import composed
from tests.harness.tune.spaces import objective, tune

SETTING = (("max_num_seqs", 64),)
positive = st.floats(1e-3, 1e6)


def judged(objective, rows, defaults, setting=SETTING):
    return objective.judge(1, setting, Outcome.measured(rows), Outcome.measured(defaults))


@given(st.lists(positive, min_size=1, max_size=4), positive)
def test_a_score_is_how_many_times_as_good_as_the_defaults(rates, factor):
    defaults = [{"output_tok_per_s": rate} for rate in rates]
    rows = [{"output_tok_per_s": rate * factor} for rate in rates]
    assert judged(objective(), rows, defaults).score == pytest.approx(factor)
    energy = [{"j_per_output_token": rate} for rate in rates]
    spent = [{"j_per_output_token": rate / factor} for rate in rates]
    goal = objective(minimise="j_per_output_token")
    assert judged(goal, spent, energy).score == pytest.approx(factor)


def test_no_load_outweighs_another():
    defaults = [{"output_tok_per_s": 10.0}, {"output_tok_per_s": 10_000.0}]
    rows = [{"output_tok_per_s": 40.0}, {"output_tok_per_s": 10_000.0}]
    trial = judged(objective(), rows, defaults)
    assert trial.score == pytest.approx(2.0)
    assert dict(trial.values)["output_tok_per_s"] == pytest.approx(math.sqrt(400_000))


@given(positive, positive)
def test_a_limit_in_multiples_of_the_defaults_is_of_the_same_load(base, value):
    goal = objective(constraints="tpot_p99_s < 1.1 x defaults")
    row = {"output_tok_per_s": 1.0}
    trial = judged(
        goal,
        [row | {"tpot_p99_s": base}, row | {"tpot_p99_s": value}],
        [row | {"tpot_p99_s": base}, row | {"tpot_p99_s": value / 2}],
    )
    assert not trial.is_feasible
    assert trial.margins == (pytest.approx(math.log(2 / 1.1)),)


def test_limits_hold_at_each_load_and_are_told_with_what_was_seen():
    goal = objective(constraints=["ttft_p99_s < 0.5", "output_tok_per_s > 50"])
    rows = [
        {"output_tok_per_s": 60.0, "ttft_p99_s": 0.4},
        {"output_tok_per_s": 70.0, "ttft_p99_s": 0.7},
    ]
    trial = judged(goal, rows, rows)
    assert trial.violations == ("ttft_p99_s < 0.5: ttft_p99_s is 0.7",)
    assert dict(trial.values) == {
        "ttft_p99_s": 0.7,
        "output_tok_per_s": pytest.approx(math.sqrt(4200)),
    }
    kept = judged(goal, rows[:1], rows[:1])
    assert kept.is_feasible


def test_no_failures_at_all_keep_a_limit_of_failures():
    goal = objective(constraints="requests_failed < 1")
    row = {"output_tok_per_s": 1.0, "requests_failed": 0}
    assert judged(goal, [row], [row]).is_feasible
    assert judged(goal, [row | {"requests_failed": 2}], [row]).violations


def test_what_was_not_measured_is_not_promised():
    goal = objective(constraints="ttft_p99_s < 0.5")
    row = {"output_tok_per_s": 1.0}
    trial = judged(goal, [row], [row])
    assert trial.violations == ("ttft_p99_s < 0.5: ttft_p99_s was not measured",)
    assert judged(goal, [row | {"ttft_p99_s": math.nan}], [row]).violations
    assert judged(objective(), [{}], [row]).score is None


def test_accuracy_is_asked_of_settings_that_change_the_numbers():
    goal = objective(constraints="top1_agreement_frac > 0.99")
    row = {"output_tok_per_s": 1.0}
    assert judged(goal, [row], [row]).is_feasible
    fp8 = (("quantization", "fp8"),)
    assert not judged(goal, [row], [row], fp8).is_feasible
    assert judged(goal, [row | {"top1_agreement_frac": 0.995}], [row], fp8).is_feasible
    assert not judged(goal, [row | {"top1_agreement_frac": 0.9}], [row], fp8).is_feasible


def test_dollars_come_from_the_price_of_a_gpu_hour():
    goal = objective(minimise="usd_per_mtok_output", cost_per_gpu_hour=3.6)
    row = {"output_tok_per_s": 1000.0, "num_gpus": 2}
    assert goal.complete(row)["usd_per_mtok_output"] == pytest.approx(2.0)
    twice = judged(goal, [row | {"output_tok_per_s": 2000.0}], [row])
    assert twice.score == pytest.approx(2.0)
    assert dict(twice.values)["usd_per_mtok_output"] == pytest.approx(1.0)


def test_two_goals_are_both_told():
    goal = objective(maximise=["output_tok_per_s_per_gpu", "output_tok_per_s_per_user"])
    base = {"output_tok_per_s": 100.0, "num_gpus": 2, "tpot_p50_s": 0.01}
    trial = judged(goal, [base | {"output_tok_per_s": 400.0, "tpot_p50_s": 0.02}], [base])
    assert trial.gains == pytest.approx((math.log(4), math.log(0.5)))
    assert trial.score == pytest.approx(math.sqrt(2))


def test_a_failure_and_what_is_still_running_have_no_score():
    goal = objective()
    defaults = Outcome.measured([{"output_tok_per_s": 1.0}])
    failed = goal.judge(1, SETTING, Outcome.failed("out_of_memory"), defaults)
    assert (failed.state, failed.failure, failed.score) == ("failed", "out_of_memory", None)
    assert goal.judge(1, SETTING, None, defaults).state == "running"


def test_a_screened_trial_is_never_feasible():
    outcome = Outcome.screened([{"output_tok_per_s": 2.0}])
    trial = objective().judge(1, SETTING, outcome, Outcome.measured([{"output_tok_per_s": 1.0}]))
    assert (trial.state, trial.score, trial.is_feasible) == ("screened", pytest.approx(2.0), False)
    assert trial.values == (), "an estimate is not shown as measured"


@given(positive, positive, st.booleans())
def test_only_a_floor_that_is_not_below_the_ceiling_contradicts_it(low, high, relative):
    unit = " x defaults" if relative else ""
    pair = [
        Constraint.parse(f"tpot_p99_s > {low}{unit}"),
        Constraint.parse(f"tpot_p99_s < {high}{unit}"),
    ]
    assert (contradiction(pair) is None) == (low < high)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"constraints": ["tpot_p99_s < 1", "tpot_p99_s > 2"]}, "contradict each other"),
        ({"constraints": ["tpot_p99 < 1"]}, "Did you mean 'tpot_p99_s'"),
        ({"constraints": ["tpot_p99_s = 1"]}, "not of the form METRIC < NUMBER"),
        ({"constraints": ["tpot_p99_s < 0"]}, "must be above 0"),
        ({"constraints": ["slo_met_frac > 99"]}, "slo_met_frac is a share, between 0 and 1"),
        ({"maximise": "output_tok_s"}, "Did you mean 'output_tok_per_s'"),
        ({"maximise": []}, "name one column to maximise or minimise"),
        ({"maximise": ["output_tok_per_s"] * 2}, "'output_tok_per_s' is named twice"),
        ({"minimise": "usd_per_mtok_output"}, "set tune.cost_per_gpu_hour"),
        ({"space": {}}, "the space is empty"),
        ({"space": {"max_num_seqs": None}}, "the space is empty"),
        ({"space": {"max_num_seqs": [None]}}, "needs a value beside the default"),
        ({"space": {"max_num_seqs": {"from": 1, "to": 8}}}, "from, to, and times or step"),
        ({"space": {"max_num_seqs": {"from": 9, "to": 8, "step": 1}}}, "is empty"),
        ({"space": {"max_num_seqs": {"from": 0, "to": 8, "times": 2}}}, "begins above 0"),
        ({"space": {"max_num_seqs": {"from": 1, "to": 8, "times": 1}}}, "greater than 1"),
        ({"space": {"max_num_seqs": {"from": 1, "to": 1e9, "step": 1}}}, "more than 1000 values"),
        ({"space": {"max_num_seqs": {"values": [1], "to": 8}}}, "has values, or a range"),
        ({"space": {"extra.compilation_config": [{"mode": 1}]}}, "name the key that differs"),
        ({"forbidden": [{}]}, "would forbid everything"),
        ({"budget": {"launches": 7}}, "are 8"),
    ],
)
def test_a_tuning_that_cannot_be_is_said(said, told):
    with pytest.raises(ValidationError) as caught:
        tune(**said)
    assert told in str(caught.value)


@given(st.sampled_from(["failure_kinds", "ceiling"]))
def test_what_is_a_text_is_no_number(column):
    row = {"output_tok_per_s": 1.0, column: "some words"}
    assert judged(objective(maximise=column), [row], [row]).score is None
    limited = judged(objective(constraints=f"{column} < 1"), [row], [row])
    assert limited.margins == (None,)
    assert not limited.is_feasible


@pytest.mark.parametrize(
    ("column", "space", "is_told"),
    [
        ("top1_agreement_frac", ["kv_cache_dtype"], True),
        ("top1_agreement_frac", ["max_num_seqs"], False),  # it cannot change
        ("goodput_rps", [], True),
        ("capacity_rps", [], True),
        ("ttft_p50_s", [], False),
        ("gpu_power_w", [], False),  # the launch of the defaults will tell
    ],
)
def test_what_a_load_cannot_give_is_told_before_anything_is_launched(column, space, is_told):
    told = lacking([column], composed("sweep=single").loads, Slo(), Checks(), space)
    assert (told is not None) == is_told


def test_a_limit_is_told_in_the_unit_that_people_are_shown_too():
    texts = ("ttft_p99_s < 500", "tpot_p99_s < 1.1 x defaults", "output_tok_per_s > 9")
    told = [Constraint.parse(text).told() for text in texts]
    assert told == ["ttft_p99_s < 500 (500,000 ms)", *texts[1:]]
    assert Constraint.parse("slo_met_frac > 1.05 x defaults").relative
