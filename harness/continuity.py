"""Whether a study can be continued here: its environment must be the one it was begun in."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from harness.environment import Environment

PARTS = ("gpus", "driver_version", "packages", "variables")  # those that speed depends on


def changed(begun: Mapping[str, Any], now: Environment) -> str | None:
    """The first difference from the snapshot in study.json; None if nothing differs.

    The harness' own version and commit may change.
    """
    here = json.loads(json.dumps(asdict(now)))
    names = (name for name in PARTS if begun.get(name) != here[name])
    return next((f"{name}{_difference(begun.get(name), here[name])}" for name in names), None)


def _difference(before: Any, now: Any) -> str:
    """How the entries of one part of two snapshots differ."""
    if not isinstance(before, dict):
        return ""
    names = [n for n in sorted(before | now) if before.get(n) != now.get(n)]
    return ": " + ", ".join(f"{n} was {before.get(n)}, is {now.get(n)}" for n in names)
