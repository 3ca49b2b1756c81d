"""What the monitor sampled while the cards were in their steady state, as measurements."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from harness.hardware.probes.record import Measurement
from monitors.nvml import HEAT, POWER_CAP, UNKNOWN_REASONS

Series = Mapping[int, Mapping[str, Sequence[float]]]
# column, name, unit, and the statistic to report
SENSORS: tuple[tuple[str, str, str, Callable[[Any], Any]], ...] = (
    ("sm_clock_hz", "sm_clock", "Hz", np.nanmedian),
    ("power_instant_w", "power", "W", np.nanmean),
    ("temperature_c", "temperature", "°C", np.nanmax),
)


def sensors(series: Series, samples: Mapping[str, Any]) -> list[Measurement]:
    """Clock, power, temperature and throttling of each card, over the second half of its series.

    `samples` are the monitor's GPU columns; a card without samples in that time has no value.
    """
    found: list[Measurement] = []
    for gpu, told in sorted(series.items()):
        if "at_s" not in samples or not len(told["at_s"]):
            continue
        first_at_s, last_at_s = told["at_s"][0], told["at_s"][-1]
        at_s = samples["at_s"]
        mine = (samples["gpu"] == gpu) & (at_s <= last_at_s)
        mine &= at_s >= first_at_s + (last_at_s - first_at_s) / 2
        if not mine.any():
            continue
        found += [_value(gpu, *value) for value in _values(samples, mine)]
    return found


def _values(samples: Mapping[str, Any], mine: Any) -> list[tuple[str, str, float]]:
    reasons = samples["throttle_reasons"][mine]
    known = reasons & UNKNOWN_REASONS == 0
    seen = {name: samples[name][mine] for name, *_ in SENSORS}
    told = [
        (named, unit, float(reduce(seen[name])))
        for name, named, unit, reduce in SENSORS
        if not np.isnan(seen[name]).all()
    ]
    if known.any():
        told += [
            ("power_capped_frac", "share", float((reasons[known] & POWER_CAP != 0).mean())),
            ("heat_throttled_frac", "share", float((reasons[known] & HEAT != 0).mean())),
        ]
    return told


def _value(gpu: int, name: str, unit: str, value: float) -> Measurement:
    return Measurement(name=f"steady.{name}", gpus=(gpu,), unit=unit, value=value, how="NVML")
