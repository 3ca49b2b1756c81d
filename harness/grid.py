"""Grids: how a tree of settings that contains lists is expanded.

Under `engine` and `load`, a list in the place of a single value is an axis, and the grid is the
product of all axes. A sweep may have several grids, its `cases`: each is the whole tree with some
settings changed, and possibly axes of its own.

    cases:
      graphs: {}
      eager: {engine: {enforce_eager: true}}
      open: {load: {arrival: poisson, concurrency: null, rate_rps: [5, 10]}}

The command line takes precedence. A single value pins the setting in every case. Several values are
an axis, in the cases that set the setting themselves, or in all if none does. A setting that a case
sets to null remains absent there, whatever the command line says.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import product
from typing import Any

from harness.errors import UserError
from harness.overrides import not_there

SWEPT = ("engine", "load")  # groups whose lists are axes, outer first
Tree = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The points of a case, as trees; `case` is empty if the sweep has no cases."""

    case: str
    axes: dict[str, list[Any]]  # by dotted name
    engines: tuple[Tree, ...]
    loads: tuple[Tree, ...]


def expand(
    groups: Mapping[str, Tree],
    cases: Mapping[str, Tree | None],
    chosen: Sequence[str] | None,
    said: Mapping[str, Any],
) -> list[Grid]:
    """The grids of a sweep whose `engine` and `load` are `groups`.

    `chosen` names the wanted cases, None for all; `said` are the command line's settings. Raises
    UserError for an empty axis, for a case that does not exist or has other contents, and for a
    setting on the command line that no case takes.
    """
    known = {_named(name): case for name, case in cases.items() if case is not None}
    if cases and not known:
        raise UserError("none of this sweep's cases is left for this kind of machine.")
    for name in chosen or ():
        if name not in known:
            raise not_there("case", name, known)
    wanted = {name: case for name, case in known.items() if not chosen or name in chosen}
    settings = {name: _settings(name, case) for name, case in (wanted or {"": {}}).items()}
    claimed = {s for own in settings.values() for s, value in own.items() if value is not None}
    for name, value in said.items():
        if value is not None and all(_does_without(own, name) for own in settings.values()):
            raise UserError(
                f"{name} has no effect: {'every case sets' if len(wanted) > 1 else 'the case sets'}"
                f" it to null ({', '.join(wanted)})."
            )
    return [_grid(groups, name, own, said, claimed) for name, own in settings.items()]


def joined_axes(grids: Sequence[Grid]) -> dict[str, list[Any]]:
    """The axes of all grids: the case outermost, then every axis with all of its values."""
    axes: dict[str, list[Any]] = {}
    if any(grid.case for grid in grids):
        axes["case"] = [grid.case for grid in grids]
    for group in SWEPT:
        for grid in grids:
            for name, values in grid.axes.items():
                if name.startswith(f"{group}."):
                    had = axes.setdefault(name, [])
                    had += [value for value in values if value not in had]
    return axes


def put(tree: Tree, path: Sequence[str], value: Any) -> None:
    """Set the value at a path, creating missing branches."""
    for part in path[:-1]:
        if not isinstance(tree.get(part), dict):
            tree[part] = {}
        tree = tree[part]
    tree[path[-1]] = value


def merge(base: Tree, over: Mapping[str, Any]) -> None:
    """Merge `over` into `base`, branch by branch."""
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = copied(value) if isinstance(value, dict) else value


def copied(tree: Tree) -> Tree:
    """A copy of a tree, whose branches can be changed without changing the original's."""
    return {k: copied(v) if isinstance(v, dict) else v for k, v in tree.items()}


def _named(name: Any) -> str:
    if not isinstance(name, str):  # YAML reads on and off as booleans, and 8 as a number
        raise UserError(f"cases: the name {name} is no text: quote it.")
    return name


def _does_without(own: Mapping[str, Any], setting: str) -> bool:
    """Whether the case sets this setting, or a branch above it, to null."""
    absent = (name for name, value in own.items() if value is None)
    return any(f"{setting}.".startswith(f"{name}.") for name in absent)


def _settings(name: str, case: Tree) -> dict[str, Any]:
    """The settings of a case, by dotted name."""
    if not isinstance(case, dict) or not all(isinstance(v, dict | None) for v in case.values()):
        raise UserError(f"case '{name}' is not of the form {{engine: {{...}}, load: {{...}}}}.")
    if wrong := [key for key in case if key not in SWEPT]:
        raise UserError(f"case '{name}' holds '{wrong[0]}': a case changes engine and load only.")
    return {f"{group}.{leaf}": v for group in case for leaf, v in leaves(case[group] or {})}


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree, by dotted name after the prefix."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _grid(
    groups: Mapping[str, Tree],
    name: str,
    own: Mapping[str, Any],
    said: Mapping[str, Any],
    claimed: Set[str],
) -> Grid:
    """The grid of a case that sets `own`; `claimed` are the settings that any case sets."""
    trees = {group: copied(groups[group]) for group in SWEPT}
    for setting, value in own.items():
        put(trees, setting.split("."), value)
    for setting, value in said.items():
        of_others = isinstance(value, list) and setting in claimed and setting not in own
        is_mine = not of_others and not _does_without(own, setting)
        if setting.partition(".")[0] in SWEPT and is_mine:
            put(trees, setting.split("."), value)
    axes = {f"{group}.{axis}": v for group in SWEPT for axis, v in _axes(trees[group])}
    if empty := [axis for axis, values in axes.items() if not values]:
        raise UserError(f"{empty[0]}: an axis needs at least one value.")
    engines, loads = (tuple(_points(trees[group], dict(_axes(trees[group])))) for group in SWEPT)
    return Grid(case=name, axes=axes, engines=engines, loads=loads)


def _axes(tree: Tree, prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """The lists in a group, by dotted name, in the order of appearance."""
    for name, value in tree.items():
        if isinstance(value, list):
            yield f"{prefix}{name}", value
        elif isinstance(value, dict) and not prefix.startswith("extra."):  # below, it is flag JSON
            yield from _axes(value, f"{prefix}{name}.")


def _points(tree: Tree, axes: Mapping[str, list[Any]]) -> Iterator[Tree]:
    """One tree for each combination of the axes, the last varying fastest."""
    for values in product(*axes.values()):
        point = copied(tree)
        for name, value in zip(axes, values, strict=True):
            put(point, name.split("."), value)
        yield point
