"""Arithmetic with intervals of time.

`Intervals` holds half-open intervals [start, end) in order of their starts. They may overlap and
repeat; their `union` does neither. Time is always measured on a union: two streams that run at once
keep the device busy once.

Coverage C(t) is the covered time before t. It is linear between the edges of a union, so the
covered part of [a, b) is C(b) − C(a), computed for all [a, b) at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Intervals:
    """[start_s, end_s), each (n,), by start."""

    start_s: Floats
    end_s: Floats

    def __len__(self) -> int:
        return len(self.start_s)

    @property
    def length_s(self) -> Floats:
        return self.end_s - self.start_s

    def __getitem__(self, chosen: Bools | slice) -> "Intervals":
        return Intervals(self.start_s[chosen], self.end_s[chosen])


EMPTY = Intervals(np.empty(0), np.empty(0))


def totals(place: Ints, weight: Floats, num: int) -> Floats:
    """The sum of the weights at each of `num` places."""
    return np.bincount(place, weight, num).astype(np.float64)


def intervals(start_s: npt.ArrayLike, end_s: npt.ArrayLike) -> Intervals:
    """Intervals from any order; those that end before they start are left out."""
    start, end = np.asarray(start_s, np.float64), np.asarray(end_s, np.float64)
    real = end >= start
    order = np.argsort(start[real], kind="stable")
    return Intervals(start[real][order], end[real][order])


def union(of: Intervals) -> Intervals:
    """The same time covered once: disjoint, ascending, and joined where they touch."""
    solid = of[of.end_s > of.start_s]
    if not len(solid):
        return EMPTY
    reached_s = np.maximum.accumulate(solid.end_s)  # the last end so far
    begins = np.r_[True, solid.start_s[1:] > reached_s[:-1]]
    ends = np.r_[begins[1:], True]
    return Intervals(solid.start_s[begins], reached_s[ends])


def joined(several: Sequence[Intervals]) -> Intervals:
    """All of them together."""
    if not several:
        return EMPTY
    return intervals(
        np.concatenate([each.start_s for each in several]),
        np.concatenate([each.end_s for each in several]),
    )


def covered_s(of: Intervals) -> float:
    """For how long at least one of them lasts."""
    return float(union(of).length_s.sum())


def span_s(of: Intervals) -> float:
    """From the first start to the last end."""
    return float(of.end_s.max() - of.start_s[0]) if len(of) else 0.0


def gaps(of: Intervals) -> Intervals:
    """The intervals inside the span that none of them covers."""
    busy = union(of)
    return Intervals(busy.end_s[:-1], busy.start_s[1:])


def coverage(of: Intervals, at_s: Floats) -> Floats:
    """C(t): the covered time before each of the instants."""
    busy = union(of)
    if not len(busy):
        return np.zeros(len(at_s))
    edges = np.column_stack((busy.start_s, busy.end_s)).ravel()
    before = np.concatenate(([0.0], np.cumsum(busy.length_s)))
    heights = np.column_stack((before[:-1], before[1:])).ravel()
    covered: Floats = np.interp(at_s, edges, heights)
    return covered


def overlap_s(of: Intervals, other: Intervals) -> Floats:
    """How long `other` covers each of `of`."""
    return coverage(other, of.end_s) - coverage(other, of.start_s)


def only_s(of: Intervals, others: Intervals) -> float:
    """For how long `of` runs while none of `others` does, and so is not hidden by them."""
    return max(0.0, covered_s(joined((of, others))) - covered_s(others))
