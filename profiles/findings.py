"""What a trace says, in numbers: `analyse(trace)`.

Everything is a frozen dataclass of plain values in base units: `as_json` writes it, `from_json`
reads it back. None is what the trace cannot tell.
"""

import json
from dataclasses import asdict, dataclass

import numpy as np

from profiles.communication import Collectives, collectives
from profiles.devices import DeviceFindings, device_findings
from profiles.kernels import KernelClass
from profiles.trace import Trace

VERSION = 1  # of the format and meaning of the JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Skew:
    """How far apart the ranks of a communicating group begin a collective."""

    devices: tuple[str, ...]
    collectives: int
    skew_p50_s: float
    skew_p99_s: float
    skew_max_s: float
    waiting_s: tuple[float, ...]  # of each device, for the last one to begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    version: int
    source: str
    profiler: str
    devices: tuple[DeviceFindings, ...]
    skews: tuple[Skew, ...]
    notes: tuple[str, ...]

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def from_json(text: str) -> Findings:
    """The findings that `as_json` wrote. ValueError for anything else."""
    from pydantic import TypeAdapter

    findings: Findings = TypeAdapter(Findings).validate_json(text)
    if findings.version != VERSION:
        raise ValueError(f"findings of version {findings.version}, expected {VERSION}")
    return findings


def analyse(trace: Trace) -> Findings:
    """All findings of a trace."""
    is_communication = trace.names.of_class[KernelClass.COMMUNICATION]
    groups = collectives(trace.devices, is_communication)
    waiting_s = {
        place: float(group.waiting_s[rank].sum())
        for group in groups
        for rank, place in enumerate(group.devices)
    }
    return Findings(
        version=VERSION,
        source=trace.source,
        profiler=trace.profiler,
        devices=tuple(
            device_findings(device, trace, waiting_s.get(place))
            for place, device in enumerate(trace.devices)
        ),
        skews=tuple(_skew(group, trace) for group in groups),
        notes=trace.notes,
    )


def _skew(group: Collectives, trace: Trace) -> Skew:
    skew_s = group.skew_s
    return Skew(
        devices=tuple(trace.devices[place].label for place in group.devices),
        collectives=len(skew_s),
        skew_p50_s=float(np.median(skew_s)),
        skew_p99_s=float(np.quantile(skew_s, 0.99)),
        skew_max_s=float(skew_s.max()),
        waiting_s=tuple(float(each.sum()) for each in group.waiting_s),
    )
