"""The table on a terminal: aligned, with only the columns that fit; table.md has all."""

from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
from rich.console import Console

from harness.axes import swept
from harness.tables import cell, heading, point_columns
from harness.terminal_table import Shown, fitted, terminal_table, width_of

# Shown beside the axes. On a narrow screen they are dropped in this order, last first.
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
    """Print the points, as wide as the terminal allows."""
    rows, columns = points.to_dict("records"), _columns(points, about)
    if width_of(columns, rows) > console.width:
        columns = [replace(column, title=_in_lines(column.title)) for column in columns]
    columns = fitted(columns, rows, console.width)
    title = heading(about, points).replace("**", "")
    console.print(terminal_table(columns, rows, title), markup=False)


def _columns(points: pd.DataFrame, about: dict[str, Any]) -> list[Shown[dict[Any, Any]]]:
    """The axes and the measures. Axes and the first measure are never dropped."""
    measures = [*((about.get("options") or {}).get("columns") or MEASURES)]
    if "validity" not in measures:
        measures.insert(1, "validity")
    wanted = {*swept(about["axes"]), *measures}
    columns = [column for column in point_columns(points, about) if column.name in wanted]
    names = {column.name for column in columns}
    given_up = reversed([name for name in measures if name in names][1:])
    ranks = {name: rank for rank, name in enumerate(given_up, 1)}
    return [
        Shown(
            title=column.title or column.name,
            text=partial(cell, column),
            rank=ranks.get(column.name, 0),
            is_text=column.name == "validity",
            wraps_at=VALIDITY_WIDTH if column.name == "validity" else None,
        )
        for column in columns
    ]


def _in_lines(head: str) -> str:
    """A heading broken to the width of its longest word, because values are shorter than titles."""
    return head.replace("_", "_\n").replace(" ", "\n")
