"""A table on a terminal: of its columns, those that fit. What was given up stands in a file."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.table import Table

Row = TypeVar("Row")
GAP = 2  # spaces between two columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown(Generic[Row]):
    """One column. `rank` says which is given up first where the screen is narrow; 0 never is.
    `wraps_at`: the characters that are kept for it, its lines may be broken; without, none is.
    """

    title: str
    text: Callable[[Row], str]
    rank: int = 0
    is_text: bool = False
    wraps_at: int | None = None

    def width(self, rows: Iterable[Row]) -> int:
        """Characters that it takes."""
        if self.wraps_at is not None:
            return self.wraps_at
        return max(map(len, [*self.title.split("\n"), *(self.text(row) for row in rows)]))


def width_of(columns: Sequence[Shown[Row]], rows: Sequence[Row]) -> int:
    """Characters that these columns take side by side."""
    return sum(column.width(rows) + GAP for column in columns) - GAP


def fitted(columns: Sequence[Shown[Row]], rows: Sequence[Row], width: int) -> list[Shown[Row]]:
    """The columns without those that must be given up to fit into so many characters."""
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
    """The table of these columns, without borders. On a screen too narrow even for those that are
    never given up, a value that is cut ends in "…": no number may look like another.
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
