"""When requests are due: offsets in seconds from the start of the run.

Pure and seeded. Offsets are absolute, so a late request does not delay later ones. A longer run
begins with the offsets of a shorter one.
"""

from collections.abc import Iterator
from itertools import accumulate, count
from math import sqrt
from random import Random

from loadgen import trace
from loadgen.config import Load


def offsets_s(load: Load, seed: int) -> Iterator[float]:
    """Due times of an open loop, ascending; endless, except for a trace."""
    match load.arrival:
        case "trace":
            assert load.trace is not None
            speed = load.trace.speed
            return (entry.offset_s / speed for entry in trace.read(load.trace.path))
        case "constant":
            return constant_offsets_s(_given(load.rate_rps))
        case "poisson":
            return poisson_offsets_s(_given(load.rate_rps), seed)
        case "gamma":
            return gamma_offsets_s(_given(load.rate_rps), _given(load.burstiness), seed)
        case "ramp":
            rates_rps = _given(load.rate_rps), _given(load.rate_end_rps)
            return ramped_poisson_offsets_s(*rates_rps, load.planned_s, seed)
        case "closed":
            raise ValueError("a closed loop has no schedule: its streams wait for their replies")


def constant_offsets_s(rate_rps: float) -> Iterator[float]:
    """(n + 1/2) / rate for n = 0, 1, 2 …

    The first gap is half a gap: otherwise arrivals would fall exactly on the edges of the window,
    and rounding would decide on which side.
    """
    return ((number + 0.5) / rate_rps for number in count())


def poisson_offsets_s(rate_rps: float, seed: int) -> Iterator[float]:
    """Due times of a Poisson process: the gaps are exponential with mean 1/rate."""
    random = Random(seed)
    return accumulate(random.expovariate(rate_rps) for _ in count())


def gamma_offsets_s(rate_rps: float, burstiness: float, seed: int) -> Iterator[float]:
    """Gaps from a gamma distribution with shape `burstiness` and mean 1/rate.

    Their coefficient of variation is 1/√burstiness: a burstiness of 1 is Poisson, less comes in
    bursts, more is smoother. `burstiness` in vLLM's benchmark means the same.
    """
    random, scale_s = Random(seed), 1 / (rate_rps * burstiness)
    return accumulate(random.gammavariate(burstiness, scale_s) for _ in count())


def ramped_poisson_offsets_s(
    start_rps: float, end_rps: float, until_s: float, seed: int
) -> Iterator[float]:
    """Due times of a Poisson process whose rate goes linearly from `start_rps` to `end_rps`.

    With rates r₀ and r₁ and T = `until_s`, the rate at t is r₀ + a·t with a = (r₁ − r₀) / T, and r₁
    after T. Arrival n is at the t where the integral of the rate reaches u, the n-th arrival of a
    process of rate 1:

        r₀·t + a·t²/2 = u   ⇒   t = 2u / (r₀ + √(r₀² + 2·a·u))     while u ≤ U = T·(r₀ + r₁)/2
        t = T + (u − U) / r₁                                       after that
    """
    slope = (end_rps - start_rps) / until_s
    ramped = until_s * (start_rps + end_rps) / 2
    least = min(start_rps, end_rps) ** 2  # what is under the root is never less, but for rounding

    def at_s(cumulated: float) -> float:
        if cumulated > ramped:
            return until_s + (cumulated - ramped) / end_rps
        square = max(least, start_rps**2 + 2 * slope * cumulated)
        return 2 * cumulated / (start_rps + sqrt(square))

    return map(at_s, poisson_offsets_s(1.0, seed))


def ramp_offsets_s(concurrency: int, ramp_s: float) -> list[float]:
    """Start times of a closed loop's streams, evenly spaced over `ramp_s`.

    A burst of simultaneous starts would be an extra load, on the server and on the client.
    """
    return [ramp_s * stream / concurrency for stream in range(concurrency)]


def _given(value: float | None) -> float:
    """A value that Load has checked to be set for its arrival."""
    assert value is not None
    return value
