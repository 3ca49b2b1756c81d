"""What a probe measured: one line of JSON per measurement on its standard output.

Both sides import this file: the programs that run where PyTorch is, and the harness. A line is
written as soon as its number is known, so that a later crash does not lose it.
"""

import json
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from statistics import median, quantiles
from typing import Any, TypedDict


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number about the hardware, in base units, or the reason why there is none."""

    name: str  # family.what
    gpus: tuple[int, ...] = ()  # NVML's indices; empty for the host
    unit: str  # FLOP/s, op/s, B/s, s, Hz, W, °C, 1
    value: float | None = None  # a median over `repeats`
    spread_frac: float | None = None  # interquartile range of the repeats over their median
    repeats: int = 0
    time_s: float | None = None  # of one call; None if the value is not that of a call
    flops: float | None = None  # of one call
    moved_bytes: float | None = None  # of one call: the least that its result needs
    error: float | None = None  # ‖result − reference‖ / ‖reference‖
    error_limit: float | None = None
    how: str | None = None  # which kernel
    speedup_plain: float | None = None  # over the plain PyTorch form on the same card
    speedup_cpu: float | None = None  # over that form on the host's CPU
    detail: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None  # why it has no value

    @property
    def is_wrong(self) -> bool:
        """Whether its error exceeds the limit, or is NaN."""
        if self.error is None or self.error_limit is None:
            return False
        return not self.error <= self.error_limit


def spread_frac(times_s: Sequence[float]) -> float | None:
    """Interquartile range / median; None for fewer than four times."""
    if len(times_s) < 4:
        return None
    low, middle, high = quantiles(times_s, n=4)
    return (high - low) / middle


class Timing(TypedDict):
    """What repeats of one call say of it, as `Measurement` has it."""

    time_s: float
    spread_frac: float | None
    repeats: int


def timing(times_s: Sequence[float]) -> Timing:
    """The median of the repeats, how far they lie apart, and how many they are."""
    return Timing(time_s=median(times_s), spread_frac=spread_frac(times_s), repeats=len(times_s))


def highest(searched: Measurement, others: Sequence[Measurement]) -> Measurement:
    """The best of a search and of other measurements of the same kind, under the search's name.

    What the search itself found stays in the detail. A search with a wrong result is returned as it
    is: it is a failure, whatever the others gave.
    """
    right = [one for one in others if one.value is not None and not one.is_wrong]
    if searched.value is None or searched.is_wrong or not right:
        return searched
    best = max([searched, *right], key=lambda one: one.value or 0.0)
    detail = searched.detail | best.detail | {"searched": searched.value}
    return replace(best, name=searched.name, detail=detail)


def emit(measurement: Measurement) -> None:
    """Print a measurement, for the harness to read."""
    print(json.dumps({"measurement": asdict(measurement)}), flush=True)


def tell(**about: Any) -> None:
    """Print facts about the program: versions, the device's name, a series of samples."""
    print(json.dumps({"about": about}), flush=True)


@contextmanager
def reported(name: str, gpus: tuple[int, ...], unit: str) -> Iterator[None]:
    """An error inside costs this number only; its traceback goes to standard error."""
    try:
        yield
    except Exception as error:  # any, so that the other numbers of the family are not lost
        traceback.print_exc()
        first_line = (str(error).splitlines() or [""])[0]
        reason = f"{type(error).__name__}: {first_line}"
        emit(Measurement(name=name, gpus=gpus, unit=unit, reason=reason))


def read(line: str) -> Measurement | dict[str, Any] | None:
    """Parse a line of a program's output; None for what libraries print in between."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    match told:
        case {"measurement": dict(values)}:
            return Measurement(**values | {"gpus": tuple(values["gpus"])})
        case {"about": dict(about)}:
            return dict(about)
    return None
