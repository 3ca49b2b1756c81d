"""How near the search comes to a capacity that is known: python benchmarks/capacity_search.py

The server is M/M/c: Poisson arrivals, c places, exponential service, one queue. How long a request
waits there is known exactly (Erlang C), and so is the rate at which 99 % of the requests wait no
longer than the limit. Each probe is made of requests as the load generator stores them, and goes
through everything that a real one does: the judge that may end it, its interval, the search. Only
the server is arithmetic, and time is free.

Beside it plain bisection: the same first rates and the same middles, each answer by the share of
one whole run alone, no run tried again.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappush, heapreplace
from math import exp, log, nan

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from harness.capacity.probe import Probe, ProbeJudge, looked_at
from harness.capacity.search import Alone, At, Question, bracket, next_step
from loadgen.config import Load, Search, Slo
from loadgen.records import Columns, Progress, Window

Floats = npt.NDArray[np.float64]

PREFILL_S, TICK_S, DRAIN_S = 0.05, 0.25, 30.0
LOAD = Load(arrival="poisson", search=Search(probes=14), warmup_s=5.0, duration_s=20.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """`places` requests at once, each served for `service_s` in the mean; the rest wait in line."""

    name: str
    places: int
    service_s: float
    wait_s: float  # the limit

    @property
    def slo(self) -> Slo:
        return Slo(ttft_s=PREFILL_S + self.wait_s, share_frac=0.99)

    @property
    def most_rps(self) -> float:
        """More than this it cannot serve, whatever the limit."""
        return self.places / self.service_s

    def late_frac(self, rate_rps: float) -> float:
        """P(wait > limit): Erlang's C(c, a) * exp(-(c mu - lambda) t)."""
        offered, blocked = rate_rps * self.service_s, 1.0
        for k in range(1, self.places + 1):  # Erlang B, by its recursion
            blocked = offered * blocked / (k + offered * blocked)
        waits = blocked / (1 - offered / self.places * (1 - blocked))
        return waits * exp(-(self.most_rps - rate_rps) * self.wait_s)

    def capacity_rps(self) -> float:
        """The rate at which just 1 % wait longer than the limit."""
        allowed = 1 - self.slo.share_frac
        top = self.most_rps * (1 - 1e-9)
        return float(brentq(lambda rate: self.late_frac(rate) - allowed, 1e-6, top))


SERVERS = (
    Server(name="32 places, 1 s, wait 0.3 s", places=32, service_s=1.0, wait_s=0.3),
    Server(name="256 places, 2 s, wait 0.45 s", places=256, service_s=2.0, wait_s=0.45),
    Server(name="1 place, 10 ms, wait 0.1 s", places=1, service_s=0.01, wait_s=0.1),
    Server(name="8 places, 1 s, wait 1 s", places=8, service_s=1.0, wait_s=1.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to."""

    rate_rps: float | None
    outside_frac: float | None  # how far the truth lies outside the bracket that is told
    probes: int
    load_s: float


def search(server: Server, seed: int) -> Found:
    """The harness' own."""
    random, probes, load_s = np.random.default_rng(seed), list[Probe](), 0.0
    question = Question(search=LOAD.search or Search(), share_frac=0.99, start=server.most_rps / 2)
    while True:
        match next_step([probe.answer for probe in probes], question):
            case Alone():
                probe, took_s = run(server, None, random, judged=True)
            case At(rate=rate):
                probe, took_s = run(server, rate, random, judged=True)
            case _:
                break
        probes.append(probe)
        load_s += took_s
    known, truth = bracket([probe.answer for probe in probes], question), server.capacity_rps()
    low, high = known.low or 0.0, known.high or float("inf")
    outside_frac = max(0.0, low / truth - 1, truth / high - 1)
    return Found(rate_rps=known.best, outside_frac=outside_frac, probes=len(probes), load_s=load_s)


def bisection(server: Server, seed: int) -> Found:
    """The same rates, each answer by the share of one whole run."""
    random, load_s, probes = np.random.default_rng(seed), 0.0, 0
    low, high, rate = 0.0, float("inf"), server.most_rps / 2
    while probes < 14 and (not low or high / low - 1 > 0.05):
        probe, took_s = run(server, rate, random, judged=False)
        probes, load_s = probes + 1, load_s + took_s
        if (probe.answer.share.frac or 0.0) >= server.slo.share_frac:
            low = rate
        else:
            high = rate
        rate = low * 2 if high == float("inf") else (low * high) ** 0.5 if low else high / 2
    return Found(rate_rps=low or None, outside_frac=None, probes=probes, load_s=load_s)


def run(
    server: Server, rate_rps: float | None, random: np.random.Generator, *, judged: bool
) -> tuple[Probe, float]:
    """One probe at a rate, or one request at a time, and the seconds of load that it took."""
    load = LOAD.alone() if rate_rps is None else LOAD.at_intensity(rate_rps)
    opened_s, closed_s = load.warmup_s, load.warmup_s + load.duration_s
    service_s = random.exponential(server.service_s, int((rate_rps or 200) * 2 * closed_s) + 200)
    if rate_rps is None:
        due_s = np.concatenate([[0.0], np.cumsum(service_s)[:-1]])
        wait_s = np.zeros(len(due_s))
    else:
        due_s = np.cumsum(random.exponential(1 / rate_rps, len(service_s)))
        wait_s = waits_s(due_s, service_s, server.places)
    first_s, ended_s = due_s + wait_s + PREFILL_S, due_s + wait_s + service_s
    stopped = stop(due_s, first_s, ended_s, load, server.slo) if judged and rate_rps else None
    inside = (due_s >= opened_s) & (due_s < closed_s)
    over_s = min(closed_s + DRAIN_S, max(closed_s, float(ended_s[inside].max(initial=0.0))))
    over_s = over_s if stopped is None else stopped[1]
    sent = due_s < over_s
    window = Window(
        started_at_s=0.0,
        opened_at_s=opened_s,
        closed_at_s=closed_s,
        ended_at_s=over_s,
        clock_monotonic_s=0.0,
        clock_utc_ns=0,
    )
    columns = table(due_s[sent], first_s[sent], ended_s[sent], over_s)
    reason = stopped[0] if stopped else None
    return looked_at(columns, window, load, server.slo, stopped=reason), over_s


def waits_s(due_s: Floats, service_s: Floats, places: int) -> Floats:
    """First come, first served, by as many as there are places."""
    free: list[float] = []
    waits = np.empty(len(due_s))
    for index, (due, service) in enumerate(zip(due_s.tolist(), service_s.tolist(), strict=True)):
        begun = due
        if len(free) < places:
            heappush(free, begun + service)
        else:
            begun = max(due, free[0])
            heapreplace(free, begun + service)
        waits[index] = begun - due
    return waits


def stop(
    due_s: Floats, first_s: Floats, ended_s: Floats, load: Load, slo: Slo
) -> tuple[str, float] | None:
    """Why and when the judge would have ended it."""
    judge = ProbeJudge(load=load, share_frac=slo.share_frac)
    late = (first_s - due_s > (slo.ttft_s or nan)) & (due_s >= load.warmup_s)
    ends, late_ends, dues = np.sort(ended_s), np.sort(ended_s[late]), due_s
    for at_s in np.arange(load.warmup_s, load.warmup_s + load.duration_s, TICK_S):
        ended = int(np.searchsorted(ends, at_s))
        reason = judge(
            Progress(
                phase="window",
                elapsed_s=float(at_s),
                planned_s=load.planned_s,
                output_tok_per_s=0.0,
                ttft_p50_s=None,
                in_flight=int(np.searchsorted(dues, at_s)) - ended,
                completed=ended,
                failed=0,
                out_of_limits=int(np.searchsorted(late_ends, at_s)),
            )
        )
        if reason:
            return reason, float(at_s)
    return None


def table(due_s: Floats, first_s: Floats, ended_s: Floats, over_s: float) -> Columns:
    """The requests as the load generator stores them; what had not ended is cut."""
    cut, silent = ended_s > over_s, first_s > over_s
    return {
        "due_at_s": due_s,
        "sent_at_s": due_s,
        "first_at_s": np.where(silent, nan, first_s),
        "last_at_s": np.where(cut, nan, ended_s),
        "ended_at_s": np.minimum(ended_s, over_s),
        "output_tokens": np.full(len(due_s), 100.0),
        "output_tokens_asked": np.full(len(due_s), 100),
        "num_chunks": np.where(silent, 0, 100),
        "status": np.where(cut, "cut", "ok"),
    }


def line(server: Server, name: str, found: list[Found]) -> str:
    truth = server.capacity_rps()
    errors = np.array([abs(log((f.rate_rps or 1e-9) / truth)) for f in found])
    signed = np.array([log((f.rate_rps or 1e-9) / truth) for f in found])
    outside = np.array([f.outside_frac for f in found if f.outside_frac is not None])
    covers = f"{np.mean(outside == 0):.0%} / {np.mean(outside <= 0.05):.0%}" if len(outside) else ""
    probes = np.median([f.probes for f in found])
    load_s = np.median([f.load_s for f in found])
    return (
        f"| {server.name} | {truth:.1f} | {name} | {np.median(errors):.1%} |"
        f" {np.quantile(errors, 0.9):.1%} | {np.median(signed):+.1%} | {covers} |"
        f" {probes:.0f} | {load_s:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Error of the search for a known capacity.")
    parser.add_argument("--seeds", type=int, default=100, help="searches for each server [100]")
    seeds = range(parser.parse_args().seeds)
    print(f"{len(seeds)} searches each; windows of {LOAD.duration_s:g} s, limits for 99 %.\n")
    print(
        "| server | true req/s | search | error, median | 90 % of them below | bias |"
        " truth in bracket / within 5 % | probes | seconds of load |"
    )
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    ways: dict[str, Callable[[Server, int], Found]] = {
        "with intervals": search,
        "plain bisection": bisection,
    }
    for server in SERVERS:
        for name, way in ways.items():
            print(line(server, name, [way(server, seed) for seed in seeds]), flush=True)


if __name__ == "__main__":
    main()
