"""What differs between two snapshots or two validations, and whether it matters.

    harmless         has no effect on speed: another commit of the harness, another temperature
    could matter     may explain a difference in speed: a driver, a package, a limit, a variable, a
                     measured value that moved by more than its spread
    not comparable   other hardware: numbers of one say nothing about the other

It works on the JSON of validation.json and study.json, because older files lack what newer ones
have; a part that only one of the two has is left out. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Any

from harness.units import quantity, told


class Grade(IntEnum):
    """How much a difference matters; the worst grade is the largest."""

    HARMLESS = 0
    COULD_MATTER = 1
    NOT_COMPARABLE = 2

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that has changed. `before` and `now` are text for people."""

    name: str
    before: str
    now: str
    grade: Grade


# The first pattern that matches a dotted name gives its grade; what matches none could matter.
GRADES: tuple[tuple[str, Grade], ...] = (
    ("gpus.count", Grade.NOT_COMPARABLE),
    ("gpus.*.name", Grade.NOT_COMPARABLE),
    ("gpus.*.memory_total_bytes", Grade.NOT_COMPARABLE),
    ("boards.*.mig", Grade.NOT_COMPARABLE),
    ("gpus.*.index", Grade.HARMLESS),
    ("boards.*.pci_bus_id", Grade.HARMLESS),
    ("boards.*.temperature_c", Grade.HARMLESS),
    ("boards.*.sm_clock_hz", Grade.HARMLESS),  # of an idle card
    ("boards.*.memory_clock_hz", Grade.HARMLESS),
    ("boards.*.pcie_generation", Grade.HARMLESS),
    ("boards.*.numa_node", Grade.COULD_MATTER),
    ("boards.*.ecc_corrected", Grade.HARMLESS),
    ("harness_version", Grade.HARMLESS),
    ("git_commit", Grade.HARMLESS),
    ("git_dirty", Grade.HARMLESS),
    ("host.memory_bytes", Grade.HARMLESS),
    ("host.container", Grade.HARMLESS),
    ("variables.VLLM_NO_USAGE_STATS", Grade.HARMLESS),
    ("variables.*CACHE*", Grade.HARMLESS),
)
# A measured value has moved if it changed by more than this, and by more than either spread.
MOVED_FRAC = 0.03
IDLE_REASONS = {"gpu_idle"}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Everything that differs between two documents with an `environment`, the worst first.

    If both have `measurements`, these are compared too.
    """
    found = [*_of_environments(before["environment"], now["environment"])]
    if before.get("measurements") and now.get("measurements"):
        found += _of_measurements(before["measurements"], now["measurements"])
    return sorted(found, key=lambda difference: (-difference.grade, difference.name))


def worst(found: Sequence[Difference]) -> Grade | None:
    """The worst grade; None if nothing differs."""
    return max((difference.grade for difference in found), default=None)


def _of_environments(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    known = before.keys() & now.keys()
    was, is_now = (flat({name: told[name] for name in known}) for told in (before, now))
    for name in sorted(was.keys() | is_now.keys()):
        old, new = was.get(name), is_now.get(name)
        if old != new and not _is_unknown_part(name, was, is_now):
            before_text, now_text = _texts(name, old, new)
            yield Difference(name=name, before=before_text, now=now_text, grade=grade(name))


def flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    """An environment by dotted names. Cards go by position: one may have replaced another."""
    found: dict[str, Any] = {}
    for name, value in environment.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        elif name in ("gpus", "boards", "pairs"):
            found[f"{name}.count"] = len(value)
            for place, told in enumerate(value):
                found |= {f"{name}.{place}.{key}": inner for key, inner in told.items()}
        else:
            found[name] = value
    for name, value in found.items():
        if name.endswith("throttle_reasons"):
            found[name] = sorted(set(value or ()) - IDLE_REASONS)
        elif isinstance(value, tuple):
            found[name] = list(value)
    return found


def _is_unknown_part(name: str, was: Mapping[str, Any], is_now: Mapping[str, Any]) -> bool:
    """Whether only one of the two harness versions recorded this part, so it cannot be compared.

    Packages and variables are named by the machine, not by the harness: if one is absent, that is a
    difference. Missing cards show in their count.
    """
    if name.startswith(("packages.", "variables.")):
        return False
    return name not in was or name not in is_now


def grade(name: str) -> Grade:
    """How much a difference in this part matters."""
    found = (g for pattern, g in GRADES if fnmatchcase(name, pattern))
    return next(found, Grade.COULD_MATTER)


def _of_measurements(
    before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> Iterator[Difference]:
    was = {_key(told): told for told in before}
    for new in now:
        old = was.get(_key(new))
        if old is None or old["value"] is None or new["value"] is None or not old["value"]:
            continue
        change = new["value"] / old["value"] - 1
        spread = max(old.get("spread_frac") or 0.0, new.get("spread_frac") or 0.0)
        if abs(change) > max(MOVED_FRAC, spread):
            yield Difference(
                name=f"measured.{new['name']}{_gpus(new)}",
                before=quantity(old["value"], old["unit"]),
                now=f"{quantity(new['value'], new['unit'])} ({change:+.1%})",
                grade=Grade.COULD_MATTER,
            )


def _key(told: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    return told["name"], tuple(told["gpus"])


def _gpus(told: Mapping[str, Any]) -> str:
    return f" on GPU {'-'.join(map(str, told['gpus']))}" if told["gpus"] else ""


def _texts(name: str, old: Any, new: Any) -> tuple[str, str]:
    """Both values for people, or as stored if a display unit would round the difference away."""
    shown = _text(name, old), _text(name, new)
    return shown if shown[0] != shown[1] else (str(old), str(new))


def _text(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return told(name, value)
    return str(value)
