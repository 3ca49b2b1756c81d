"""A table on a terminal with only the columns that fit; a file has the others."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.table import Table

Row = TypeVar("Row")
GAP = 2  # spaces between two columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown(Generic[Row]):
    """One column.

    On a narrow screen, columns are dropped in the order of `rank`; those with 0 never are. With
    `wraps_at`, the column is that many characters wide and its text may wrap; without, it does not.
    """

    title: str
    text: Callable[[Row], str]
    rank: int = 0
    is_text: bool = False
    wraps_at: int | None = None

    def width(self, rows: Iterable[Row]) -> int:
        """Width of the column, in characters."""
        if self.wraps_at is not None:
            return self.wraps_at
        return max(map(len, [*self.title.split("\n"), *(self.text(row) for row in rows)]))


def width_of(columns: Sequence[Shown[Row]], rows: Sequence[Row]) -> int:
    """Width of these columns side by side, in characters."""
    return sum(column.width(rows) + GAP for column in columns) - GAP


def fitted(columns: Sequence[Shown[Row]], rows: Sequence[Row], width: int) -> list[Shown[Row]]:
    """The columns without those that must be dropped to fit into `width` characters."""
    kept = list(columns)
    for column in sorted((c for c in columns if c.rank), key=lambda c: c.rank):
        if width_of(kept, rows) > width:
            kept.remove(column)
    return kept


def terminal_table(
    columns: Sequence[Shown[Row]],
    rows: Sequence[Row],
    title: str | None = None,
    style: Callable[[Row], str] = lambda _: "",
) -> Table:
    """The table of these columns, without borders.

    If the screen is too narrow even for the columns that are never dropped, a truncated value ends
    in "…", so that no number looks like another.
    """
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(
            column.title,
            justify="left" if column.is_text else "right",
            no_wrap=column.wraps_at is None,
            overflow="ellipsis" if column.wraps_at is None else "fold",
        )
    for row in rows:
        table.add_row(*(column.text(row) for column in columns), style=style(row))
    return table
