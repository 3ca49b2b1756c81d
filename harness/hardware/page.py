"""A validation for people: the table on a terminal, card.md, and the plots."""

import re
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from rich.table import Table

from harness.environment import Environment
from harness.hardware.card import NUMBERS, TITLES, Row, cells, reasons
from harness.hardware.drift import Difference
from harness.hardware.roofline import draw_roofline, draw_steady_state
from harness.hardware.saved import Validation
from harness.labels import counted
from harness.terminal import Terminal
from harness.terminal_table import Shown, fitted, terminal_table
from harness.units import span

REHEARSED = "REHEARSAL: the probes' programs ran on the CPU, nothing of this was measured."

ON_SCREEN = (0, 1, 2, 3, 4, 5, 8)  # the card's columns on a screen; card.md has them all
RANKS = {5: 1, 8: 2}  # of these, the ones left out on a narrow screen
LIMIT_OF_FAIL = re.compile(r" \(fail [^)]*\)")
UNBOUND = 1000  # columns


def machine(environment: Environment) -> str:
    """The machine in one line, e.g. "2x NVIDIA H200, driver 580.159.04, 32 CPUs"."""
    gpus = counted([gpu.name for gpu in environment.gpus]) or "no GPU"
    driver = f", driver {environment.driver_version}" if environment.driver_version else ""
    return f"{gpus}{driver}, {environment.host.num_cpus_usable} CPUs"


def show(validation: Validation, found: Sequence[Difference] | None) -> None:
    """Print the short card: what was judged, what was left out, the drift and the verdict."""
    console = Terminal()
    if not console.is_terminal:  # a file has no limit of width
        console.width = UNBOUND
    console.print()
    console.print(_short_table(validation.card.short(), console.width), markup=False)
    console.print()
    for line in reasons(validation.card):
        print(line)
    if found is not None:
        print(drift_text(found, str(validation.document["drift"]["since"])))
    print(_heading(validation).replace("**", ""))
    print(f"card.md, validation.json and plots: {validation.folder}", flush=True)


def _short_table(rows: Sequence[Row], width: int) -> Table:
    """The short card, without those columns of RANKS that do not fit."""
    texts = [[LIMIT_OF_FAIL.sub("", text) for text in cells(row)] for row in rows]
    columns: list[Shown[list[str]]] = [
        Shown(
            title=TITLES[index].replace("% of ", "% of\n"),
            text=itemgetter(index),
            rank=RANKS.get(index, 0),
            is_text=index not in NUMBERS,
        )
        for index in ON_SCREEN
    ]
    return terminal_table(fitted(columns, texts, width), texts)


def drift_text(found: Sequence[Difference], since: str) -> str:
    """One line per difference, the worst first."""
    if not found:
        return f"drift since {since}: none"
    lines = [f"drift since {since}:"]
    lines += [f"  {one.grade}: {one.name}: {one.before} → {one.now}" for one in found]
    return "\n".join(lines)


def write(
    validation: Validation,
    found: Sequence[Difference] | None,
    series: Mapping[int, Any],
    samples: Mapping[str, Any],
) -> None:
    """Write card.md and the plots."""
    title = f"{validation.id}: {_box(validation)}"
    if validation.is_rehearsal:
        title += "\nREHEARSAL on the CPU"
    plots = validation.folder / "plots"
    drawn = [
        draw_roofline(validation.measurements, title, plots / "roofline.png"),
        draw_steady_state(series, samples, title, plots / "steady_state.png"),
    ]
    names = [path.name for path in drawn if path is not None]
    (validation.folder / "card.md").write_text(markdown(validation, found, names))


def markdown(
    validation: Validation, found: Sequence[Difference] | None, plots: Sequence[str]
) -> str:
    """The whole card: first what was judged, then everything that was measured, by family."""
    card = validation.card
    judged = card.short()
    parts = [f"# Validation {validation.id}", _heading(validation)]
    parts += ["\n".join(f"- {line}" for line in lines)] if (lines := _cards(validation)) else []
    if judged:
        parts.append(_table(judged))
    if told := reasons(card):
        lines = [f"- {reason}" for reason in told]
        parts += ["## Failed, doubtful, left out", "\n".join(lines)]
    if found is not None:
        since = validation.document["drift"]["since"]
        lines = [f"- {one.grade}: `{one.name}` {one.before} → {one.now}" for one in found]
        parts += [f"## Drift since {since}", "\n".join(lines) or "None."]
    parts += [f"![{name}](plots/{name})" for name in plots]
    measured = [row for row in card.rows if not row.is_short and row.status != "NOT RUN"]
    for family in dict.fromkeys(row.name.partition(".")[0] for row in measured):
        rows = [row for row in measured if row.name.startswith(f"{family}.")]
        parts += [f"## {family}: everything else that was measured", _table(rows)]
    if kernels := [row for row in card.rows if row.speedup_plain is not None]:
        parts += ["## Kernels against the plain form", _speedups(kernels)]
    return "\n\n".join(parts) + "\n"


def _heading(validation: Validation) -> str:
    took = span(validation.document["took_s"])
    text = f"**{validation.card.verdict}**: {_box(validation)}, {validation.begun_utc} UTC, {took}"
    return f"{REHEARSED}\n\n{text}" if validation.is_rehearsal else text


def _cards(validation: Validation) -> list[str]:
    """A line for each card and each pair in the snapshot."""
    told = validation.document["environment"]
    boards = {board["uuid"]: board for board in told.get("boards", ())}
    lines = []
    for gpu in told["gpus"]:
        board = boards.get(gpu["uuid"], {})
        lines.append(
            f"GPU {gpu['index']}: {gpu['name']}, power limit {_said(gpu['power_limit_w'])} W,"
            f" {_said(board.get('nvlink_links'))} NVLinks of"
            f" {_said(board.get('nvlink_link_bytes_per_s'), 1e-9)} GB/s,"
            f" PCIe {_said(board.get('pcie_generation_max'))}.0 x{_said(board.get('pcie_width'))},"
            f" {_said(board.get('ecc_uncorrected'))} uncorrected ECC errors"
        )
    for pair in told.get("pairs", ()):
        lines.append(
            f"GPU {pair['gpus'][0]} to {pair['gpus'][1]}: {_said(pair['nvlink_links'])} NVLinks,"
            f" {pair['level'] or '?'}, peer to peer"
            f" {'?' if pair['p2p'] is None else 'yes' if pair['p2p'] else 'no'}"
        )
    return lines


def _said(value: float | None, factor: float = 1.0) -> str:
    return "?" if value is None else f"{value * factor:g}"


def _box(validation: Validation) -> str:
    told = validation.document["environment"]
    gpus = counted([gpu["name"] for gpu in told["gpus"]]) or "no GPU"
    torch = told["packages"].get("torch")
    return gpus + (f", PyTorch {torch}" if torch else "")


def _table(rows: Sequence[Row]) -> str:
    lines = [
        "| " + " | ".join(TITLES) + " |",
        "|"
        + "|".join(" ---: " if index in NUMBERS else " --- " for index in range(len(TITLES)))
        + "|",
    ]
    return "\n".join([*lines, *("| " + " | ".join(cells(row)) + " |" for row in rows)])


def _speedups(rows: Sequence[Row]) -> str:
    lines = [
        "| kernel | where | how | FLOP/byte | × plain | × CPU |",
        "| --- | --- | --- |" + " ---: |" * 3,
    ]
    for row in rows:
        values = [
            "–" if value is None else f"{value:,.{digits}f}"
            for value, digits in (
                (row.intensity_flop_per_byte, 2),
                (row.speedup_plain, 1),
                (row.speedup_cpu, 0),
            )
        ]
        lines.append("| " + " | ".join([row.name, row.where, row.how, *values]) + " |")
    return "\n".join(lines)
