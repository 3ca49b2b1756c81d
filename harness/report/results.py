"""What was measured: table, plots and timelines, and the reasons to doubt them."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from harness.capacity.page import TABLE
from harness.columns import COLUMNS, Column
from harness.report.blocks import (
    Block,
    Cell,
    Gallery,
    Head,
    Items,
    Page,
    Part,
    Picture,
    Section,
    Table,
    Text,
    Tone,
)
from harness.report.contents import Contents
from harness.tables import cell, point_columns
from harness.tune.plots import PREFIX
from harness.units import plural, whole
from harness.validity import CODES, FATAL
from harness.void import is_void

UNKNOWN = "a code of another version of the harness"
LEFT_OUT = "of runs that the row leaves out"


def in_short(contents: Contents) -> Section:
    """The study in a few sentences, for reports without a verdict on top."""
    return Section(id="short", title="In short", blocks=(Items(items=tuple(_in_short(contents))),))


def _in_short(contents: Contents) -> Iterator[str]:
    runs, points = contents.runs, contents.points
    measured = points[(points["status"] == "ok") & points["output_tok_per_s"].notna()]
    good = measured[~is_void(measured)]
    num_ok = int((runs["status"] == "ok").sum())
    launches = runs["launch"].nunique()
    skipped = f", {contents.skipped} not needed" if contents.skipped else ""
    yield (
        f"{num_ok} of {plural(len(contents.about['runs']), 'run')} measured{skipped}:"
        f" {plural(len(points), 'point')}, {plural(launches, 'launch')}."
    )
    if len(good):
        best = good.iloc[int(good["output_tok_per_s"].astype(float).argmax())].to_dict()
        shown = {c.name: cell(c, best) for c in COLUMNS if c.title and c.name in best}
        at = f" at {contents.label(str(best['run']))}" if len(points) > 1 else ""
        what = "The most output" + (", void points left out" if len(good) < len(measured) else "")
        yield (
            f"{what}: {shown['output_tok_per_s']} tok/s{at},"
            f" TTFT p50 {shown['ttft_p50_s']} ms, TPOT p50 {shown['tpot_p50_s']} ms."
        )
    elif len(measured):
        yield "No point can be compared with another: all that were measured are void."
    fatal = {c for codes in points["validity"] for c in codes.split() if _code(c)[1] == "bad"}
    if fatal:
        yield f"Not to be used for a comparison, where marked: {', '.join(sorted(fatal))}."
    if len(runs) == len(points):
        yield "Each point was measured once: how far launches lie apart is not known."
    if not contents.saved:
        yield (
            "The raw samples are not there: tables and plots are as they were stored, not made"
            " again."
        )


def table(contents: Contents) -> Section:
    """One row per point, with the columns of table.md."""
    points = contents.points
    shown = point_columns(points, contents.about)
    heads = tuple(
        Head(title=c.title or c.name, meaning=c.meaning, is_text=c.name == "validity")
        for c in shown
    )
    rows = tuple(tuple(_cell(column, row) for column in shown) for row in points.to_dict("records"))
    blocks: list[Block] = [Table(heads=heads, rows=rows)]
    if len(contents.runs) > len(points):
        text = "Each row is the median of its good runs."
        if points["validity"].str.contains("(", regex=False).any():
            text += f" Codes in parentheses are {LEFT_OUT}."
        blocks.append(Text(text=text, tone="muted"))
    blocks += [Text(text=f"Note: {note}.", tone="bad") for note in contents.left_out]
    files = [name for name in ("table.parquet", "table.csv") if (contents.folder / name).is_file()]
    links = " and ".join(f"`{name}`" for name in files)
    blocks.append(Page(markdown=f"All columns, one row a run, in base units: {links}."))
    return Section(id="table", title="Table", blocks=tuple(blocks))


def _cell(column: Column, row: Mapping[Any, Any]) -> Cell:
    text, value = cell(column, dict(row)), row[column.name]
    if column.name == "validity":
        return validity_cell(text)
    is_number = isinstance(value, int | float) and not math.isnan(value)
    if column.name == "output_tok_per_s" and row["status"] != "ok":
        return Cell(text=text, tone="bad")
    return Cell(text=text, value=float(value) if is_number else None)


def validity_cell(codes: str) -> Cell:
    told = tuple((code, *_code(code)) for code in codes.split())
    return Cell(text=codes or "–", codes=told)


def _code(code: str) -> tuple[str, Tone]:
    """A code's meaning, and how bad it is."""
    name = code.strip("()")
    if name not in CODES:
        return UNKNOWN, "doubt"
    if name != code:
        return f"{LEFT_OUT}: {CODES[name].meaning}", "doubt"
    return CODES[code].meaning, "bad" if CODES[code].fatal else "doubt"


def capacity(contents: Contents) -> Section | None:
    """Each launch's capacity under latency limits."""
    file = contents.folder / TABLE
    if not file.is_file():
        return None
    blocks = (Page(markdown=file.read_text()),)
    return Section(id="capacity", title="Capacity", blocks=blocks)


def plots(contents: Contents) -> Section | None:
    timelines = {contents.timeline(run) for run in contents.runs["run"]}
    pictures = tuple(
        Picture(file=path, caption=path.stem.replace("_", " "))
        for path in contents.plots
        if path not in timelines and not path.name.startswith(PREFIX)  # shown with the answer
    )
    if not pictures:
        return None
    return Section(id="plots", title="Plots", blocks=(Gallery(pictures=pictures),))


def timelines(contents: Contents) -> Section | None:
    pictures = tuple(
        Picture(file=path, caption=_caption(contents.label(run), run))
        for run in contents.runs["run"]
        if (path := contents.timeline(run)) is not None
    )
    if not pictures:
        return None
    about = "What client, server, GPUs and processes did in each run, on one clock."
    blocks = (Text(text=about), Gallery(pictures=pictures))
    return Section(id="timelines", title="Timelines", blocks=blocks)


def _caption(label: str, run: str) -> str:
    return label if run in label else f"{label} (run {run})"


def validity(contents: Contents) -> Section:
    """The reasons to doubt the numbers: validity codes, and notes from the monitors."""
    blocks = (_codes(contents), *_notes(contents))
    return Section(id="validity", title="Validity", blocks=blocks)


def _codes(contents: Contents) -> Block:
    """Each code that occurs: what it means, and where."""
    where: dict[str, list[str]] = {}
    for row in contents.points.to_dict("records"):
        for code in row["validity"].split():
            where.setdefault(code, []).append(contents.label(str(row["run"])))
    if not where:
        return Text(text="No code applies to any row.")
    num = len(contents.points)
    ordered = sorted(where, key=lambda code: (_code(code)[1] != "bad", -len(where[code])))
    heads = ("code", "what it says against the number", "comparison", "points", "where")
    rows = tuple(
        (
            Cell(text=code, codes=((code, *_code(code)),)),
            Cell(text=_code(code)[0]),
            # `compare` leaves no run out
            Cell(text="refused", tone="bad") if code.strip("()") in FATAL else Cell(text="allowed"),
            Cell(text=f"{whole(len(where[code]))} of {num}", value=len(where[code])),
            Cell(text="all" if len(where[code]) == num else "; ".join(where[code])),
        )
        for code in ordered
    )
    return Table(heads=tuple(Head(title=h, is_text=h != "points") for h in heads), rows=rows)


def _notes(contents: Contents) -> Iterator[Block]:
    """Notes from the monitors on what they had to leave out."""
    notes = Counter(note for run in contents.saved for note in run.record.get("monitor_notes", ()))
    if notes:
        items = tuple(f"{note} ({plural(n, 'run')})" for note, n in notes.items())
        yield Part(title="What the monitors noted", blocks=(Items(items=items),))
