"""Over-saturation: an open loop whose requests in flight keep growing. Pure.

If requests arrive faster than they end, the number in flight grows without bound, and no latency
limit holds in the end, whatever a window of finite length shows. Otherwise it fluctuates like a
random walk: over N arrivals by about sqrt(N).
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MIN_SAMPLES = 8
MIN_SPAN_S = 2.0
CHANCE = 3.0  # growth beyond this many times sqrt(arrivals) is not chance
CHANCE_OF_MANY = 5.0  # the same for repeated looks that stop at the first detection
SETTLED = 2.0  # least ratio of requests ended to requests in flight


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """A steadily growing number of requests in flight."""

    in_flight: int  # at the end
    growth_rps: float

    def __str__(self) -> str:
        return f"{self.in_flight} requests in flight, and {self.growth_rps:.1f} more each second"


def backlog(
    at_s: Floats, in_flight: Floats, ended: Floats, rate_rps: float, *, chance: float = CHANCE
) -> Backlog | None:
    """The backlog shown by samples of requests in flight and requests ended, or None.

    Only samples count at which at least `SETTLED` times as many requests had ended as were in
    flight: before that, a new load is still filling the server. The growth is the slope of a line
    fitted to these samples. It is taken to be real if over their time span it exceeds `chance` *
    sqrt(arrivals), and each third of them has more in flight than the one before.
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
