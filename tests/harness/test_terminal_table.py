from io import StringIO
from operator import itemgetter
from typing import Any

import pytest
from rich.console import Console

from harness.terminal_table import Shown, fitted, terminal_table, width_of

ROWS = [{"a": "1" * 8, "b": "2" * 8, "c": "many short words " * 4}]


def column(name: str, **about: Any) -> Shown[dict[str, str]]:
    return Shown(title=name, text=itemgetter(name), **about)


A, B, C = column("a", rank=2), column("b", rank=1), column("c", is_text=True, wraps_at=10)


def printed(columns: list[Shown[dict[str, str]]], width: int) -> list[str]:
    out = StringIO()
    console = Console(file=out, width=width)
    console.print(terminal_table(columns, ROWS), markup=False)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("width", "names"), [(30, "abc"), (29, "ac"), (20, "ac"), (19, "c"), (1, "c")]
)
def test_the_lowest_rank_is_given_up_first_to_the_character_and_no_rank_never(
    width: int, names: str
) -> None:
    assert "".join(c.title for c in fitted([A, B, C], ROWS, width)) == names


def test_no_more_is_given_up_than_must_be() -> None:
    wide, narrow = column("c", rank=1), column("a", rank=2)
    assert fitted([narrow, wide], ROWS, 18) == [narrow], "the wide one made the room"


@pytest.mark.parametrize("columns", [[A], [A, B], [A, B, C]])
def test_a_table_is_as_wide_as_was_reckoned(columns: list[Shown[dict[str, str]]]) -> None:
    width = width_of(columns, ROWS)
    assert max(map(len, printed(columns, width))) == width
    assert printed(columns, width)[1].split()[0] == ROWS[0]["a"], "no value is broken"


def test_only_a_column_that_may_wrap_has_several_lines() -> None:
    lines = printed([A, C], 20)
    assert len(lines) > 3
    assert [line.split()[0] for line in lines[:2]] == ["a", ROWS[0]["a"]]
    assert all(not line[: len(ROWS[0]["a"])].strip() for line in lines[2:])


def test_a_heading_of_several_lines_is_as_wide_as_its_longest() -> None:
    head = Shown(title="a long\nhead", text=itemgetter("a"))
    assert head.width([]) == len("a long")


def test_a_number_that_does_not_fit_is_seen_to_be_cut() -> None:
    assert printed([A, B], 9)[1].split() == ["111…", "22…"]
