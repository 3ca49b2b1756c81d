"""What a report is made of. Sections are built of blocks once, and written as HTML and as Markdown.

All text is plain and is escaped where it is written; only a `Page` is Markdown, of our own making.
A path is relative to the report's folder; a picture's is where it lies.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.units import Format

SHORT = 40  # letters of a fact
Tone = Literal["plain", "good", "bad", "doubt", "muted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A ratio's interval in units of its threshold: 0 is no change, past ±1 is a change."""

    at: float
    low: float
    high: float

    @classmethod
    def of(
        cls, ratio: float | None, low: float | None, high: float | None, threshold_frac: float
    ) -> "Interval | None":
        """Of a ratio and its ends; None where there is nothing to draw."""
        if ratio is None or low is None or high is None or threshold_frac <= 0:
            return None
        at, low, high = ((end - 1) / threshold_frac for end in (ratio, low, high))
        return cls(at=at, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a table. `value` is what it is sorted by, if not its text."""

    text: str
    value: float | None = None
    tone: Tone = "plain"
    file: str | None = None  # it links there
    is_code: bool = False
    interval: Interval | None = None  # drawn; its text is told as well
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
    """Markdown that the harness or `profiles` wrote; headings from the fourth level on."""

    markdown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Names and what they are."""

    rows: tuple[tuple[str, Cell], ...]

    @property
    def are_short(self) -> bool:
        """Whether they can stand in columns beside one another."""
        return len(self.rows) > 3 and all(len(cell.text) <= SHORT for _, cell in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    file: Path
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Pictures beside one another where there is room."""

    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Text of others, as it was written, or a command to copy."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """The verdict."""

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
    """Blocks that are shown when asked for."""

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
    simulated: str | None  # the sentence that says so
    sections: tuple[Section, ...]
    made: str  # by what, and when


def text_table(heads: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> Table:
    """A table of words."""
    return Table(
        heads=tuple(Head(title=title, is_text=True) for title in heads),
        rows=tuple(tuple(Cell(text=text) for text in row) for row in rows),
    )


def number(value: float | None, form: Format) -> Cell:
    """A number as it is shown, sorted by what it is."""
    return Cell(text="–" if value is None else form(value), value=value)
