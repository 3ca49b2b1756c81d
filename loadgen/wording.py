"""The rule that a wrong value breaks, in words for people.

pydantic finds the errors, but words them for programmers. `RULES` holds our words, by pydantic's
error type (pydantic-core 2: `list_all_errors`). Messages of our own validators are used as they
are.
"""

from collections.abc import Callable, Mapping
from typing import Any

Context = Mapping[str, Any]
WHOLE, NUMBER, SWITCH, TEXT = "a whole number", "a number", "true or false", "text"
SCALARS = {  # what a setting with a single value takes
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float", "int_parsing_size"), WHOLE),
    **dict.fromkeys(("float_parsing", "float_type"), NUMBER),
    **dict.fromkeys(("bool_parsing", "bool_type"), SWITCH),
    "string_type": TEXT,
}
PATTERNS = {r"^[\w.-]+$": "may have letters, digits, '_', '.' and '-' only"}


def _says(text: str) -> Callable[[Context], str]:
    return lambda _: text


RULES: Mapping[str, Callable[[Context], str]] = {
    **{kind: _says(f"must be {what}") for kind, what in SCALARS.items()},
    "finite_number": _says("must be a finite number"),
    "greater_than_equal": lambda told: f"must be {told['ge']:g} or more",
    "greater_than": lambda told: f"must be more than {told['gt']:g}",
    "less_than_equal": lambda told: f"must be {told['le']:g} or less",
    "less_than": lambda told: f"must be less than {told['lt']:g}",
    "literal_error": lambda told: f"must be {told['expected'].replace(chr(39), '')}",
    "string_too_short": _says("must not be empty"),
    "string_pattern_mismatch": lambda told: PATTERNS.get(
        told["pattern"], f"must match {told['pattern']}"
    ),
    "json_invalid": lambda told: f"is no JSON ({told['error']})",
    "list_type": _says("must be a list: [a, b]"),
    "too_short": lambda told: f"must have {told['min_length']} or more entries",
    "too_long": lambda told: f"must have {told['max_length']} entries or fewer",
    "dict_type": _says("must be names with values: {NAME: VALUE}"),
    "dataclass_type": _says("must be names with values: {NAME: VALUE}"),
}


def rule_of(error: Any) -> str:
    """The rule that one of pydantic's errors is about, such as "must be 1 or more"."""
    kind, value = error["type"], error["input"]
    if kind in SCALARS and isinstance(value, list):
        return f"must be one value, {SCALARS[kind]}"
    if kind in RULES:
        return RULES[kind](error.get("ctx") or {})
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{message[0].lower()}{message[1:]}"
