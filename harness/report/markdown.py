"""The report as Markdown, for reviews and pull requests: the same blocks; pictures are linked."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from harness.report.blocks import (
    Banner,
    Block,
    Cell,
    Facts,
    Fold,
    Gallery,
    Head,
    Items,
    Log,
    Page,
    Part,
    Picture,
    Report,
    Table,
    Text,
)

# Markup in Markdown or HTML. Dots, dashes and the like only matter at the start of a line.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~!&])")
_RULE_OR_ITEM = re.compile(r"^([-+=])")
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")


def written(report: Report, folder: Path) -> str:
    """The report as Markdown; `folder` is where it will be written."""
    lines = []
    if report.simulated:
        lines += [f"**{report.simulated}**", ""]
    lines += [f"# {escaped(report.title)}", "", escaped(report.subtitle), ""]
    for section in report.sections:
        lines += [f"## {escaped(section.title)}", "", *_blocks(section.blocks, folder, 3)]
    return "\n".join([*lines, escaped(report.made), ""])


def escaped(text: str) -> str:
    """Text on one line, escaped so that Markdown shows it as it is."""
    told = _SPECIAL.sub(r"\\\1", " ".join(text.split()))
    return _NUMBERED.sub(r"\1\\\2", _RULE_OR_ITEM.sub(r"\\\1", told))


def _blocks(blocks: tuple[Block, ...], folder: Path, level: int) -> Iterator[str]:
    for block in blocks:
        match block:
            case Part() | Fold():
                yield from (f"{'#' * level} {escaped(block.title)}", "")
                yield from _blocks(block.blocks, folder, level + 1)
            case Picture():
                yield from _pictures((block,), folder)
            case Gallery():
                yield from _pictures(block.pictures, folder)
            case _:
                yield from _words(block)
                yield ""


def _words(block: Text | Banner | Page | Items | Log | Facts | Table) -> Iterator[str]:
    match block:
        case Text(text=text):
            yield escaped(text)
        case Banner(word=word, text=text):
            yield f"**{word.upper()}.** {escaped(text)}"
        case Page(markdown=markdown):
            yield markdown
        case Items(items=items):
            yield from (f"- {escaped(item)}" for item in items)
        case Log(text=text):
            yield from _fenced(text)
        case Facts(rows=rows):
            heads = (Head(title="", is_text=True), Head(title="", is_text=True))
            yield from _table(heads, tuple((Cell(text=name), cell) for name, cell in rows))
        case Table(heads=heads, rows=rows):
            yield from _table(heads, rows)


def _fenced(text: str) -> Iterator[str]:
    """The text between fences longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    yield from (f"{fence}text", text, fence)


def _table(heads: tuple[Head, ...], rows: tuple[tuple[Cell, ...], ...]) -> Iterator[str]:
    """The table without the columns that are only drawn."""
    told = [i for i, _ in enumerate(heads) if not any(row[i].interval for row in rows)]
    yield _line([escaped(heads[i].title) for i in told])
    yield _line([":---" if heads[i].is_text else "---:" for i in told])
    yield from (_line([_cell(row[i]) for i in told]) for row in rows)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    text = escaped(cell.text)
    return f"[{text}]({cell.file})" if cell.file else text


def _pictures(pictures: tuple[Picture, ...], folder: Path) -> Iterator[str]:
    for picture in pictures:
        path = os.path.relpath(picture.file, folder).replace(" ", "%20")
        yield from (f"![{escaped(picture.caption)}]({path})", "")
