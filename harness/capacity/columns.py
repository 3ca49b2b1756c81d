"""The table columns of a capacity search: each probe's verdict, and the result on all probes."""

from collections.abc import Iterator
from typing import Any

from harness.capacity.found import Capacity, capacities
from harness.capacity.probe import Probe
from harness.study import Study
from loadgen.config import Load

Row = dict[str, Any]
RATE, STREAMS = "capacity_rps", "capacity_concurrency"
CAPACITIES = (RATE, STREAMS)


def capacity_column(load: Load) -> str:
    """The column of what a search under this load finds."""
    return RATE if load.is_open else STREAMS


def capacity_columns(study: Study) -> dict[str, Row]:
    """The columns of every probe, by run id; empty for a study without a search."""
    return {run: row for found in capacities(study) for run, row in _rows(found)}


def _rows(found: Capacity) -> Iterator[tuple[str, Row]]:
    known, best = found.bracket, found.best
    is_rate = found.load.is_open
    of_all = {
        RATE: known.best if is_rate else None,
        STREAMS: None if is_rate else known.best,
        "capacity_low": known.low,
        "capacity_high": known.high,
        "capacity_breaks": found.breaks_first,
        "capacity_probes": len(found.probes),
        "capacity_doubts": " ".join(found.doubts) or None,
    }
    for probe in found.probes:
        yield probe.run, of_all | _of(probe, found) | {"at_capacity": probe is best}


def _of(probe: Probe, found: Capacity) -> Row:
    is_seen = probe.kept_frac is not None
    low, high = probe.answer.share.interval(found.effect) if is_seen else (None, None)
    return {
        "slo_verdict": str(found.verdict(probe)),
        "slo_met_low_frac": low,
        "slo_met_high_frac": high,
        "backlog_rps": probe.backlog.growth_rps if probe.backlog else None,
    }
