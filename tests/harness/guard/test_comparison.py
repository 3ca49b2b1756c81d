import json
from dataclasses import replace
from math import inf
from typing import Any
from xml.etree import ElementTree

import pytest

from harness.direction import better
from harness.errors import UserError
from harness.guard.comparison import compare, hold
from harness.guard.config import Guard, checked, read_guard
from harness.guard.junit import junit
from harness.guard.outcome import Comparison, Judgement, Outcome, Verdict
from harness.guard.policy import Policy
from harness.guard.summary import number, paragraph
from tests.harness.guard.studies import (
    LOAD,
    STEADY,
    THROUGHPUT,
    about,
    baseline,
    candidate,
    evidence,
    guard,
    measured,
    slower,
)

TTFT = "ttft_p50_s"


def judged(values: Any, mine: Any = STEADY, **changes: Any) -> Judgement:
    [judgement] = compare(baseline(mine), candidate(values, **changes), guard()).points
    return judgement


def policy(*limits: str, **at: Any) -> Policy:
    made: Policy = checked(Policy, {"objectives": [{"limits": list(limits), "at": at}]}, "here")
    return made


def test_a_slower_candidate_has_regressed() -> None:
    found = compare(baseline(), candidate(slower(0.1)), guard())
    [judgement] = found.points
    assert found.verdict is Outcome.REGRESSED
    assert found.verdict.exit_code == 1
    assert judgement.verdict is Verdict.REGRESSED
    assert judgement.ratio == pytest.approx(0.9, abs=1e-3)
    assert judgement.low is not None
    assert judgement.high is not None
    assert judgement.low < 0.9 < judgement.high < 0.97
    assert judgement.baseline == pytest.approx(1000, rel=1e-3)
    assert judgement.launches == (5, 5)
    assert not judgement.paired


def test_the_same_again_passes() -> None:
    found = compare(baseline(), candidate(STEADY[::-1]), guard())
    assert found.verdict is Outcome.PASS
    assert found.verdict.exit_code == 0
    assert found.points[0].verdict is Verdict.UNCHANGED


def test_a_faster_candidate_passes() -> None:
    found = compare(baseline(), candidate(slower(-0.2)), guard())
    assert found.verdict is Outcome.PASS
    assert found.points[0].verdict is Verdict.IMPROVED


def test_noise_is_inconclusive_and_says_how_many_launches_more() -> None:
    found = compare(baseline(), candidate([900.0, 1000.0, 1100.0, 980.0]), guard())
    [judgement] = found.points
    assert found.verdict is Outcome.INCONCLUSIVE
    assert found.verdict.exit_code == 2
    assert judgement.more_launches is not None
    assert judgement.more_launches > 1
    assert f"{judgement.more_launches} more launches of each side would settle it" in found.summary


def test_runs_that_were_left_out_are_not_unfinished() -> None:
    sent = replace(candidate([]), about=about(runs=["a", "b"]), has_table=True)
    assert compare(baseline(), sent, guard()).notes == ()
    bare = replace(sent, has_table=False)
    assert compare(baseline(), bare, guard()).notes == ("the candidate is unfinished: 0 of 2 runs",)


def test_a_policy_on_a_study_without_samples_is_refused_for_them() -> None:
    found = hold(candidate([]), policy(f"{THROUGHPUT} > 900"), guard(), name="p")
    assert found.summary == "Not comparable: raw_samples (none: an aggregate cannot be judged)."


def test_a_policy_wants_launches_of_its_one_side() -> None:
    found = hold(candidate([890, 930, 905]), policy(f"{THROUGHPUT} > 900"), guard(), name="p")
    assert found.points[0].more_launches
    assert "more launches would settle it" in found.summary


def test_no_change_has_no_sign() -> None:
    assert [number(ratio) for ratio in (0.9999, 1.0, 1.0001)] == ["0.0"] * 3
    assert number(0.999) == "−0.1"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1000.0], "1 launch of the candidate"),
        ([1000.0, inf, 1001.0], "longer than the run in 1 of 3 runs of the candidate"),
        ([1000.0, None, 1001.0], "undefined in 1 of 3 runs"),
        ([1000.0, 0.0, 1001.0], "0 in 1 of 3 runs"),
    ],
)
def test_what_has_no_interval_is_inconclusive_with_its_reason(values: Any, reason: str) -> None:
    judgement = judged(values)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.reason is not None
    assert judgement.reason.startswith(reason)
    assert (judgement.ratio, judgement.low, judgement.high) == (None, None, None)


def test_launches_without_any_noise_are_not_believed() -> None:
    judgement = judged([900.0] * 3, [1000.0] * 3)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.reason is not None
    assert "do not differ at all" in judgement.reason


def test_drift_through_both_studies_is_no_regression() -> None:
    falling = [1000 * 0.98**i for i in range(16)]
    judgement = judged(falling[8:], falling[:8])
    assert judgement.ratio == pytest.approx(0.98**8)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.reason is not None
    assert "drifts" in judgement.reason


def test_a_change_that_drift_cannot_explain_has_regressed() -> None:
    falling = [1000 * 0.98**i for i in range(16)]
    assert judged(slower(0.5, falling[8:]), falling[:8]).verdict is Verdict.REGRESSED


def test_interleaved_launches_are_paired() -> None:
    falling = [1000 * 0.98**i for i in range(8)]
    wobble = (1.0, 1.002, 0.999, 1.001) * 2
    theirs = [
        measured(i, 0.9 * value * w, begun_at_s=100.0 * i + 50)
        for i, (value, w) in enumerate(zip(falling, wobble, strict=True), 1)
    ]
    [judgement] = compare(baseline(falling), evidence(theirs, "candidate"), guard()).points
    assert judgement.paired
    assert judgement.verdict is Verdict.REGRESSED


def test_runs_of_a_launch_count_as_one() -> None:
    def twice(values: Any, begun_at_s: float) -> list[Any]:
        return [
            measured(i, value * factor, run_repeat=run, begun_at_s=begun_at_s + 100 * i + run)
            for i, value in enumerate(values, 1)
            for run, factor in ((1, 0.99), (2, 1.01))
        ]

    mine, theirs = evidence(twice(STEADY, 0)), evidence(twice(slower(0.1), 9e4), "candidate")
    found = compare(mine, theirs, guard())
    assert found.points[0].launches == (5, 5)
    assert len(found.points[0].baseline_runs) == 10
    [first, second] = found.variance
    assert (first.study, second.study) == ("baseline", "candidate")
    assert (first.launches, first.runs) == (5, 10)
    assert first.within_frac == pytest.approx(0.0141, rel=0.01)


def test_a_metric_that_is_undefined_everywhere_is_left_out_and_named() -> None:
    rows = {"row": {TTFT: None}}
    mine = evidence([measured(i, v, **rows) for i, v in enumerate(STEADY, 1)])
    found = compare(mine, candidate(STEADY[::-1], run=rows), guard(THROUGHPUT, TTFT))
    assert found.verdict is Outcome.PASS
    assert found.family == 1
    assert found.notes == (f"{TTFT} is undefined at 1 point: not compared there",)


def test_a_change_among_many_numbers_needs_a_wider_interval() -> None:
    def side(values: Any, begun_at_s: float) -> list[Any]:
        return [
            measured(i, v, row={TTFT: v / 1e4}, begun_at_s=begun_at_s + i)
            for i, v in enumerate(values, 1)
        ]

    mine, theirs = evidence(side(STEADY, 0)), evidence(side(slower(0.1), 9e3), "candidate")
    alone = compare(mine, theirs, guard())
    for wider in (
        compare(mine, theirs, guard(THROUGHPUT, TTFT)),
        compare(mine, replace(theirs, about=theirs.about | {"looks": 2}), guard()),
    ):
        assert wider.family * wider.looks == 2
        widths = [
            (found.points[0].high or 0) - (found.points[0].low or 0) for found in (alone, wider)
        ]
        assert widths[1] > 1.1 * widths[0]


def test_a_refused_comparison_has_no_numbers() -> None:
    found = compare(baseline(), candidate(slower(0.1), measurement_version=1), guard())
    assert found.verdict is Outcome.REFUSED
    assert found.verdict.exit_code == 2
    assert found.points == found.variance == ()
    assert found.summary == "Not comparable: measurement_version (2 / 1)."


def test_what_was_allowed_is_carried_along() -> None:
    theirs = candidate(slower(0.1), measurement_version=1)
    found = compare(baseline(), theirs, guard(), allow=["measurement_version"])
    assert found.verdict is Outcome.REGRESSED
    assert found.refusals[0].allowed
    assert "Allowed to differ: `measurement_version`." in paragraph(found)


@pytest.mark.parametrize("folder", ["baseline", "elsewhere"])
def test_a_study_is_not_compared_with_itself(folder: str) -> None:
    copy = evidence(baseline().runs, folder)
    with pytest.raises(UserError, match="same measurements"):
        compare(baseline(), copy, guard())


def test_points_of_one_study_alone_and_missing_runs_are_noted() -> None:
    more = [
        measured(i, v, load=LOAD | {"concurrency": 9}, point="q") for i, v in enumerate(STEADY, 1)
    ]
    mine = evidence([*baseline().runs, *more])
    theirs = candidate(STEADY[::-1])
    theirs.about["runs"] = [*theirs.about["runs"], "x"]
    assert compare(mine, theirs, guard()).notes == (
        "1 point of the baseline alone: not compared",
        "the candidate is unfinished: 5 of 6 runs",
    )


@pytest.mark.parametrize(
    ("limit", "verdict", "outcome"),
    [
        (f"{THROUGHPUT} > 900", Verdict.UNCHANGED, Outcome.PASS),
        (f"{THROUGHPUT} > 1100", Verdict.REGRESSED, Outcome.REGRESSED),
        (f"{THROUGHPUT} > 1000", Verdict.INCONCLUSIVE, Outcome.INCONCLUSIVE),
        (f"{THROUGHPUT} < 1100", Verdict.UNCHANGED, Outcome.PASS),
    ],
)
def test_a_limit_is_kept_broken_or_undecided(
    limit: str, verdict: Verdict, outcome: Outcome
) -> None:
    found = hold(candidate(), policy(limit, concurrency=8), guard(), name="fast")
    [judgement] = found.points
    assert (judgement.verdict, found.verdict) == (verdict, outcome)
    assert judgement.limit == limit
    assert judgement.baseline == float(limit.split()[-1])
    assert judgement.candidate == pytest.approx(1000, rel=1e-3)
    assert judgement.launches == (0, 5)
    assert found.baseline.study == "policy fast"


def test_a_policy_may_go_with_a_baseline() -> None:
    limits = policy(f"{THROUGHPUT} > 950")
    found = compare(baseline(), candidate(slower(0.1)), guard(), policy=limits)
    assert [j.verdict for j in found.points] == [Verdict.REGRESSED] * 2
    assert found.family == 2
    assert found.summary.startswith("1 regressed, 1 limit broken of 2 (1 point × 1 metric)")


@pytest.mark.parametrize("metric", ["goodput_rps", "throttle_reasons"])
def test_a_limit_on_what_has_no_number_is_inconclusive(metric: str) -> None:
    found = hold(candidate(), policy(f"{metric} < 1"), guard(), name="odd")
    assert found.verdict is Outcome.INCONCLUSIVE
    assert found.points[0].reason == "undefined in 5 of 5 runs of the candidate"


def test_a_policy_must_speak_of_points_that_were_measured() -> None:
    with pytest.raises(UserError, match="concurrency=64, and the study has no such point"):
        hold(candidate(), policy(f"{THROUGHPUT} > 1", concurrency=64), guard(), name="fast")


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("ttft_p99_s", "not of the form"),
        ("ttft_p98_s < 0.2", "Did you mean 'ttft_p9"),
        ("ttft_p99_s < 0", "above 0"),
        ("ttft_p99_s < 1e", "no number"),
    ],
)
def test_a_limit_that_is_none_is_told_in_a_sentence(limit: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        policy(limit)
    assert str(caught.value).startswith("here: objectives.0: ")


def regressed() -> Comparison:
    values = slower(0.1)
    runs = [
        measured(i, value, begun_at_s=9e3 + i, row={TTFT: 0.1 + (i % 3) / 10})
        for i, value in enumerate(values, 1)
    ]
    mine = evidence([measured(i, v, row={TTFT: 0.1 + i / 100}) for i, v in enumerate(STEADY, 1)])
    return compare(mine, evidence(runs, "candidate"), guard(THROUGHPUT, TTFT))


def test_json_keeps_its_contract() -> None:
    told = json.loads(regressed().to_json())
    assert told["verdict"] == "regressed"
    assert told["baseline"] == {
        "study": "baseline",
        "engine": "vLLM 0.25.1 on 1x NVIDIA H200",
        "simulated": False,
        "launches": 5,
    }
    assert told["thresholds"] == {THROUGHPUT: 0.03, TTFT: 0.05}
    assert (told["confidence"], told["family"], told["refusals"]) == (0.95, 2, [])
    point = told["points"][0]
    assert point["point"] == {"concurrency": 8}
    assert point["verdict"] == "regressed"
    assert point["launches"] == [5, 5]
    assert point["baseline_runs"] == [f"p-{i}-1" for i in range(1, 6)]
    assert {"metric", "ratio", "low", "high", "threshold_frac", "paired", "reason"} <= point.keys()
    assert told["variance"][0].keys() == {
        "study",
        "metric",
        "point",
        "between_frac",
        "within_frac",
        "launches",
        "runs",
    }


def test_junit_has_a_failure_a_regression_and_skips_what_is_open() -> None:
    root = ElementTree.fromstring(junit(regressed()).split("?>", 1)[1])
    [suite] = root
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "2",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
    }
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert "output tok/s −10.0 %" in str(failure.get("message"))
    refused = compare(baseline(), candidate(measurement_version=1), guard())
    root = ElementTree.fromstring(junit(refused).split("?>", 1)[1])
    assert root[0].get("errors") == "1"


def test_the_paragraph_names_the_worst_and_stays_one() -> None:
    text = paragraph(regressed())
    assert "`candidate` against `baseline`" in text, "as junit and against= have it"
    assert text.startswith("**Regressed.** 1 regressed, 1 inconclusive of 2 (1 point × 2 metrics)")
    assert "Worst: output tok/s −10.0 % (" in text
    assert "at concurrency=8" in text
    assert text.count("\n") == 1


def test_simulated_numbers_say_so_in_every_form() -> None:
    run = {"row": {"simulated": True}}
    mine = evidence([measured(i, v, **run) for i, v in enumerate(STEADY, 1)], simulated=True)
    found = compare(mine, candidate(slower(0.1), run=run, simulated=True), guard())
    assert found.simulated
    for text in (found.summary, paragraph(found), junit(found)):
        assert "SIMULATED" in text
    assert json.loads(found.to_json())["candidate"]["simulated"] is True


def test_every_metric_that_is_compared_needs_a_threshold() -> None:
    tree = {"alpha": 0.05, "max_launches": 12, "metrics": ["ttft_p98_s"]}
    with pytest.raises(UserError, match="'ttft_p98_s' has no threshold"):
        checked(Guard, tree | {"thresholds_frac": {"ttft_p99_s": 0.1}}, "here")


def test_only_what_is_better_high_or_low_can_regress() -> None:
    tree = {"alpha": 0.05, "max_launches": 12}
    for metric, text in (("mfu_frac", "high"), ("slo_met_frac", "high"), ("perplexity", "low")):
        checked(Guard, tree | {"metrics": [metric], "thresholds_frac": {metric: 0.1}}, "here")
        assert better(metric) == text
    busy = {"metrics": ["sm_activity_frac"], "thresholds_frac": {"sm_activity_frac": 0.1}}
    with pytest.raises(UserError, match="'sm_activity_frac' is better neither high nor low"):
        checked(Guard, tree | busy, "here")


def test_the_defaults_are_what_the_documentation_says() -> None:
    made = read_guard("default")
    assert (made.alpha, made.thresholds_frac[THROUGHPUT]) == (0.05, 0.03)
    assert (made.thresholds_frac[TTFT], made.thresholds_frac["ttft_p99_s"]) == (0.05, 0.10)
