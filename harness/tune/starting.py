"""Where a launch's searches of a capacity begin: near what is expected of it. Pure.

A trial has no closed loops to derive a first rate from, and a search that begins with one request
at a time spends half of its probes on coming near. Only the first step depends on this, so it is
no part of a run's identity.
"""

from collections.abc import Sequence

from harness.capacity.columns import capacity_column
from harness.steering import Starts
from harness.tune.strategy import Forecast
from harness.tune.trial import Rows, Setting
from loadgen.config import Load


def starts_at(loads: Sequence[Load], rows: Rows) -> Starts:
    """Begin at the capacities that these rows, one per load, have."""
    return _starts(loads, _capacities(loads, rows))


def starts_of(
    loads: Sequence[Load],
    setting: Setting,
    default: Setting,
    forecast: Forecast | None,
    measured: Rows = (),
) -> Starts:
    """Begin at what a setting should have: `measured`, of the defaults, times the expected gain.

    Before the defaults are measured, it is half of what the forecast expects.
    """
    expected, base = (
        _capacities(loads, (forecast or {}).get(one) or ()) for one in (setting, default)
    )
    if not measured:
        return _starts(loads, [value and value / 2 for value in expected])
    known = zip(_capacities(loads, measured), expected, base, strict=True)
    return _starts(
        loads,
        [
            value and (value * more / less if more and less else value)
            for value, more, less in known
        ],
    )


def _capacities(loads: Sequence[Load], rows: Rows) -> list[float | None]:
    """For each load, the capacity in its row; None if there is none."""
    found = [row.get(capacity_column(load)) for load, row in zip(loads, rows, strict=False)]
    return found + [None] * (len(loads) - len(found))


def _starts(loads: Sequence[Load], capacities: Sequence[float | None]) -> Starts:
    """Begin where a load asks to, else at these capacities."""
    found = []
    for load, value in zip(loads, capacities, strict=True):
        if load.search is not None and load.search.start_rps is not None:
            found.append((load, load.search.start_rps))
        elif load.search is not None and value:
            found.append((load, float(f"{value:.2g}") if load.is_open else max(1.0, round(value))))
    return found
