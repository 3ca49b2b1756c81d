"""What a box is, against what it should be. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.hardware.card import Card, Row
from harness.hardware.drift import Difference, Grade
from harness.units import plural


def box_conclusion(card: Card, drift: Sequence[Difference]) -> Iterator[str]:
    """The verdict, what was not as it should be, what it sustains, what has changed."""
    judged = [row for row in card.rows if row.status in ("PASS", "WARN", "FAIL")]
    counts = {status: sum(row.status == status for row in judged) for status in _STATUSES}
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    yield f"{card.verdict}: of {plural(len(judged), 'value')} with a limit {told}."
    for status in ("FAIL", "WARN"):
        names = dict.fromkeys(row.name for row in judged if row.status == status)
        if names:
            yield f"{status}: {', '.join(names)}."
    yield from _sustained(card.rows)
    yield from _drifted(drift)


def cards_conclusion(box: Mapping[str, Any], studies: Mapping[str, Mapping[str, Any]]) -> str:
    """How many studies were measured on the very cards of a box; values are environments."""
    mine = _uuids(box)
    same = [name for name, told in studies.items() if _uuids(told) and _uuids(told) <= mine]
    others = [name for name in studies if name not in same]
    if not others:
        return f"All {len(studies)} studies were measured on these cards."
    return (
        f"{len(same)} of {len(studies)} studies were measured on these very cards; of"
        f" {', '.join(others)} this certifies the kind of box, not the box."
    )


_STATUSES = ("PASS", "WARN", "FAIL")


def _sustained(rows: Iterable[Row]) -> Iterator[str]:
    steady = [row for row in rows if row.name in ("steady.gemm", "steady.power")]
    if steady:
        told = ", ".join(f"{row.shown_value} ({row.where})" for row in steady)
        yield f"In steady state: {told}."


def _drifted(found: Sequence[Difference]) -> Iterator[str]:
    telling = [one for one in found if one.grade > Grade.HARMLESS]
    if telling:
        names = ", ".join(one.name for one in telling[:5])
        more = f" and {len(telling) - 5} more" if len(telling) > 5 else ""
        yield f"Against the reference: {telling[0].grade}, by {names}{more}."


def _uuids(environment: Mapping[str, Any]) -> set[str]:
    return {gpu["uuid"] for gpu in environment["gpus"]}
