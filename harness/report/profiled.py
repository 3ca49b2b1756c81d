"""Profiles: each captured point's findings, strip and files, and the differences between points."""

import os
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

from harness.captures import Capture
from harness.report.blocks import (
    Block,
    Cell,
    Fold,
    Head,
    Page,
    Part,
    Picture,
    Section,
    Table,
    Text,
)
from harness.report.contents import Contents
from harness.units import percent
from profiles.diff import diff
from profiles.diff import page as diff_page
from profiles.page import summary, tables


def profiles(contents: Contents, elsewhere: Collection[Path] = ()) -> Section | None:
    """The section, without the captures in folders `elsewhere`, shown elsewhere in the report."""
    captures = [each for each in contents.captures if each.folder not in elsewhere]
    if not captures:
        return None
    parts = [capture_part(contents, each, contents.folder) for each in captures]
    parts += _diffs(contents, captures)
    return Section(id="profiles", title="Profiles", blocks=tuple(parts))


def capture_part(contents: Contents, capture: Capture, root: Path, where: str = "") -> Part:
    """One capture; `root` is the report's folder, `where` a prefix saying whose capture it is."""
    title = f"{where}{contents.label(capture.run)}, {capture.kind}"
    if capture.reason is not None:
        text = f"Not captured ({capture.record.get('failure')}): {capture.reason}"
        return Part(title=title, blocks=(Text(text=text, tone="bad"),))
    blocks: list[Block] = [Text(text=_taken(capture), tone="muted")]
    if capture.findings is not None:
        blocks.append(Page(markdown=_lowered(summary(capture.findings))))
    if capture.strip is not None:
        caption = "The busiest moments, by class of kernel"
        blocks.append(Picture(file=capture.strip, caption=caption))
    if capture.findings is not None:
        blocks.append(
            Fold(title="All findings", blocks=(Page(markdown=_lowered(tables(capture.findings))),))
        )
    elif capture.page is not None:
        blocks.append(Page(markdown=_lowered(capture.page.splitlines())))
    blocks.append(_files(capture, root))
    return Part(title=title, blocks=tuple(blocks))


def _taken(capture: Capture) -> str:
    seconds, slower = capture.record.get("seconds"), capture.record.get("slower_frac")
    told = f"{seconds:g} s of an extra run of its own" if seconds else "An extra run of its own"
    if slower is not None:
        told += f", {percent(abs(slower))} % {'slower' if slower >= 0 else 'faster'} than measured"
    return f"{told}. No measured number comes from it."


def _lowered(lines: list[str]) -> str:
    """Markdown with its headings moved below those of the report, without its title."""
    kept = [line for line in lines if not line.startswith("# ")]
    return re.sub(r"^(##+) ", r"##\1 ", "\n".join(kept), flags=re.MULTILINE).strip()


def _files(capture: Capture, root: Path) -> Table:
    """The capture's files, and the commands that open them."""
    rows = tuple(
        (
            Cell(text=path.name, file=link(path, root), is_code=True),
            Cell(text=command, is_code=True),
        )
        for path, command in _openers(capture, root)
    )
    return Table(
        heads=(Head(title="file", is_text=True), Head(title="opened by", is_text=True)), rows=rows
    )


def _openers(capture: Capture, root: Path) -> Iterator[tuple[Path, str]]:
    for path in capture.traces:
        told = shlex.quote(_relative(path, root))
        yield (
            path,
            f"nsys-ui {told}" if path.suffix == ".nsys-rep" else f"python -m profiles {told}",
        )
    for name in ("findings.md", "findings.json"):
        if (path := capture.folder / name).is_file():
            told = shlex.quote(_relative(path, root))
            yield path, f"less {told}" if path.suffix == ".md" else f"python -m profiles {told}"


def link(path: Path, root: Path) -> str:
    """A path as a link in a report in folder `root`."""
    return quote(_relative(path, root))


def _relative(path: Path, root: Path) -> str:
    return os.path.relpath(path, root)


def _diffs(contents: Contents, captures: Sequence[Capture]) -> Iterator[Part]:
    """Each captured point compared with the one before it, in the order of the grid."""
    kinds = dict.fromkeys(capture.kind for capture in captures)
    for kind in kinds:
        mine = [c for c in captures if c.kind == kind and c.findings is not None]
        for before, after in pairwise(mine):
            yield diff_part(before, after, contents.label(before.run), contents.label(after.run))


def diff_part(before: Capture, after: Capture, before_label: str, after_label: str) -> Part:
    """What changed, by class of kernel and by step."""
    assert before.findings is not None
    assert after.findings is not None
    told = diff(
        replace(before.findings, source=before_label), replace(after.findings, source=after_label)
    )
    head, _, rest = diff_page(told).partition("\n## ")
    blocks: list[Block] = [Page(markdown=_lowered(head.splitlines()))]
    if rest:
        blocks.append(
            Fold(
                title="By class and by kernel",
                blocks=(Page(markdown=_lowered(f"## {rest}".splitlines())),),
            )
        )
    return Part(title=f"From {before_label} to {after_label}", blocks=tuple(blocks))


def profiler_of(contents: Contents) -> str:
    """The profiler for the machine of this study."""
    has_gpus = bool((contents.about.get("environment") or {}).get("gpus"))
    return "nsys" if has_gpus else "torch"
