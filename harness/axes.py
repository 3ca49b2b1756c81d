"""The axes of a sweep: the table column of each, and a run's value on it."""

from collections.abc import Iterable
from typing import Any

from harness.columns import COLUMNS, SETTINGS


def axis_columns(axes: Iterable[str]) -> dict[str, str]:
    """The column of each axis: the last part of its name, or the dotted name if that is taken."""
    axes = list(axes)
    leaves = [name.rpartition(".")[2] for name in axes]
    measures = {column.name for column in COLUMNS} - {column.name for column in SETTINGS}
    return {
        name: leaf if leaves.count(leaf) == 1 and leaf not in measures else name
        for name, leaf in zip(axes, leaves, strict=True)
    }


def swept(axes: dict[str, list[Any]]) -> list[str]:
    """The columns of axes with more than one value, outer first."""
    return [column for name, column in axis_columns(axes).items() if len(axes[name]) > 1]


def axis_values(record: dict[str, Any], axes: Iterable[str]) -> dict[str, Any]:
    """The value of each axis in run.json, by column; None where it does not apply."""
    return {column: value_of(record, name) for name, column in axis_columns(axes).items()}


def value_of(settings: dict[str, Any], name: str) -> Any:
    """The value of a dotted name in a tree of settings; None if it is absent."""
    value: Any = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
