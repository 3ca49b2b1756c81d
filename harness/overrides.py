"""The words of the command line: group choices, settings, and axes, in Hydra's override grammar.

engine=sim                       a group choice
load.concurrency=64              a setting
engine.max_num_seqs=64,128       an axis: also choice(64,128), range(1,9), [64,128]
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from harness.errors import UserError

GROUPS = ("engine", "model", "load", "monitor", "profile", "sweep", "tune")

_CLOSING = {"{": "}", "[": "]"}
_QUOTED = {"{": '{NAME: "..."}', "[": '["...", "..."]'}
_QUOTES = "the shell takes braces and spaces apart unless the word is in quotes, 'NAME={...}'."


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The parsed command line. `settings` has dotted names; an axis is a list of values."""

    choices: dict[str, str]
    settings: dict[str, Any]


def parse(words: Sequence[str]) -> Words:
    """Split the words into group choices and settings. Raises UserError on a malformed word."""
    choices: dict[str, str] = {}
    settings: dict[str, Any] = {}
    for word in words:
        if word.startswith("~"):
            raise UserError(f"'{word}': a setting cannot be removed; set it to null instead.")
        if "=" not in word:
            raise UserError(f"'{word}' is not of the form name=value.")
        name, _, text = word.lstrip("+").partition("=")
        if name in GROUPS:
            choices[name] = text  # taken as written: a path or a hub id needs no quotes
        else:
            if name in settings and _in_braces(text):
                raise UserError(
                    f"{name} is given more than once, the last time as '{text}': {_QUOTES}"
                )
            settings[name] = _value(name, f"{name}={text}")
    return Words(choices=choices, settings=settings)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most likely stands for, also compared by its last part alone.

    Within a group the names are compared without it: all of them have it in common.
    """
    known, group, leaf = list(known), name[: name.find(".") + 1], name.rpartition(".")[2]
    of_group = {key.removeprefix(group): key for key in known if key.startswith(group)}
    rest = name.removeprefix(group) if of_group else name
    if match := get_close_matches(rest, of_group or known, n=1, cutoff=0.6):
        return of_group.get(match[0], match[0])
    by_leaf = {key.rpartition(".")[2]: key for key in reversed(known)}
    if match := get_close_matches(leaf, by_leaf, n=1, cutoff=0.7):
        return by_leaf[match[0]]
    return next((key for key in known if len(leaf) > 2 and key.startswith(f"{rest}_")), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean X?', or nothing."""
    match = nearest(name, known)
    return f" Did you mean '{match}'?" if match else ""


def not_there(what: str, name: str, known: Collection[str], also: str = "") -> UserError:
    """The error for a choice that does not exist; `also` names what is possible besides `known`."""
    there = f"There are: {', '.join(known)}{also}." if known else "There are none."
    noun = "tuning" if what == "tune" else what
    return UserError(f"there is no {noun} '{name}'.{did_you_mean(name, known)} {there}")


def _in_braces(text: str) -> bool:
    """Whether a value looks like one of the words into which a shell splits name={a:1,b:2}."""
    return re.fullmatch(r"\w+:(?!//).+", text) is not None


def _value(name: str, word: str) -> Any:
    try:
        override: Override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        text = word.partition("=")[2]
        # Valid as plain text; only the grammar objects, e.g. to a second "=" or to http://[::1].
        if not set(text) & set("[]{}(),'\"") or text.startswith(("http://", "https://")):
            return text
        if text[-1:] != _CLOSING.get(text[:1], text[-1:]):
            raise UserError(f"'{word}' cannot be read, it breaks off: {_QUOTES}") from None
        reason = str(error).splitlines()[0]
        form = _QUOTED.get(text[:1], '"..."')
        raise UserError(
            f"'{word}' cannot be read ({reason}); quote what is text: '{name}={form}'."
        ) from None
    if not override.is_sweep_override():
        return override.value()
    if not override.is_discrete_sweep():
        raise UserError(f"'{word}': an axis is a list of values, e.g. {name}=1,2,4.")
    # The elements as Hydra would pass them to single runs: typed, not quoted.
    parser = OverridesParser.create()
    return [
        parser.parse_override(f"{name}={text}").value() for text in override.sweep_string_iterator()
    ]
