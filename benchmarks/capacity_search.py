"""How near the search comes to a capacity that is known: python benchmarks/capacity_search.py

Two kinds of servers. M/M/c: Poisson arrivals, c places, exponential service, one queue. How long a
request waits there is known exactly (Erlang C), and so is the rate at which 99 % of the requests
wait no longer than the limit. And an engine: all requests share its steps, which take longer the
more they are, and its speed wanders; its capacity comes from long runs. Each probe is made of
requests as the load generator stores them, and goes through everything that a real one does: the
judge that may end it, its interval, the search. Only the server is arithmetic, and time is free.

Beside it plain bisection: the same first rates and the same middles, each answer by the share of
one whole run alone, no run tried again.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from heapq import heappop, heappush, heapreplace
from math import exp, inf, log, nan, sqrt
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from harness.capacity.probe import Probe, ProbeJudge, looked_at
from harness.capacity.search import Alone, At, Question, bracket, next_step
from loadgen.config import Load, Search, Slo
from loadgen.metrics import keeps
from loadgen.records import Columns, Progress, Window

Floats = npt.NDArray[np.float64]

PREFILL_S, TICK_S, DRAIN_S = 0.05, 0.25, 30.0
ENGINE_TICK_S, TRUTH_S = 0.01, 1000.0
SEARCH = Search(probes=14)
LOAD = Load(arrival="poisson", search=SEARCH, warmup_s=5.0, duration_s=20.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What came of requests, each of shape (num_requests,)."""

    first_s: Floats
    ended_s: Floats
    output_tokens: Floats


class Server(Protocol):
    """What is searched for its capacity."""

    @property
    def name(self) -> str: ...
    @property
    def slo(self) -> Slo: ...
    @property
    def most_rps(self) -> float:
        """More than this it cannot serve, whatever the limit."""

    def capacity_rps(self) -> float:
        """The rate at which just 1 % of the requests miss the limit."""

    def serve(self, due_s: Floats, random: np.random.Generator) -> Served:
        """What comes of requests that are due at these times, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """`places` requests at once, each served for `service_s` in the mean; the rest wait in line."""

    places: int
    service_s: float
    wait_s: float  # the limit

    @property
    def name(self) -> str:
        places = "1 place" if self.places == 1 else f"{self.places} places"
        service = f"{self.service_s:g} s" if self.service_s >= 1 else f"{self.service_s * 1e3:g} ms"
        return f"{places}, {service}, wait {self.wait_s:g} s"

    @property
    def slo(self) -> Slo:
        return Slo(ttft_s=PREFILL_S + self.wait_s, share_frac=0.99)

    @property
    def most_rps(self) -> float:
        return self.places / self.service_s

    def late_frac(self, rate_rps: float) -> float:
        """P(wait > limit): Erlang's C(c, a) * exp(-(c mu - lambda) t)."""
        offered, blocked = rate_rps * self.service_s, 1.0
        for k in range(1, self.places + 1):  # Erlang B, by its recursion
            blocked = offered * blocked / (k + offered * blocked)
        waits = blocked / (1 - offered / self.places * (1 - blocked))
        return waits * exp(-(self.most_rps - rate_rps) * self.wait_s)

    def capacity_rps(self) -> float:
        allowed = 1 - self.slo.share_frac
        top = self.most_rps * (1 - 1e-9)
        return float(brentq(lambda rate: self.late_frac(rate) - allowed, 1e-6, top))

    def serve(self, due_s: Floats, random: np.random.Generator) -> Served:
        service_s = random.exponential(self.service_s, len(due_s))
        begun_s = due_s + waits_s(due_s, service_s, self.places)
        return Served(
            first_s=begun_s + PREFILL_S,
            ended_s=begun_s + service_s,
            output_tokens=np.full(len(due_s), 100.0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """All requests share its steps; a step gives each of them a token.

    A step takes `step_s` and `seat_s` for each request, times exp(`spread` * x), where x is an
    Ornstein-Uhlenbeck process of unit variance that forgets in `forgets_s`. The constants are near
    to those of a 1.5 B model on two H200s, and so is how its requests in flight go up and down.
    """

    tpot_s: float  # the limit
    step_s: float = 0.006
    seat_s: float = 2e-5
    tokens: int = 128  # in the mean, from half to one and a half times as many
    spread: float = 0.2
    forgets_s: float = 2.0

    @property
    def name(self) -> str:
        return f"engine, speed ± {self.spread:.0%}, TPOT {self.tpot_s * 1e3:g} ms"

    @property
    def slo(self) -> Slo:
        return Slo(tpot_s=self.tpot_s, share_frac=0.99)

    @property
    def most_rps(self) -> float:
        return 1 / (self.seat_s * self.tokens)

    def capacity_rps(self) -> float:
        return _long_run_capacity_rps(self)

    def serve(self, due_s: Floats, random: np.random.Generator) -> Served:
        tokens = random.integers(self.tokens // 2, self.tokens * 3 // 2 + 1, len(due_s))
        first_s, ended_s = np.empty(len(due_s)), np.empty(len(due_s))
        forgotten = exp(-ENGINE_TICK_S / self.forgets_s)
        in_flight: list[tuple[float, int]] = []  # tokens of the engine at which it ends, request
        wander, made, coming, now_s = float(random.normal()), 0.0, 0, 0.0
        while in_flight or coming < len(due_s):
            wander = forgotten * wander + sqrt(1 - forgotten**2) * float(random.normal())
            step_s = (self.step_s + self.seat_s * len(in_flight)) * exp(self.spread * wander)
            then = made + ENGINE_TICK_S / step_s
            while in_flight and in_flight[0][0] <= then:
                end, request = heappop(in_flight)
                ended_s[request] = now_s + (end - made) * step_s
            while coming < len(due_s) and due_s[coming] < now_s + ENGINE_TICK_S:
                heappush(in_flight, (then + float(tokens[coming]), coming))
                first_s[coming] = now_s + ENGINE_TICK_S + step_s
                coming += 1
            made, now_s = then, now_s + ENGINE_TICK_S
        return Served(first_s=first_s, ended_s=ended_s, output_tokens=tokens.astype(float))


@cache
def _long_run_capacity_rps(engine: Engine) -> float:
    """The capacity of an engine over `TRUTH_S` at each rate; always the same chance."""

    def excess(rate_rps: float) -> float:
        random = np.random.default_rng(0)
        due_s = np.cumsum(random.exponential(1 / rate_rps, int(rate_rps * TRUTH_S)))
        served = engine.serve(due_s, random)
        late = is_late(due_s, served, engine.slo)[due_s > LOAD.warmup_s]
        return float(late.mean()) - (1 - engine.slo.share_frac)

    least, most = 0.1 * engine.most_rps, engine.most_rps
    return float(brentq(excess, least, most, xtol=0.002 * most))


SERVERS: tuple[Server, ...] = (
    Queue(places=32, service_s=1.0, wait_s=0.3),
    Queue(places=256, service_s=2.0, wait_s=0.45),
    Queue(places=1, service_s=0.01, wait_s=0.1),
    Queue(places=8, service_s=1.0, wait_s=1.0),
    Engine(tpot_s=0.03),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to."""

    rate_rps: float | None
    outside_frac: float | None  # how far the truth lies outside the bracket that is told
    probes: int
    load_s: float


def search(server: Server, load: Load, seed: int) -> Found:
    """The harness' own."""
    random, probes, load_s = np.random.default_rng(seed), list[Probe](), 0.0
    share_frac, start = server.slo.share_frac, server.most_rps / 2
    question = Question(search=SEARCH, share_frac=share_frac, start=start)
    while True:
        match next_step([probe.answer for probe in probes], question):
            case Alone():
                probe, took_s = run(server, load.alone(), random, judged=True)
            case At(rate=rate):
                probe, took_s = run(server, load.at_intensity(rate), random, judged=True)
            case _:
                break
        probes.append(probe)
        load_s += took_s
    known, truth = bracket([probe.answer for probe in probes], question), server.capacity_rps()
    low, high = known.low or 0.0, known.high or float("inf")
    outside_frac = max(0.0, low / truth - 1, truth / high - 1)
    return Found(rate_rps=known.best, outside_frac=outside_frac, probes=len(probes), load_s=load_s)


def bisection(server: Server, load: Load, seed: int) -> Found:
    """The same rates, each answer by the share of one whole run."""
    random, load_s, probes = np.random.default_rng(seed), 0.0, 0
    low, high, rate = 0.0, float("inf"), server.most_rps / 2
    while probes < SEARCH.probes and (not low or high / low - 1 > SEARCH.resolution_frac):
        probe, took_s = run(server, load.at_intensity(rate), random, judged=False)
        probes, load_s = probes + 1, load_s + took_s
        if (probe.answer.share.frac or 0.0) >= server.slo.share_frac:
            low = rate
        else:
            high = rate
        rate = low * 2 if high == float("inf") else (low * high) ** 0.5 if low else high / 2
    return Found(rate_rps=low or None, outside_frac=None, probes=probes, load_s=load_s)


def run(
    server: Server, load: Load, random: np.random.Generator, *, judged: bool
) -> tuple[Probe, float]:
    """One probe, and the seconds of load that it took."""
    rate_rps = load.rate_rps
    opened_s, closed_s = load.warmup_s, load.warmup_s + load.duration_s
    if rate_rps is None:
        due_s, served = one_at_a_time(server, closed_s, random)
    else:
        # Arrivals go on while the last requests of the window end.
        until_s = closed_s + DRAIN_S
        due_s = np.cumsum(random.exponential(1 / rate_rps, int(rate_rps * 1.2 * until_s) + 200))
        due_s = due_s[due_s < until_s]
        served = server.serve(due_s, random)
    stopped = stop(due_s, served, load, server.slo) if judged and rate_rps else None
    inside = (due_s >= opened_s) & (due_s < closed_s)
    ends_s = served.ended_s[inside]
    over_s = min(closed_s + DRAIN_S, max(closed_s, float(ends_s.max(initial=0.0))))
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
    columns = table(due_s, served, sent, over_s)
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


def one_at_a_time(
    server: Server, closed_s: float, random: np.random.Generator
) -> tuple[Floats, Served]:
    """When requests were due, each after the end of the one before, and what came of them."""
    parts, now_s = list[tuple[float, Served]](), 0.0
    while now_s < closed_s:
        served = server.serve(np.zeros(1), random)
        parts.append((now_s, served))
        now_s += float(served.ended_s[0])
    due_s = np.array([due for due, _ in parts])
    first_s, ended_s, tokens = (
        np.concatenate([getattr(served, name) for _, served in parts])
        for name in ("first_s", "ended_s", "output_tokens")
    )
    return due_s, Served(first_s=due_s + first_s, ended_s=due_s + ended_s, output_tokens=tokens)


def stop(due_s: Floats, served: Served, load: Load, slo: Slo) -> tuple[str, float] | None:
    """Why and when the judge would have ended it."""
    judge = ProbeJudge(load=load, share_frac=slo.share_frac)
    late = is_late(due_s, served, slo) & (due_s >= load.warmup_s)
    ends, late_ends, dues = np.sort(served.ended_s), np.sort(served.ended_s[late]), due_s
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


def is_late(due_s: Floats, served: Served, slo: Slo) -> npt.NDArray[np.bool_]:
    """Which of the requests miss a limit, each of them left to end."""
    everything = np.ones(len(due_s), dtype=bool)
    return ~keeps(table(due_s, served, everything, inf), LOAD, slo)


def table(due_s: Floats, served: Served, sent: npt.NDArray[np.bool_], over_s: float) -> Columns:
    """The requests as the load generator stores them; what had not ended is cut."""
    due_s, first_s, ended_s = due_s[sent], served.first_s[sent], served.ended_s[sent]
    cut, silent, tokens = ended_s > over_s, first_s > over_s, served.output_tokens[sent]
    return {
        "due_at_s": due_s,
        "sent_at_s": due_s,
        "first_at_s": np.where(silent, nan, first_s),
        "last_at_s": np.where(cut, nan, ended_s),
        "ended_at_s": np.minimum(ended_s, over_s),
        "output_tokens": tokens,
        "output_tokens_asked": tokens,
        "num_chunks": np.where(silent, 0, tokens),
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
    parser.add_argument("--duration-s", type=float, default=20.0, help="of a window [20]")
    args = parser.parse_args()
    seeds, load = range(args.seeds), replace(LOAD, duration_s=args.duration_s)
    print(f"{len(seeds)} searches each; windows of {load.duration_s:g} s, limits for 99 %.\n")
    print(
        "| server | true req/s | search | error, median | 90 % of them below | bias |"
        " truth in bracket / within 5 % | probes | seconds of load |"
    )
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    ways: dict[str, Callable[[Server, Load, int], Found]] = {
        "with intervals": search,
        "plain bisection": bisection,
    }
    for server in SERVERS:
        for name, way in ways.items():
            print(line(server, name, [way(server, load, seed) for seed in seeds]), flush=True)


if __name__ == "__main__":
    main()
