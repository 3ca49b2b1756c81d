"""The order of a duel, from two plans; no server anywhere."""

from itertools import groupby, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.duel.blocks import Block, Schedule, looks, schedule
from harness.errors import UserError
from tests.harness.builders import plan

AXES = st.lists(st.integers(1, 64), min_size=1, max_size=3, unique=True)


def words(launches: int, seqs: list[int], streams: list[int], *more: str) -> list[str]:
    return [
        f"repeats.launches={launches}",
        f"engine.max_num_seqs={','.join(map(str, seqs))}",
        f"load.concurrency={','.join(map(str, streams))}",
        *more,
    ]


def made(launches: int = 3, *more: str) -> Schedule:
    """One engine setting, one load; `more` is the candidate's."""
    common = [f"repeats.launches={launches}", "load.concurrency=2"]
    return schedule(plan(*common), plan(*common, *more))


@given(
    launches=st.integers(2, 5),
    mine=AXES,
    theirs=AXES,
    streams=AXES,
    order=st.sampled_from(["listed", "shuffled"]),
)
@settings(max_examples=15)
def test_every_block_holds_the_same_repeat_of_the_same_point_and_repeats_follow_each_other(
    launches: int, mine: list[int], theirs: list[int], streams: list[int], order: str
) -> None:
    # one value each is no axis: what differs is the change
    common = set(mine) & set(theirs) if len(mine) + len(theirs) > 2 else {0}
    sides = [plan(*words(launches, seqs, streams, f"order={order}")) for seqs in (mine, theirs)]
    if not common:
        with pytest.raises(UserError, match="no point that both sides have"):
            schedule(*sides)
        return
    found = schedule(*sides)
    assert len(found.blocks) == launches * len(common)
    assert [repeat for repeat, _ in groupby(b.repeat for b in found.blocks)] == list(
        range(1, launches + 1)
    )
    for block in found.blocks:
        assert block.baseline.repeat == block.candidate.repeat == block.repeat
        if common != {0}:
            assert block.baseline.engine == block.candidate.engine
        loads = [sorted(run.load.concurrency for run in x.runs) for _, x in block.turns]
        assert loads[0] == loads[1] == sorted(streams)
        seeds = [{run.load.concurrency: run.seed for run in x.runs} for _, x in block.turns]
        assert seeds[0] == seeds[1], "the same prompts"


def test_who_is_first_takes_turns() -> None:
    firsts = [block.turns[0][0] for block in made(4).blocks]
    assert firsts == ["baseline", "candidate", "baseline", "candidate"]


def test_both_sides_of_the_same_are_two_studies_of_one_duel() -> None:
    found = made()
    mine, theirs = found.baseline, found.candidate
    assert [run.id for run in mine.runs] == [run.id for run in theirs.runs]
    assert mine.id.endswith("-baseline")
    assert theirs.id.endswith("-candidate")
    assert mine.id.partition("-")[0] == theirs.id.partition("-")[0]


@pytest.mark.parametrize("said", [(4,), (3, "engine.max_num_seqs=4")])
def test_another_budget_or_another_side_is_another_duel(said: tuple[Any, ...]) -> None:
    other = made(*said)
    assert other.candidate.id != made(3).candidate.id
    assert other.baseline.id != made(3).baseline.id


def test_what_only_one_side_has_is_left_out_and_said() -> None:
    baseline = plan("load.concurrency=1,2,4", "repeats.launches=2")
    found = schedule(baseline, plan("load.concurrency=4,8", "repeats.launches=2"))
    assert {run.load.concurrency for run in found.baseline.runs} == {4}
    assert {run.load.concurrency for run in found.candidate.runs} == {4}
    assert found.notes == (
        "2 points of the baseline only: not measured",
        "1 point of the candidate only: not measured",
    )


def test_a_share_of_a_capacity_is_left_out_and_said() -> None:
    words = ["sweep=baseline", "repeats.launches=2"]
    found = schedule(plan(*words), plan(*words, "engine.max_num_seqs=4"))
    assert {run.load.rate_frac for run in found.candidate.runs} == {None}
    assert "at a share of its capacity" in found.notes[0]


def test_what_this_machine_has_not_is_left_out_and_said() -> None:
    words = ["repeats.launches=2", "engine.tensor_parallel_size=1,3"]
    found = schedule(plan(*words), plan(*words, "engine.max_num_seqs=4"))
    assert [block.candidate.engine.tensor_parallel_size for block in found.blocks] == [1, 1]
    assert "candidate, not possible here: engine.tensor_parallel_size=3" in found.notes[-1]
    with pytest.raises(UserError, match="candidate, not possible here"):
        made(2, "engine.tensor_parallel_size=3")


def test_points_of_both_sides_are_named_where_none_is_common() -> None:
    with pytest.raises(UserError) as told:
        schedule(plan("load.concurrency=1"), plan("load.concurrency=2,4"))
    assert "load.concurrency=1 (baseline), load.concurrency=2,4 (candidate)" in str(told.value)


def test_the_time_is_that_of_both_sides() -> None:
    found = made(3)
    least_s, most_s = found.span_s(3)
    assert (least_s, most_s) == pytest.approx([2 * s for s in found.candidate.span_s()])
    assert found.span_s(1)[0] == pytest.approx(least_s / 3)


@given(st.integers(2, 9), st.integers(2, 300))
def test_looks_grow_are_few_and_end_with_the_budget(first: int, budget: int) -> None:
    found = looks(first, budget)
    assert found[-1] == budget
    assert all(a < b for a, b in pairwise(found))
    assert found[0] == min(first, budget)
    assert len(found) <= 13


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (2, (2,)),
        (3, (3,)),
        (4, (3, 4)),
        (5, (3, 5)),
        (12, (3, 5, 8, 12)),
        (20, (3, 5, 8, 12, 18, 20)),
    ],
)
def test_looks_are_fixed_beforehand(budget: int, expected: tuple[int, ...]) -> None:
    assert looks(3, budget) == expected


def test_a_block_of_an_even_repeat_begins_with_the_candidate() -> None:
    block: Block = made(2).blocks[1]
    assert [name for name, _ in block.turns] == ["candidate", "baseline"]
