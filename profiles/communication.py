"""Communication: how long ranks wait in collectives for each other.

The n-th collective of one rank is the n-th of the others. It cannot end before the last rank has
begun, so a rank that begins earlier spins until then. That time is not transfer, but skew between
the ranks. Ranks form a group if they run the same collectives at the same times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiles.intervals import Bools, Floats, Ints
from profiles.trace import Device

TOGETHER = 0.95  # share of collectives that must overlap in two ranks of a group
FEW = 3  # fewer collectives do not show a group


@dataclass(frozen=True, slots=True, kw_only=True)
class Collectives:
    """The matched collectives of a group of devices; each array (ranks, n)."""

    devices: tuple[int, ...]  # places in the trace
    start_s: Floats
    end_s: Floats

    @property
    def waiting_s(self) -> Floats:
        """From each rank's start to the last rank's, (ranks, n)."""
        last_s = self.start_s.max(axis=0)
        waiting: Floats = np.minimum(last_s, self.end_s) - self.start_s
        return waiting

    @property
    def skew_s(self) -> Floats:
        """From the first rank's start to the last rank's, (n,)."""
        skew: Floats = np.ptp(self.start_s, axis=0)
        return skew


def collectives(devices: Sequence[Device], is_communication: Bools) -> list[Collectives]:
    """The groups of devices that communicate with each other; `is_communication` is per name."""
    chosen = [np.flatnonzero(is_communication[d.activities.name]) for d in devices]
    groups: list[list[int]] = []
    for place in range(len(devices)):
        for group in groups:
            if _together(devices, chosen, group[0], place):
                group.append(place)
                break
        else:
            groups.append([place])
    return [_matched(devices, chosen, group) for group in groups if len(group) > 1]


def _together(devices: Sequence[Device], chosen: Sequence[Ints], one: int, other: int) -> bool:
    first, second = devices[one].activities, devices[other].activities
    num = min(len(chosen[one]), len(chosen[other]))
    a, b = chosen[one][:num], chosen[other][:num]
    if num < FEW or not np.array_equal(first.name[a], second.name[b]):
        return False
    last_start_s = np.maximum(first.start_s[a], second.start_s[b])
    overlap = last_start_s < np.minimum(first.end_s[a], second.end_s[b])
    return bool(overlap.mean() >= TOGETHER)


def _matched(
    devices: Sequence[Device], chosen: Sequence[Ints], group: Sequence[int]
) -> Collectives:
    num = min(len(chosen[place]) for place in group)
    return Collectives(
        devices=tuple(group),
        start_s=np.stack([devices[p].activities.start_s[chosen[p][:num]] for p in group]),
        end_s=np.stack([devices[p].activities.end_s[chosen[p][:num]] for p in group]),
    )
