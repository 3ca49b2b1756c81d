"""When requests are due: offsets in seconds after the start of the run.

Pure and seeded. Offsets are absolute, so a late request delays no later one.
"""

from collections.abc import Iterator
from itertools import accumulate
from random import Random


def poisson_offsets_s(rate_rps: float, seed: int) -> Iterator[float]:
    """Due times of a Poisson process, without end.

    The gaps are exponential with mean 1/rate. A longer run has the shorter one's offsets first.
    """
    random = Random(seed)
    return accumulate(random.expovariate(rate_rps) for _ in iter(int, 1))


def ramp_offsets_s(concurrency: int, ramp_s: float) -> list[float]:
    """Start times of the streams of a closed loop, even over `ramp_s`.

    A burst of simultaneous starts would be a load of its own, on the server and on the client.
    """
    return [ramp_s * stream / concurrency for stream in range(concurrency)]
