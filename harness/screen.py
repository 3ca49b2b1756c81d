"""The table on a terminal: aligned, and only what fits; table.md has the rest."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from harness.axes import swept
from harness.tables import cell, heading, point_columns

# Beside the axes, in the order in which they are given up on a narrow screen, last first.
MEASURES = (
    "output_tok_per_s",
    "validity",
    "tpot_p50_s",
    "ttft_p50_s",
    "requests_failed",
    "tpot_p99_s",
    "ttft_p99_s",
    "gain_frac",
    "kv_cache_usage_peak_frac",
    "api_server_cpu_frac",
    "gpu_util_frac",
    "gpu_power_w",
)
VALIDITY_WIDTH = 26  # it may wrap; numbers may not


def print_table(console: Console, points: pd.DataFrame, about: dict[str, Any]) -> None:
    """Print the points as wide as the screen allows."""
    title = heading(about, points).replace("**", "")
    measures = (about.get("options") or {}).get("columns") or MEASURES
    wanted = [*swept(about["axes"]), *measures, "validity"]
    rows = points.to_dict("records")
    columns = [c for c in point_columns(points, about) if c.name in wanted]
    texts = {c.name: [cell(c, row) for row in rows] for c in columns}
    heads = {c.name: c.title or c.name for c in columns}
    widths = _widths(heads, texts)
    if sum(widths.values()) > console.width:
        heads = {name: _in_lines(head) for name, head in heads.items()}
        widths = _widths(heads, texts)
    for name in reversed(measures):
        if sum(widths.values()) > console.width and name in widths and len(widths) > 3:
            del widths[name]
    table = Table(box=None, title=title, title_justify="left", title_style="bold", pad_edge=False)
    shown = [column for column in columns if column.name in widths]
    for column in shown:
        is_text = column.name == "validity"
        table.add_column(
            heads[column.name],
            justify="left" if is_text else "right",
            no_wrap=not is_text,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(cell(column, row) for column in shown))
    console.print(table, markup=False)


def _widths(heads: Mapping[str, str], texts: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Of each column, with the space between two."""
    lines = {name: [*head.split("\n"), *texts[name]] for name, head in heads.items()}
    widths = {name: max(map(len, column)) + 2 for name, column in lines.items()}
    return widths | {"validity": VALIDITY_WIDTH}


def _in_lines(head: str) -> str:
    """A heading as narrow as its longest word: values are shorter than what they are called."""
    return head.replace("_", "_\n").replace(" ", "\n")
