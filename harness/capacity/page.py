"""The results of a study's searches for people: capacity.md, and plots of their curves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

from harness.axes import axis_values, swept
from harness.capacity.curves import draw_curves
from harness.capacity.found import Capacity, capacities
from harness.capacity.text import doubt, floor, name_of, shown
from harness.identity import setting_of
from harness.slo import promise_text
from harness.study import SavedRun, Study
from harness.tables import SIMULATED, heading
from harness.units import named_values

TABLE = "capacity.md"
HEADS = (
    *("", "launch", "capacity", "clearly kept at", "clearly missed at", "breaks first"),
    *("probes", "ended"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A search, with a label that distinguishes its engine setting and load."""

    found: Capacity
    label: str


def write_capacity(study: Study) -> str | None:
    """Write the table and the plots; returns the table, or None if nothing was searched.

    The study's own table must already exist.
    """
    saved = {str(run.record["id"]): run for run in study.runs()}
    named = [
        Named(found=found, label=_label(saved[found.probes[0].run], study.about))
        for found in capacities(study)
        if found.probes
    ]
    if not named:
        return None
    text = page(named, simulated=bool(study.about["simulated"]))
    with study.draft(TABLE) as path:
        path.write_text(text)
    runs = pd.read_parquet(study.folder / "table.parquet")
    for is_open, name in ((True, "rate"), (False, "concurrency")):
        mine = [(one.label, one.found) for one in named if one.found.load.is_open == is_open]
        if mine:
            title, path = heading(study.about, runs), study.folder / f"plots/capacity-{name}.png"
            draw_curves(mine, runs, title, path)
    return text


def page(named: Sequence[Named], *, simulated: bool) -> str:
    """One row per launch; below several launches of an engine setting, their median and spread."""
    slo = named[0].found.slo
    lines = [
        *([f"**{SIMULATED}**", ""] if simulated else []),
        f"Capacity: the largest load at which {promise_text(slo)}.",
        "",
        f"| {' | '.join(HEADS)} |",
        "|---|---:|---:|---:|---:|---|---:|---|",
    ]
    groups: dict[tuple[str, str], list[Named]] = {}
    for one in named:
        groups.setdefault((setting_of(one.found.launch), one.found.point), []).append(one)
    for mine in groups.values():
        lines += [_line(one) for one in mine]
        lines += _together(mine)
    return "\n".join([*lines, *_floors(named), *_doubts(named), ""])


def _line(one: Named) -> str:
    found, known = one.found, one.found.bracket
    rates = [shown(x, found.load) for x in (known.best, known.low, known.high)]
    breaks = "–" if found.breaks_first is None else name_of(found.breaks_first)
    launch, probes = found.launch.rpartition("-")[2], str(len(found.probes))
    return f"| {' | '.join((one.label, launch, *rates, breaks, probes, found.reason))} |"


def _together(mine: Sequence[Named]) -> Iterator[str]:
    values = [one.found.value for one in mine if one.found.value is not None]
    if len(mine) > 1 and values:
        middle, most, least = median(values), max(values), min(values)
        text = shown(middle, mine[0].found.load)
        of = f"median of {len(values)}" + (f" of {len(mine)}" if len(values) < len(mine) else "")
        spread = f"spread {(most - least) / middle:.1%}"
        yield f"| {mine[0].label} | {of} | **{text}** | | | | | {spread} |"


def _floors(named: Sequence[Named]) -> Iterator[str]:
    """The latencies of one request alone, where these already miss the limits."""
    for one in named:
        if one.found.is_too_much:
            yield ""
            yield f"{one.label}: these limits hold at no load: {floor(one.found)}."


def _doubts(named: Sequence[Named]) -> Iterator[str]:
    """Where our own side may have set the capacity."""
    for one in named:
        if (why := doubt(one.found)) is not None:
            launch = one.found.launch.rpartition("-")[2]
            yield ""
            yield f"{one.label}, launch {launch}: {why}."


def _label(run: SavedRun, about: dict[str, Any]) -> str:
    values = axis_values(run.record, about["axes"])
    told = [n for n in swept(about["axes"]) if n not in ("case", "concurrency", "rate_rps")]
    settings = {name: values[name] for name in told if values[name] is not None}
    if told:
        return named_values(settings) or "defaults"
    return str(run.record.get("case") or run.record["engine"]["kind"])
