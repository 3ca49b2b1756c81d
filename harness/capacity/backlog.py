"""Over-saturation: an open loop whose requests in flight keep growing. Pure.

If requests arrive faster than they end, the number in flight grows without bound, and no latency
limit holds in the end, whatever a window of finite length shows. Otherwise it fluctuates: over N
arrivals by about sqrt(N) if requests end as regularly as they can, and by more if the server is
now faster, now slower. On two H200s, windows of 10 s at rates that vLLM carried ended with up to
4 sqrt(N) more or fewer requests in flight (docs/capacity.md).
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MIN_SAMPLES = 9  # the ends of PARTS parts
MIN_SPAN_S = 2.0
PARTS = 8  # of the time span; how unlike their growth is shows how much of it is chance
CHANCE = 3.0  # growth beyond this many standard deviations is not chance
CHANCE_OF_MANY = 6.0  # the same for repeated looks that stop at the first detection
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
    fitted to these samples. It is taken to be real if over their time span it exceeds `chance`
    standard deviations, and each third of them has more in flight than the one before.
    """
    settled = ended >= SETTLED * in_flight
    at_s, in_flight = at_s[settled], in_flight[settled]
    if len(at_s) < MIN_SAMPLES or at_s[-1] - at_s[0] < MIN_SPAN_S:
        return None
    span_s = float(at_s[-1] - at_s[0])
    slope_rps = float(np.polyfit(at_s - at_s[0], in_flight, 1)[0])
    thirds = [float(part.mean()) for part in np.array_split(in_flight, 3)]
    is_steady = thirds[0] < thirds[1] < thirds[2]
    if not is_steady or slope_rps * span_s <= chance * _deviation(at_s, in_flight, rate_rps):
        return None
    return Backlog(in_flight=int(in_flight[-1]), growth_rps=slope_rps)


def _deviation(at_s: Floats, in_flight: Floats, rate_rps: float) -> float:
    """The standard deviation of the growth over the time span of these samples.

    For a random walk of P steps it is sqrt(P) times that of a step. Steps are the growth in P =
    `PARTS` parts of the span. It is no less than that of Poisson arrivals alone.
    """
    marks = np.interp(np.linspace(at_s[0], at_s[-1], PARTS + 1), at_s, in_flight)
    walked = sqrt(PARTS) * float(np.diff(marks).std(ddof=1))
    return max(walked, sqrt(rate_rps * float(at_s[-1] - at_s[0])))
