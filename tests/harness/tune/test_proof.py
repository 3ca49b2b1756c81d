"""What a proof says, of launches with values that we choose."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.guard.config import read_guard
from harness.guard.evidence import Evidence, Measured
from harness.tune.constraint import Constraint
from harness.tune.objective import Goal, Objective
from harness.tune.proof import Proof, Result, _open, judged
from tests.harness.guard.studies import LOAD, THROUGHPUT, evidence, measured
from tests.harness.tune.answers import GAIN

NOISE = (1.0, 1.01, 0.99)
CONCURRENCY = (8, 64)


def runs(case: str, values: Sequence[float | None], place: int, **row: Any) -> list[Measured]:
    """A launch a round, its rounds apart in time; `place`: when in its round it ran."""
    return [
        measured(
            number,
            value,
            point=f"{case}-{place}",
            launch=f"{case}-{number}",
            begun_at_s=1000.0 * number + 100.0 * place,
            engine={"max_num_seqs": place},
            row={"case": case, "requests_failed": 0, "ttft_p50_s": 0.1 * NOISE[number % 3]} | row,
        )
        for number, value in enumerate(values, 1)
    ]


def times(factor: float) -> list[float]:
    return [1000 * factor * noise for noise in NOISE]


def side(case: str, factor: float, place: int, **row: Any) -> list[Measured]:
    """Launches that are `factor` times 1000 tok/s, each with a little noise of its own."""
    noise = np.random.default_rng(place).normal(0, 0.003, 3)
    return runs(
        case, [v * (1 + e) for v, e in zip(times(factor), noise, strict=True)], place, **row
    )


def study(*sides: list[Measured]) -> Evidence:
    return evidence([run for one in sides for run in one], "proof")


def judge(
    found: Evidence,
    *constraints: str,
    settings: Sequence[str] = (),
    goal: str = THROUGHPUT,
    **more: Any,
) -> Proof:
    goals = (Goal(column=goal, maximise=True),)
    kept = tuple(map(Constraint.parse, constraints))
    objective = Objective(goals=goals, constraints=kept)
    return judged(found, objective, settings, read_guard("default"), **more)


def test_a_gain_past_the_threshold_is_proven_with_its_interval() -> None:
    proof = judge(study(side("defaults", 1.0, 1), side("tuned", 1.5, 2)))
    (gain,) = proof.gains
    assert proof.result is Result.PROVEN
    assert gain.word == "improved"
    assert gain.low is not None
    assert gain.high is not None
    assert 1.4 < gain.low < 1.5 < gain.high < 1.6
    assert gain.launches == 3


def test_the_interval_is_of_the_rounds_which_share_their_drift() -> None:
    """Noise that both sides of a round share leaves no doubt about their ratio."""
    drift = (1.0, 2.0, 0.5)
    mine = [1000 * d * (1 + e) for d, e in zip(drift, (0.001, 0.0, -0.001), strict=True)]
    theirs = [1200 * d for d in drift]
    (gain,) = judge(study(runs("defaults", mine, 1), runs("tuned", theirs, 2))).gains
    assert gain.low is not None
    assert gain.low > 1.19


def test_a_difference_within_the_threshold_is_no_gain() -> None:
    proof = judge(study(side("defaults", 1.0, 1), side("tuned", 1.001, 2)))
    assert proof.result is Result.NO_GAIN


def test_a_winner_that_was_only_lucky_is_not_proven() -> None:
    proof = judge(study(side("defaults", 1.0, 1), side("tuned", 0.8, 2)))
    assert proof.result is Result.NO_GAIN
    assert proof.gains[0].word == "regressed"


def test_noise_that_hides_the_gain_is_inconclusive_and_says_how_much_more_is_wanted() -> None:
    proof = judge(study(side("defaults", 1.0, 1), runs("tuned", [1000, 1200, 1100], 2)))
    assert proof.result is Result.INCONCLUSIVE
    assert proof.gains[0].more_launches
    assert proof.gains[0].more_launches > 0


def test_a_goal_that_is_minimised_improves_downwards() -> None:
    found = study(side("defaults", 1.0, 1), side("tuned", 0.5, 2))
    objective = Objective(goals=(Goal(column=THROUGHPUT, maximise=False),))
    assert judged(found, objective, (), read_guard("default")).gains[0].word == "improved"


def latencies(values: Sequence[float], place: int, case: str) -> list[Measured]:
    found = side(case, 1.0 if case == "defaults" else 1.5, place)
    return [
        replace(run, row=run.row | {"tpot_p99_s": v}) for run, v in zip(found, values, strict=True)
    ]


BASE = (0.0200, 0.0201, 0.0199)


@pytest.mark.parametrize(
    ("constraint", "tuned", "word", "result"),
    [
        ("tpot_p99_s < 1.1 x defaults", (0.0200, 0.0202, 0.0200), "kept", Result.PROVEN),
        ("tpot_p99_s < 1.1 x defaults", (0.0300, 0.0302, 0.0300), "broken", Result.BROKEN),
        # more likely kept than not: told, and the gain stands
        ("tpot_p99_s < 1.1 x defaults", (0.0190, 0.0240, 0.0200), "open", Result.PROVEN),
        ("tpot_p99_s < 1.1 x defaults", (0.0190, 0.0300, 0.0220), "open", Result.INCONCLUSIVE),
        ("tpot_p99_s < 0.03", (0.0200, 0.0202, 0.0200), "kept", Result.PROVEN),
        ("tpot_p99_s < 0.01", (0.0200, 0.0202, 0.0200), "broken", Result.BROKEN),
        ("tpot_p99_s > 0.03", (0.0200, 0.0202, 0.0200), "broken", Result.BROKEN),
        ("requests_failed < 1", BASE, "kept", Result.PROVEN),
        ("itl_p99_s < 1", BASE, "open", Result.INCONCLUSIVE),
    ],
)
def test_constraints_are_judged_on_the_proofs_own_launches(
    constraint: str, tuned: Sequence[float], word: str, result: Result
) -> None:
    found = study(latencies(BASE, 1, "defaults"), latencies(tuned, 2, "tuned"))
    proof = judge(found, constraint)
    assert (proof.constraints[0].word, proof.result) == (word, result), proof.constraints


def test_what_a_constraint_allows_is_told_in_its_own_unit() -> None:
    found = study(latencies(BASE, 1, "defaults"), latencies(BASE, 2, "tuned"))
    (kept,) = judge(found, "tpot_p99_s < 1.5 x defaults").constraints
    assert kept.before == pytest.approx(0.03, rel=1e-3)
    assert kept.after == pytest.approx(0.02, rel=1e-3)


def test_a_winner_that_keeps_what_the_defaults_break_is_proven_without_a_gain() -> None:
    found = study(side("defaults", 1.0, 1), side("tuned", 0.8, 2))
    proof = judge(found, defaults_break=("ttft_p99_s < 0.5: ttft_p99_s is 2",))
    assert proof.result is Result.PROVEN
    assert "the defaults break ttft_p99_s < 0.5" in proof.reason


def test_a_winner_whose_launch_fails_in_the_proof_is_not_proven() -> None:
    tuned = side("tuned", 1.5, 2)
    lost = {"status": "failed", "failure": "out_of_memory", THROUGHPUT: None}
    tuned[1] = replace(tuned[1], row=tuned[1].row | lost)
    proof = judge(study(side("defaults", 1.0, 1), tuned))
    assert proof.result is Result.BROKEN
    assert "1 of 3 runs of the winner failed (out_of_memory)" in proof.reason


def test_rows_with_a_fatal_code_prove_nothing() -> None:
    tuned = [replace(run, validity=("client_busy",)) for run in side("tuned", 1.5, 2)]
    proof = judge(study(side("defaults", 1.0, 1), tuned))
    assert proof.result is Result.INCONCLUSIVE
    assert "client_busy" in proof.reason
    assert proof.reason.endswith("or let them through with tune.proof.allow=client_busy")


def test_of_two_goals_it_is_said_whose_interval_is_open() -> None:
    traded = [replace(GAIN, word=word) for word in ("improved", "inconclusive")]
    traded[1] = replace(traded[1], metric="output_tok_per_s_per_user")
    assert "the interval of output tok/s per user holds" in _open(traded)
    assert "the interval holds changes that matter" in _open(traded[1:])


def test_a_fatal_code_that_is_let_through_is_told() -> None:
    tuned = [replace(run, validity=("client_busy",)) for run in side("tuned", 1.5, 2)]
    proof = judge(study(side("defaults", 1.0, 1), tuned), allow=["client_busy"])
    assert proof.result is Result.PROVEN
    assert proof.let_through == "client_busy"


def test_what_a_setting_contributes_is_the_winner_against_the_winner_without_it() -> None:
    found = study(
        side("defaults", 1.0, 1),
        side("tuned", 1.5, 2),
        side("without_block_size", 1.5, 3),
        side("without_api_server_count", 1.1, 4),
    )
    told = judge(found, settings=("block_size", "api_server_count")).contributions
    assert told["block_size"].word == "unchanged"
    assert told["api_server_count"].word == "improved"
    assert told["api_server_count"].ratio == pytest.approx(1.5 / 1.1, rel=0.02)


def test_several_loads_give_the_mean_of_their_gains() -> None:
    def at(case: str, factors: tuple[float, float], place: int) -> list[Measured]:
        return [
            replace(run, id=f"{run.id}-{n}", load=LOAD | {"concurrency": n})
            for n, factor in zip(CONCURRENCY, factors, strict=True)
            for run in side(case, factor, place)
        ]

    (gain,) = judge(study(at("defaults", (1, 1), 1), at("tuned", (2.0, 0.5), 2))).gains
    assert gain.ratio == pytest.approx(1.0, rel=0.01)


def test_a_column_that_others_give_is_proven_like_any() -> None:
    found = study(side("defaults", 1.0, 1, num_gpus=2), side("tuned", 1.0, 2, num_gpus=1))
    (gain,) = judge(found, goal="output_tok_per_s_per_gpu").gains
    assert gain.ratio == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize(
    ("tuned", "word"), [((800, 800, 1600), "improved"), ((800, 400, 1600), "inconclusive")]
)
def test_a_capacity_that_all_launches_find_alike_is_judged_by_what_was_clear(
    tuned: tuple[int, int, int], word: str
) -> None:
    def at(case: str, found: tuple[int, int, int], place: int) -> list[Measured]:
        told = dict(zip(("capacity_rps", "capacity_low", "capacity_high"), found, strict=True))
        return runs(case, [1000, 1000, 1000], place, **told)

    found = study(at("defaults", (400, 400, 566), 1), at("tuned", tuned, 2))
    (gain,) = judge(found, goal="capacity_rps").gains
    assert gain.word == word
    assert gain.ratio == pytest.approx(2.0)
    assert gain.low == pytest.approx(tuned[1] / 566)
    assert gain.high == pytest.approx(tuned[2] / 400)


def test_capacities_that_are_alike_and_never_clear_have_no_interval() -> None:
    sides = (runs(c, [1000] * 3, p, capacity_rps=x) for c, x, p in
             (("defaults", 30.0, 1), ("tuned", 33.0, 2)))  # fmt: skip
    (gain,) = judge(study(*sides), goal="capacity_rps").gains
    assert (gain.before, gain.after) == (pytest.approx(30), pytest.approx(33))
    assert (gain.word, gain.low) == ("inconclusive", None)
    assert gain.remedy is not None
    assert "load.duration_s" in gain.remedy


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """No winner's curse: whoever won the search, its launches in the proof are new ones."""
    random = np.random.default_rng(1)
    covered, searches, noise = 0, 200, 0.03
    for _ in range(searches):
        # ten settings of 1.1: the search takes the luckiest
        chosen = float((1.1 * random.normal(1, noise, 10)).max())
        assert chosen > 1.0
        mine, theirs = 1000 * random.normal(1, noise, 3), 1100 * random.normal(1, noise, 3)
        found = study(runs("defaults", list(mine), 1), runs("tuned", list(theirs), 2))
        (gain,) = judge(found).gains
        assert gain.low is not None
        assert gain.high is not None
        covered += gain.low <= 1.1 <= gain.high
    assert covered >= 0.9 * searches
