"""Conditions on settings: `{enforce_eager: [null, false], max_num_seqs: < 512}`. Pure.

A condition is a value, a list of values of which one must match, or a comparison (<, <=, >, >=)
with a number or another setting. A setting left to vLLM has no number, so no comparison with it
holds.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

COMPARISON = re.compile(r"\s*(<=|>=|<|>)\s*(\S+)\s*")
SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def names_in(conditions: Mapping[str, Any]) -> list[str]:
    """Every setting that the conditions mention."""
    found = list(conditions)
    for wanted in conditions.values():
        match = COMPARISON.fullmatch(wanted) if isinstance(wanted, str) else None
        if match is not None and not _is_number(match[2]):
            found.append(match[2])
    return found


def hold(conditions: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether all conditions hold."""
    return all(_holds(wanted, settings.get(n), settings) for n, wanted in conditions.items())


def is_none_of(wanted: Any, choices: Sequence[Any]) -> bool:
    """Whether a condition names only values that are not among the choices, so cannot hold."""
    if isinstance(wanted, list):
        return all(is_none_of(one, choices) for one in wanted)
    if isinstance(wanted, str) and COMPARISON.fullmatch(wanted):
        return False
    return not any(_holds(wanted, choice, {}) for choice in choices)


def _holds(wanted: Any, value: Any, settings: Mapping[str, Any]) -> bool:
    if isinstance(wanted, list):
        return any(_holds(one, value, settings) for one in wanted)
    match = COMPARISON.fullmatch(wanted) if isinstance(wanted, str) else None
    if match is None:
        return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)
    sign, text = match.groups()
    other = float(text) if _is_number(text) else settings.get(text)
    if not _is_orderable(value) or not _is_orderable(other):
        return False
    return SIGNS[sign](value, other)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_orderable(value: Any) -> bool:
    return isinstance(value, int | float)
