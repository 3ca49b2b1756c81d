from harness.guard.pairing import blocks, match, points
from tests.harness.guard.studies import LOAD, baseline, candidate, evidence, measured


def test_a_setting_that_neither_sweeps_may_differ() -> None:
    found = match(baseline(), candidate(run={"engine": {"enforce_eager": True}}))
    assert len(found.pairs) == 1
    assert found.pairs[0].point == {"concurrency": 8}


def test_points_are_matched_by_what_either_sweeps() -> None:
    swept = evidence(
        [measured(1, 1.0, engine={"max_num_seqs": n}, point=str(n)) for n in (4, 16, 64)]
    )
    pinned = candidate([1.0], run={"engine": {"max_num_seqs": 16, "enforce_eager": True}})
    found = match(swept, pinned)
    assert [pair.point["concurrency"] for pair in found.pairs] == [8]
    assert found.pairs[0].baseline[0].engine["max_num_seqs"] == 16
    assert (found.baseline_only, found.candidate_only) == (2, 0)


def test_points_are_named_by_what_tells_them_apart() -> None:
    runs = [measured(1, 1.0, engine={"max_num_seqs": n}, point=str(n)) for n in (4, 16)]
    found = match(evidence(runs), evidence(runs, "candidate"))
    assert [pair.point for pair in found.pairs] == [
        {"max_num_seqs": 4, "concurrency": 8},
        {"max_num_seqs": 16, "concurrency": 8},
    ]


def test_another_load_is_another_point() -> None:
    found = match(baseline(), candidate(run={"load": LOAD | {"concurrency": 9}}))
    assert found.pairs == ()
    assert (found.baseline_only, found.candidate_only) == (1, 1)


def interleaved(begun: list[tuple[float, float]]) -> list[tuple[str, str]] | None:
    mine = [measured(i, 1.0, begun_at_s=at) for i, (at, _) in enumerate(begun, 1)]
    theirs = [
        measured(i, 1.0, begun_at_s=at, launch=f"theirs-{i}") for i, (_, at) in enumerate(begun, 1)
    ]
    return blocks(match(evidence(mine), evidence(theirs, "candidate")).pairs[0])


def test_launches_that_alternate_are_blocks_whichever_came_first() -> None:
    assert interleaved([(1, 2), (4, 3), (5, 6)]) == [
        ("launch-1", "theirs-1"),
        ("launch-2", "theirs-2"),
        ("launch-3", "theirs-3"),
    ]


def test_one_study_after_the_other_has_no_blocks() -> None:
    assert interleaved([(1, 11), (2, 12), (3, 13)]) is None


def test_a_launch_that_was_measured_again_later_breaks_the_blocks() -> None:
    assert interleaved([(1, 9), (4, 3), (5, 6)]) is None


def test_one_block_is_none() -> None:
    assert interleaved([(1, 2)]) is None


def test_a_study_alone_has_its_points() -> None:
    [pair] = points(baseline())
    assert pair.baseline == ()
    assert len(pair.candidate) == 5
