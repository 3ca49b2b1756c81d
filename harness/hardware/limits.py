"""What a product should reach: conf/hardware/*.yaml, one file per product name in NVML.

    product: NVIDIA H200
    peaks:
      bf16: {value: 989.5e12, source: NVIDIA's data sheet …}
    limits:
      gemm.bf16.8192: {peak: bf16, warn_below: 0.72, fail_below: 0.6, source: …}

Names may contain `*`; the first entry that matches a measurement counts. `warn_below` and
`fail_below` are shares of the peak if there is one, else values in base units; `warn_above` and
`fail_above` are always values. An entry with only a peak gives a share but no verdict.
"""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from harness.conf_files import conf_dirs, read
from harness.errors import UserError
from harness.schemas import validated
from harness.units import quantity
from loadgen.config import STRICT
from loadgen.wording import rule_of

Status = Literal["PASS", "WARN", "FAIL"]


@dataclass(kw_only=True, config=STRICT)
class Peak:
    """What the product should reach by specification, in base units, and the source."""

    value: float = Field(gt=0)
    source: str = Field(min_length=1)


@dataclass(kw_only=True, config=STRICT)
class Limit:
    """When a measurement is a warning, and when a failure."""

    peak: str | None = None
    warn_below: float | None = None
    fail_below: float | None = None
    warn_above: float | None = None
    fail_above: float | None = None
    source: str = ""

    def status(self, value: float, peak: float | None) -> Status | None:
        """PASS, WARN or FAIL; None without a limit."""
        low = value if peak is None else value / peak
        bounds = (self.warn_below, self.fail_below, self.warn_above, self.fail_above)
        if all(bound is None for bound in bounds):
            return None
        if _below(low, self.fail_below) or _above(value, self.fail_above):
            return "FAIL"
        if _below(low, self.warn_below) or _above(value, self.warn_above):
            return "WARN"
        return "PASS"

    def text(self, unit: str) -> str:
        """For the card: "≥ 72.0 % (fail 60.0 %)" of a peak; in its unit, "≥ 18" or "≤ 2.00 GB"."""
        low = _bound("≥", "share" if self.peak else unit, self.warn_below, self.fail_below)
        return " ".join(filter(None, (low, _bound("≤", unit, self.warn_above, self.fail_above))))


@dataclass(kw_only=True, config=STRICT)
class Product:
    """The peaks and limits of one product: one file."""

    product: str = Field(min_length=1)
    peaks: dict[str, Peak] = Field(default_factory=dict)
    limits: dict[str, Limit] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, limit in self.limits.items():
            if limit.peak is not None and limit.peak not in self.peaks:
                raise ValueError(f"limits: {name}: there is no peak '{limit.peak}'")
            if limit.text("1") and not limit.source:
                raise ValueError(f"limits: {name}: a limit needs its source")

    def limit_of(self, name: str) -> Limit | None:
        """The first entry that matches this name."""
        return next((x for pattern, x in self.limits.items() if fnmatchcase(name, pattern)), None)

    def peak_of(self, limit: Limit | None) -> float | None:
        return None if limit is None or limit.peak is None else self.peaks[limit.peak].value


def read_products(extra_conf_dir: Path | None = None) -> dict[str, Product]:
    """The limits of every product, by its name. Raises UserError for an invalid file."""
    found = {}
    for path in [
        p
        for folder in conf_dirs(extra_conf_dir)
        for p in sorted((folder / "hardware").glob("*.yaml"))
    ]:
        try:
            product = validated(Product, read(path))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"{path}: {where}: {rule_of(first)}") from None
        found[product.product] = product
    return found


def _below(value: float, bound: float | None) -> bool:
    return bound is not None and value < bound


def _above(value: float, bound: float | None) -> bool:
    return bound is not None and value > bound


def _bound(sign: str, unit: str, warn: float | None, fail: float | None) -> str:
    if warn is None or fail is None:
        bound = fail if warn is None else warn
        return "" if bound is None else f"{sign} {quantity(bound, unit)}"
    return f"{sign} {quantity(warn, unit)} (fail {quantity(fail, unit)})"
