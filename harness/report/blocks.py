"""The blocks of which a report's sections are built, to be written as HTML and as Markdown.

All text is plain and is escaped when it is written; only a `Page` is Markdown, which we wrote
ourselves. Paths are relative to the report's folder, except those of pictures.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.units import Format

SHORT = 40  # most characters of a short fact
Tone = Literal["plain", "good", "bad", "doubt", "muted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A ratio's interval in units of its threshold: 0 is no change, beyond ±1 is a change."""

    at: float
    low: float
    high: float

    @classmethod
    def of(
        cls, ratio: float | None, low: float | None, high: float | None, threshold_frac: float
    ) -> "Interval | None":
        """The interval of a ratio and its ends; None if there is nothing to draw."""
        if ratio is None or low is None or high is None or threshold_frac <= 0:
            return None
        at, low, high = ((end - 1) / threshold_frac for end in (ratio, low, high))
        return cls(at=at, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a table. `value`, if given, is the sort key in place of the text."""

    text: str
    value: float | None = None
    tone: Tone = "plain"
    file: str | None = None  # target of a link
    is_code: bool = False
    interval: Interval | None = None  # to be drawn; another cell has it as text
    codes: tuple[tuple[str, str, Tone], ...] = ()  # validity: code, meaning, tone


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A column's heading."""

    title: str
    meaning: str = ""
    is_text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    heads: tuple[Head, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A paragraph."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Markdown that the harness or `profiles` wrote; its headings begin at the fourth level."""

    markdown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Names with their values."""

    rows: tuple[tuple[str, Cell], ...]

    @property
    def are_short(self) -> bool:
        """Whether they can be set in columns side by side."""
        return len(self.rows) > 3 and all(len(cell.text) <= SHORT for _, cell in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    file: Path
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Pictures, side by side where there is room."""

    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Verbatim text from elsewhere, or a command to copy."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """The verdict, set large."""

    word: str
    text: str
    tone: Tone


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Blocks under a heading."""

    title: str
    blocks: "tuple[Block, ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Blocks that are folded until the reader opens them."""

    title: str
    blocks: "tuple[Block, ...]"


Block = Table | Text | Page | Items | Facts | Picture | Gallery | Log | Banner | Part | Fold


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A chapter of the report."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    title: str
    subtitle: str
    simulated: str | None  # the warning, if anything was simulated
    sections: tuple[Section, ...]
    made: str  # a sentence on what made it, and when


def text_table(heads: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> Table:
    """A table of plain text."""
    return Table(
        heads=tuple(Head(title=title, is_text=True) for title in heads),
        rows=tuple(tuple(Cell(text=text) for text in row) for row in rows),
    )


def number(value: float | None, form: Format) -> Cell:
    """A cell that shows a formatted number and sorts by its value."""
    return Cell(text="–" if value is None else form(value), value=value)
