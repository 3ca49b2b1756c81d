"""A capacity search as text for people."""

from math import isfinite

from harness.capacity.found import Capacity
from harness.capacity.probe import Probe
from harness.capacity.share import EFFECT
from harness.slo import limits_text
from harness.units import milliseconds, significant
from loadgen.config import Load

_number = significant(1.0)


def shown(rate: float | None, load: Load) -> str:
    """`12.5 req/s`, or `12 streams`; a dash for None."""
    if rate is None:
        return "–"
    return f"{_number(rate)} req/s" if load.is_open else f"{rate:.0f} streams"


def told(probe: Probe, share_frac: float) -> str:
    """A probe's answer in one line."""
    verdict = probe.verdict(share_frac)
    if probe.kept_frac is None:
        return f"{verdict}: no request to judge"
    low, high = probe.answer.share.interval(EFFECT)
    text = (
        f"{verdict}: {probe.kept_frac:.1%} of {probe.requests} requests kept the limits"
        f" ({low:.1%} to {high:.1%}; {share_frac:.1%} wanted)"
    )
    return text + (f", over-saturated: {probe.backlog}" if probe.backlog else "")


def doubt(found: Capacity) -> str | None:
    """Why the capacity may be larger than what was found; None if there is no reason to think so.

    A sentence without full stop.
    """
    if not found.doubts:
        return None
    rate = None if found.is_too_much else found.above[0].rate
    at = "with one request at a time" if rate is None else f"at {shown(rate, found.load)}"
    return (
        f"{at} our own side was too slow ({' '.join(found.doubts)}), which may be why the limits"
        " were missed: the capacity may be larger"
    )


def ended(found: Capacity) -> str:
    """Why there is nothing left to probe, and what was found."""
    if found.is_too_much:
        text = f"{found.reason} ({limits_text(found.slo)}): {floor(found)}"
        return "; ".join(filter(None, [text, doubt(found)]))
    known = found.bracket
    if found.value is None:
        return f"{found.reason}: no load that was tried kept the limits"
    low, high = (x and shown(x, found.load) for x in (known.low, known.high))
    sure = [f"clearly kept at {low}"] if low else []
    sure += [f"clearly missed at {high}"] if high else []
    text = f"{found.reason}: {shown(found.value, found.load)}, " + (
        ", ".join(sure) or "nothing of it clear"
    )
    return "; ".join(filter(None, [text, doubt(found)]))


def floor(found: Capacity) -> str:
    """The latencies of requests alone on the server, for each limit that is set."""
    alone = found.alone
    if alone is None or not alone.times_s:
        return "no request that was alone on the server was completed"
    times = ", ".join(f"{name_of(n)} {_time_text(x)}" for n, x in alone.times_s.items())
    share = f"{found.slo.share_frac * 100:.6g} %"
    return f"{share} of the requests that are alone on the server take at most {times}"


def _time_text(value_s: float) -> str:
    return f"{milliseconds(value_s)} ms" if isfinite(value_s) else "longer than the run"


def name_of(limit: str) -> str:
    """`TTFT` of `ttft_s`; other reasons as they are."""
    return limit.removesuffix("_s").upper() if limit.endswith("_s") else limit
