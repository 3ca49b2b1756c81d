"""Over-saturation: an open loop whose requests in flight grow and grow. Pure.

Where fewer requests end than come, their number in flight grows by the difference, for ever: no
limit holds in the end, however long the window that is looked at. Where all is well it goes up and
down by chance, like a random walk: in N arrivals by about sqrt(N).
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MIN_SAMPLES = 8
MIN_SPAN_S = 2.0
CHANCE = 3.0  # times sqrt(arrivals): more is no chance
CHANCE_OF_MANY = 5.0  # the same for who looks again and again, and stops at the first find
SETTLED = 2.0  # so many times as many have ended as are in flight


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Requests in flight that grow steadily."""

    in_flight: int  # at the end
    growth_rps: float

    def __str__(self) -> str:
        return f"{self.in_flight} requests in flight, and {self.growth_rps:.1f} more each second"


def backlog(
    at_s: Floats, in_flight: Floats, ended: Floats, rate_rps: float, *, chance: float = CHANCE
) -> Backlog | None:
    """Whether requests in flight grow steadily, from samples of them and of how many had ended.

    Only samples count at which `SETTLED` times as many had ended as were in flight: before, a load
    that has just begun fills the server. Growth is the slope of a straight line through the rest.
    It is no chance if over their time it comes to more than `chance` * sqrt(arrivals), and each
    third of them has more in flight than the one before.
    """
    settled = ended >= SETTLED * in_flight
    at_s, in_flight = at_s[settled], in_flight[settled]
    if len(at_s) < MIN_SAMPLES or at_s[-1] - at_s[0] < MIN_SPAN_S:
        return None
    span_s = float(at_s[-1] - at_s[0])
    slope_rps = float(np.polyfit(at_s - at_s[0], in_flight, 1)[0])
    thirds = [float(part.mean()) for part in np.array_split(in_flight, 3)]
    is_steady = thirds[0] < thirds[1] < thirds[2]
    if not is_steady or slope_rps * span_s <= chance * sqrt(rate_rps * span_s):
        return None
    return Backlog(in_flight=int(in_flight[-1]), growth_rps=slope_rps)
