"""The report card: what each probe measured, what it should have, and a verdict.

PASS, WARN and FAIL follow from the product's limits (conf/hardware). A wrong result, or a probe
that did not finish, is a FAIL for any product. NOT RUN has a reason. MEASURED is a value without a
limit, as all are for a product without a file there. Pure: measurements in, rows out.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.hardware.ceilings import Ceilings
from harness.hardware.limits import Limit, Product
from harness.hardware.probe import Outcome
from harness.hardware.probes.record import Measurement
from harness.units import Format, percent, quantity, significant

Status = Literal["PASS", "WARN", "FAIL", "NOT RUN", "MEASURED"]
Verdict = Literal["PASS", "WARN", "FAIL", "NO VERDICT"]

HEADLINES = re.compile(r"(host|kernels|p2p|steady|memory)\.|scaling\..*\d$|gemm\.\w+\.max$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the card: plain values that any table can show. Numbers are in base units."""

    name: str
    where: str  # "GPU 0", "GPU 0-1", "host"
    status: Status
    value: float | None
    unit: str
    peak_frac: float | None  # of the product's peak
    ceiling_frac: float | None  # of what this card's memory or tensor cores reached when measured
    limit: str
    reason: str  # why it is WARN, FAIL or NOT RUN
    spread_frac: float | None
    time_s: float | None  # of one call
    intensity_flop_per_byte: float | None
    speedup_plain: float | None
    speedup_cpu: float | None
    how: str

    @property
    def is_short(self) -> bool:
        """Whether it is on the short card: all that was judged, and the HEADLINES."""
        is_judged = self.status not in ("MEASURED", "NOT RUN")
        return is_judged or (self.status == "MEASURED" and bool(HEADLINES.match(self.name)))

    @property
    def shown_value(self) -> str:
        """The value with its display unit, e.g. "790 TFLOP/s"."""
        return "–" if self.value is None else quantity(self.value, self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """All rows, and the verdict over them."""

    rows: tuple[Row, ...]
    verdict: Verdict

    @property
    def exit_code(self) -> int:
        """1 for FAIL, else 0; 2 if there was no GPU to judge."""
        has_gpus = any(row.where.startswith("GPU") for row in self.rows)
        return 1 if self.verdict == "FAIL" else 0 if has_gpus else 2

    def short(self) -> list[Row]:
        """The rows for a screen, without the long series of shapes and sizes that have no limit."""
        return [row for row in self.rows if row.is_short]


def make_card(
    measurements: Iterable[Measurement],
    products: Mapping[int, Product | None],
    outcomes: Sequence[Outcome] = (),
    left_out: Mapping[str, str] | None = None,
) -> Card:
    """Judge all measurements. `products` is by GPU; `left_out` says why a family was not run."""
    told = _together(measurements)
    ceilings = Ceilings(told)
    rows = [_row(measurement, _product(measurement, products), ceilings) for measurement in told]
    rows += [_failed(outcome) for outcome in outcomes if outcome.failure is not None]
    rows += [_not_run(family, reason) for family, reason in (left_out or {}).items()]
    return Card(rows=tuple(rows), verdict=verdict(row.status for row in rows))


def _together(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Puts the values of all cards for one name side by side, otherwise keeping the order."""
    told = list(measurements)
    families = list(dict.fromkeys(one.name.partition(".")[0] for one in told))
    names = list(dict.fromkeys(one.name for one in told))
    return sorted(
        told,
        key=lambda one: (
            families.index(one.name.partition(".")[0]),
            names.index(one.name),
            one.gpus,
        ),
    )


def verdict(statuses: Iterable[Status]) -> Verdict:
    """The worst status of any row that was judged."""
    seen = set(statuses)
    for status in ("FAIL", "WARN", "PASS"):
        if status in seen:
            return status
    return "NO VERDICT"


def where(gpus: Sequence[int]) -> str:
    return f"GPU {'-'.join(map(str, gpus))}" if gpus else "host"


def _product(told: Measurement, products: Mapping[int, Product | None]) -> Product | None:
    found = [products.get(gpu) for gpu in told.gpus]
    return found[0] if found and all(product is found[0] for product in found) else None


def _row(told: Measurement, product: Product | None, ceilings: Ceilings) -> Row:
    limit = product.limit_of(told.name) if product else None
    peak = product.peak_of(limit) if product else None
    status, reason = _judged(told, limit, peak)
    return Row(
        name=told.name,
        where=where(told.gpus),
        status=status,
        value=told.value,
        unit=told.unit,
        peak_frac=told.value / peak if told.value is not None and peak else None,
        ceiling_frac=ceilings.share(told),
        limit=limit.text(told.unit) if limit else "",
        reason=reason,
        spread_frac=told.spread_frac,
        time_s=told.time_s,
        intensity_flop_per_byte=(
            told.flops / told.moved_bytes if told.flops and told.moved_bytes else None
        ),
        speedup_plain=told.speedup_plain,
        speedup_cpu=told.speedup_cpu,
        how=told.how or "",
    )


def _judged(told: Measurement, limit: Limit | None, peak: float | None) -> tuple[Status, str]:
    if told.value is None:
        return "FAIL", told.reason or "no value"
    if told.is_wrong:
        assert told.error is not None
        return "FAIL", f"wrong result: error {told.error:.2g}, at most {told.error_limit:.2g}"
    status = limit.status(told.value, peak) if limit else None
    if status is None:
        return "MEASURED", ""
    return (
        status,
        "" if status == "PASS" or limit is None else f"{limit.text(told.unit)}: {limit.source}",
    )


def _failed(outcome: Outcome) -> Row:
    last = (outcome.stderr.splitlines() or [""])[-1].strip()
    reason = f"{outcome.failure}{': ' if last else ''}{last}"
    return _empty(outcome.probe.family, where(outcome.probe.gpus), "FAIL", reason)


def _not_run(family: str, reason: str) -> Row:
    return _empty(family, "–", "NOT RUN", reason)


def _empty(name: str, place: str, status: Status, reason: str) -> Row:
    return Row(
        name=name,
        where=place,
        status=status,
        value=None,
        unit="1",
        peak_frac=None,
        ceiling_frac=None,
        limit="",
        reason=reason,
        spread_frac=None,
        time_s=None,
        intensity_flop_per_byte=None,
        speedup_plain=None,
        speedup_cpu=None,
        how="",
    )


def reasons(card: Card) -> list[str]:
    """One line for each row with a reason; rows not run for the same reason share a line."""
    told = [row for row in card.rows if row.reason and row.status != "NOT RUN"]
    lines = [f"{row.status} {row.name} ({row.where}): {row.reason}" for row in told]
    omitted = [row for row in card.rows if row.status == "NOT RUN"]
    for reason in dict.fromkeys(row.reason for row in omitted):
        names = ", ".join(row.name for row in omitted if row.reason == reason)
        lines.append(f"NOT RUN {names}: {reason}")
    return lines


def cells(row: Row) -> list[str]:
    """A row for people: its cells under `TITLES`."""
    return [
        row.status,
        row.name,
        row.where,
        row.shown_value,
        _shown(row.peak_frac, percent),
        _shown(row.ceiling_frac, percent),
        _shown(row.spread_frac, percent),
        _shown(row.time_s, significant(1e6)),
        row.limit or "–",
    ]


def _shown(value: float | None, form: Format) -> str:
    return "–" if value is None else form(value)


TITLES = (
    "",
    "probe",
    "where",
    "value",
    "% of peak",
    "% of measured",
    "spread %",
    "time µs",
    "limit",
)
NUMBERS = range(3, 8)  # the columns of these that are numbers
