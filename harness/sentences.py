"""Error messages for wrong settings: a sentence with the setting, the broken rule, and its origin.

The wording of the rules is in loadgen/wording.py, because loadgen uses it too.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.grid import SWEPT
from harness.overrides import Words, did_you_mean
from loadgen.wording import SCALARS, rule_of

AXES = f"only {' and '.join(f'{group}.*' for group in SWEPT)} settings can be axes"
# Below these, any name may be used.
FREE = ("env", "extra", "header_env", "plots", "space", "forbidden")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the values of settings came from."""

    words: Words
    study: str  # its file: sweep/NAME or tune/NAME
    kind: str

    def of(self, name: str) -> str:
        said = self.words.settings
        if any(f"{name}.".startswith(f"{s}.") or s.startswith(f"{name}.") for s in said):
            return "on the command line"
        group = name.partition(".")[0]
        chosen = self.words.choices.get(group, self.kind if group == "engine" else None)
        files = [f"{self.study}.yaml", f"{group}/{chosen}.yaml" if chosen else "config.yaml"]
        return f"in {' or '.join(dict.fromkeys(files))}"


def sentence(error: Any, group: str, known: Sequence[str], origin: Origin) -> str:
    """A sentence for one of pydantic's errors; `known` are all setting names of the group."""
    path = [str(part) for part in error["loc"] if part != "[key]" and not isinstance(part, int)]
    is_unknown = error["type"] == "unexpected_keyword_argument"
    name = _name_of(path, group, known, is_unknown=is_unknown)
    if not path:  # a rule about several settings, which it names itself, perhaps without the group
        rule = rule_of(error)
        is_named = rule.startswith(group) or f"{group}." in rule
        return f"{rule if is_named else f'{group}: {rule}'} ({origin.of(group)})"
    if is_unknown and name not in known:
        hint = "" if path[0] in FREE else did_you_mean(name, known)
        return f"there is no setting '{name}' ({origin.of(name)}).{hint}"
    if error["type"].startswith("missing"):
        return f"{name} is needed: set {name}=..."
    if "[key]" in error["loc"]:
        return f"{name}: a name {rule_of(error)} ({origin.of(name)})"
    rule = f"does not go with {path[-2]}" if is_unknown else _rule_of_setting(error, name, known)
    return f"{name}={shown(error['input'])}: {rule} ({origin.of(name)})"


def _rule_of_setting(error: Any, name: str, known: Sequence[str]) -> str:
    """The broken rule, with details that depend on the setting's name and its neighbours."""
    rule = rule_of(error)
    inner = [n.removeprefix(f"{name}.") for n in known if n.startswith(f"{name}.")]
    if error["type"] == "dataclass_type" and inner:
        return f"must be names with values, of: {', '.join(n for n in inner if '.' not in n)}"
    is_axis = isinstance(error["input"], list) and error["type"] in (*SCALARS, "literal_error")
    return f"{rule}; {AXES}" if is_axis and name.partition(".")[0] not in SWEPT else rule


def shown(value: Any) -> str:
    """A value as it would be written on the command line."""
    match value:
        case None | bool():
            return json.dumps(value)
        case dict():
            return "{" + ", ".join(f"{name}: {shown(inner)}" for name, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(shown, value)) + "]"
    return str(value)


def _name_of(path: list[str], group: str, known: Sequence[str], *, is_unknown: bool) -> str:
    """The dotted name for people of a place in a schema, without a union's tag."""

    def dotted(parts: Sequence[str]) -> str:
        return ".".join([group, *parts] if group else parts)

    if path and path[0] in FREE:
        return dotted(path)
    untagged = [*path[:-2], path[-1]] if len(path) > 1 else path
    if is_unknown:
        has_parts = any(name.startswith(f"{dotted(path[:-1])}.") for name in known)
        return dotted(path if len(path) == 1 or has_parts else untagged)
    tries = [path, untagged, *(path[:end] for end in range(len(path) - 1, 0, -1))]
    return next((dotted(parts) for parts in tries if dotted(parts) in known), dotted(path))
