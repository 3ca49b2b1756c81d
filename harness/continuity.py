"""Whether a study can go on here: what it was begun with is what is here."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from harness.environment import Environment

PARTS = ("gpus", "driver_version", "packages", "variables")  # what speed depends on


def changed(begun: Mapping[str, Any], now: Environment) -> str | None:
    """What differs from the snapshot in study.json, the first of it; None if nothing does.

    The harness' own version and commit may move on.
    """
    here = json.loads(json.dumps(asdict(now)))
    names = (name for name in PARTS if begun.get(name) != here[name])
    return next((f"{name}{_difference(begun.get(name), here[name])}" for name in names), None)


def _difference(before: Any, now: Any) -> str:
    """Which entries of two parts of a snapshot differ, and how."""
    if not isinstance(before, dict):
        return ""
    names = [n for n in sorted(before | now) if before.get(n) != now.get(n)]
    return ": " + ", ".join(f"{n} was {before.get(n)}, is {now.get(n)}" for n in names)
