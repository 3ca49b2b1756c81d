"""The latency limits of a study: from study.json, and as text for people."""

from typing import Any

from loadgen.config import Slo


def slo_of(about: dict[str, Any]) -> Slo:
    """The study's limits; studies from before limits existed have none."""
    return Slo(**(about.get("options") or {}).get("slo") or {})


def limits_text(slo: Slo) -> str:
    """`TTFT ≤ 500 ms, TPOT ≤ 30 ms`; empty without any."""
    return ", ".join(
        f"{name.removesuffix('_s').upper()} ≤ {limit_s * 1e3:g} ms"
        for name, limit_s in slo.limits.items()
    )


def promise_text(slo: Slo) -> str:
    """`90 % of the requests keep TTFT ≤ 500 ms, TPOT ≤ 30 ms`; empty without limits."""
    limits = limits_text(slo)
    return f"{slo.share_frac * 100:.6g} % of the requests keep {limits}" if limits else ""
