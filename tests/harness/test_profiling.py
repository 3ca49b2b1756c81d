from pathlib import Path

import pandas as pd
import pytest

from harness.captures import RECORD
from harness.errors import UserError
from harness.profiling.choice import choose
from harness.profiling.profile import is_done
from profiles.config import Profile

AXES = {"engine.max_num_seqs": [16, 64, 256, 1024], "engine.dtype": ["auto"]}


def points() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run": ["a", "b", "c", "d"],
            "status": ["ok", "ok", "ok", "failed"],
            "max_num_seqs": [16, 64, 256, 1024],
            "output_tok_per_s": [7000.0, 26000.0, 27000.0, None],
            "knee": [False, True, False, False],
            "validity": ["", "", "few_samples", "died"],
        }
    )


@pytest.mark.parametrize(
    ("which", "chosen"),
    [
        ("all", ["a", "b", "c"]),
        ("best", ["c"]),
        ("worst", ["a"]),
        ("knee", ["b"]),
        ("max_num_seqs=64", ["b"]),
        ("max_num_seqs=16,status=OK", ["a"]),
    ],
)
def test_points_are_chosen_among_those_that_were_measured(which: str, chosen: list[str]) -> None:
    assert choose(points(), AXES, which) == chosen


def test_points_without_a_knee_have_the_best_for_one() -> None:
    assert choose(points().assign(knee=False), AXES, "knee") == ["c"]


@pytest.mark.parametrize(
    ("void", "best", "worst"), [("c", "b", "a"), ("ac", "b", "b"), ("abc", "c", "a")]
)
def test_a_void_point_is_neither_best_nor_worst_where_others_are_not(
    void: str, best: str, worst: str
) -> None:
    table = points()
    table.loc[table["run"].isin([*void]), "validity"] = "client_busy"
    assert choose(table, AXES, "best") == choose(table.assign(knee=False), AXES, "knee") == [best]
    assert choose(table, AXES, "worst") == [worst]
    assert choose(table, AXES, "all") == ["a", "b", "c"]


def test_nothing_measured_is_nothing_chosen() -> None:
    failed = points().assign(status="failed")
    assert choose(failed, AXES, "knee") == []


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("max_num_seq=64", "there is no column max_num_seq. There are: all, best, worst, knee"),
        ("max_num_seqs=65", "no measured point is like that"),
        ("max_num_seqs=1024", "no measured point is like that"),
    ],
)
def test_a_filter_that_means_no_point_is_refused(which: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        choose(points(), AXES, which)


def test_what_is_no_choice_and_no_filter_is_refused() -> None:
    with pytest.raises(ValueError, match="expected all, best, worst, knee"):
        Profile(kind="nsys", points="fastest")


def test_a_profile_is_made_once_and_a_failed_one_again_only_when_asked_for(tmp_path: Path) -> None:
    assert not is_done(tmp_path, retry=False)
    (tmp_path / RECORD).write_text('{"status": "failed"}')
    assert is_done(tmp_path, retry=False)
    assert not is_done(tmp_path, retry=True)
    (tmp_path / RECORD).write_text('{"status": "ok"}')
    assert is_done(tmp_path, retry=True)
