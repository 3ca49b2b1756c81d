"""One probe: a run at one rate, and whether the limits held. Pure, but for reading its samples.

The limits also count as missed if requests in flight grow steadily, whatever the latencies in the
window: in a longer window they would be missed. They count as missed, too, if the server died or
hung. A miss proves nothing if our own side was too slow: then it may have broken the limits itself.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.capacity.backlog import CHANCE_OF_MANY, Backlog, backlog
from harness.capacity.search import Answer
from harness.capacity.share import EFFECT, Share, Verdict, is_hopeless, share_of
from harness.engines.failure import FailureKind
from harness.rows import kept_up
from harness.study import SavedRun
from harness.validity import instrument_codes
from loadgen.config import Load, Slo
from loadgen.metrics import (
    Bools,
    breaks,
    counted,
    e2e_s,
    finished_at_s,
    keeps,
    quantile,
    requests_per_s,
    tpot_s,
    ttft_s,
)
from loadgen.records import Columns, Progress, Status, Window

OVER_SATURATED = "over-saturated"
GRID = 40  # instants in a window at which requests in flight are counted
ENDED_BY_LOAD = (FailureKind.DIED_UNDER_LOAD, FailureKind.HANGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A run and its result."""

    answer: Answer
    broken: dict[str, int]  # limit (or "failures") -> requests that broke it
    requests: int
    times_s: dict[str, float] = field(default_factory=dict)  # limit -> quantile at the SLO's share
    backlog: Backlog | None = None
    run: str = ""  # id
    stopped: str | None = None
    failure: str | None = None  # of the server
    doubts: tuple[str, ...] = ()  # validity codes of our own side; a miss is then none

    @property
    def rate(self) -> float | None:
        """Requests per second, or streams; None for one request at a time."""
        return self.answer.rate

    @property
    def kept_frac(self) -> float | None:
        """Share of requests that kept the limits; None if the run was stopped or failed."""
        return None if self.stopped or self.failure else self.answer.share.frac

    def verdict(self, share_frac: float, effect: float = EFFECT) -> Verdict:
        """The verdict on this run by itself; `effect` is the design effect."""
        verdict = self.answer.share.verdict(share_frac, effect)
        if self.answer.is_out or self.stopped:
            verdict = Verdict.MISSED
        is_doubtful = bool(self.doubts) and verdict == Verdict.MISSED
        return Verdict.UNRESOLVED if is_doubtful else verdict

    @property
    def worst(self) -> str | None:
        """The limit that most requests broke, else the failure or over-saturation, if any."""
        if any(self.broken.values()):
            return max(self.broken, key=lambda name: self.broken[name])
        if self.failure:
            return self.failure
        return OVER_SATURATED if self.answer.is_out else None


def probe_of(run: SavedRun, slo: Slo) -> Probe | None:
    """The probe of a saved run; None if the run says nothing about the limits.

    That is so if it had no rate yet, or failed for a reason other than the load.
    """
    load = Load(**run.record["load"])
    if load.rate_rps is None and load.concurrency is None:
        return None
    name = str(run.record["id"])
    if not run.ok:
        kind = run.record["failure"]["kind"]
        if kind not in ENDED_BY_LOAD:
            return None
        answer = Answer(rate=rate_of(load), share=Share(), is_out=True)
        return Probe(run=name, answer=answer, broken={}, requests=0, failure=str(kind))
    window, requests = Window(**run.record["window"]), run.samples("requests")
    return looked_at(
        requests,
        window,
        load,
        slo,
        stopped=run.record.get("stopped"),
        run=name,
        doubts=instrument_codes(kept_up(run.record, requests)),
    )


def looked_at(
    requests: Columns,
    window: Window,
    load: Load,
    slo: Slo,
    *,
    stopped: str | None = None,
    run: str = "",
    doubts: tuple[str, ...] = (),
) -> Probe:
    """The probe that follows from a run's requests; `doubts` are its codes of our own side.

    If the run was stopped because too many requests broke the limits, its share is an upper bound:
    as if those that were cut off had been answered in full at that moment, and, in an open loop,
    all that were still to come had kept the limits. If it was stopped as over-saturated, it has no
    share.
    """
    is_over = stopped is not None and stopped.startswith(OVER_SATURATED)
    share, growing, judged = Share(), None, requests
    is_whole = requests["status"] != Status.CUT
    if stopped:
        mine, judged = requests["due_at_s"] >= window.opened_at_s, _at_best(requests)
        if not is_over:
            share = _at_most(int((mine & ~keeps(judged, load, slo)).sum()), load, int(mine.sum()))
    else:
        mine = counted(requests, window, load)
        order = np.argsort(requests["due_at_s"] if load.is_open else finished_at_s(requests))
        share = share_of(keeps(requests, load, slo)[order][mine[order]])
        growing = backlog_of(requests, window, load)
    over = {n: int((mine & out).sum()) for n, out in breaks(judged, load, slo).items()}
    over["failures"] = int((mine & (requests["status"] == Status.FAILED)).sum())
    return Probe(
        run=run,
        answer=Answer(
            rate=rate_of(load),
            share=share,
            is_out=is_over or growing is not None,
            is_doubtful=bool(doubts),
            rate_rps=None if stopped else requests_per_s(requests, window),
        ),
        broken=over,
        requests=int(mine.sum()),
        # One request at a time: the one that a stop cut off would be a large part of the few there
        # are, and did not wait for any other.
        times_s=_times_s(requests, mine if rate_of(load) else mine & is_whole, load, slo),
        backlog=growing,
        stopped=stopped,
        doubts=doubts,
    )


def _at_best(requests: Columns) -> Columns:
    """The requests, as if those that were cut off had been answered in full at that moment."""
    cut, first_at_s = requests["status"] == Status.CUT, requests["first_at_s"]
    ended_at_s, asked = requests["ended_at_s"], requests["output_tokens_asked"]
    return requests | {
        "status": np.where(cut, str(Status.OK), requests["status"]),
        "first_at_s": np.where(cut & np.isnan(first_at_s), ended_at_s, first_at_s),
        "last_at_s": np.where(cut, ended_at_s, requests["last_at_s"]),
        "output_tokens": np.where(cut, asked, requests["output_tokens"]),
    }


def _times_s(requests: Columns, mine: Bools, load: Load, slo: Slo) -> dict[str, float]:
    """For each limit, the quantile of its time at the share of requests that must keep it."""
    of = {"ttft_s": ttft_s, "tpot_s": tpot_s, "e2e_s": e2e_s}
    names = [name for name in slo.limits if load.stream or name == "e2e_s"]
    found = {name: quantile(of[name](requests)[mine], slo.share_frac) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _at_most(broken: int, load: Load, seen: int) -> Share:
    planned = max(float(seen), (load.rate_rps or 0.0) * load.duration_s)
    return Share(kept=(planned - broken,), counts=(planned,))


def rate_of(load: Load) -> float | None:
    """The searched quantity: requests per second, or streams; None for one request at a time."""
    if load.is_open:
        return load.rate_rps
    return None if load.concurrency == 1 else float(load.concurrency or 0)


def backlog_of(requests: Columns, window: Window, load: Load) -> Backlog | None:
    """The backlog over the window of an open loop, or None."""
    if load.rate_rps is None:
        return None
    at_s = np.linspace(window.opened_at_s, window.closed_at_s, GRID)
    sent = ~np.isnan(requests["sent_at_s"])
    begun, ended = (
        np.searchsorted(np.sort(requests[name][sent]), at_s, side="right").astype(float)
        for name in ("sent_at_s", "ended_at_s")
    )
    return backlog(at_s, begun - ended, ended, load.rate_rps)


@dataclass(slots=True, kw_only=True)
class ProbeJudge:
    """Watches a probe, and ends it as soon as its answer is clear.

    That is when the limits cannot be kept any more, or when requests in flight grow steadily.
    """

    load: Load
    share_frac: float
    _seen: list[Progress] = field(default_factory=list)

    def __call__(self, now: Progress) -> str | None:
        """The reason to end the run now, or None."""
        if now.phase != "window":
            return None
        self._seen.append(now)
        planned = self._planned()
        if planned is not None and is_hopeless(now.out_of_limits, planned, self.share_frac):
            allowed = (1 - self.share_frac) * planned
            return (
                f"missed: {now.out_of_limits} of about {planned:.0f} requests are out of limits"
                f" already, and {allowed:.0f} may be"
            )
        growing = self._backlog()
        return None if growing is None else f"{OVER_SATURATED}: {growing}"

    def _planned(self) -> float | None:
        """About how many requests the window will have; a closed loop's pace is extrapolated.

        None in the first quarter of a closed loop's window.
        """
        if self.load.rate_rps is not None:
            return self.load.rate_rps * self.load.duration_s
        first, last = self._seen[0], self._seen[-1]
        span_s = last.elapsed_s - first.elapsed_s
        if span_s < self.load.duration_s / 4:
            return None
        ended = last.completed + last.failed - first.completed - first.failed
        return ended / span_s * self.load.duration_s

    def _backlog(self) -> Backlog | None:
        if self.load.rate_rps is None:
            return None
        columns: Any = zip(
            *((p.elapsed_s, p.in_flight, p.completed + p.failed) for p in self._seen), strict=True
        )
        at_s, in_flight, ended = (np.array(column, dtype=float) for column in columns)
        return backlog(at_s, in_flight, ended, self.load.rate_rps, chance=CHANCE_OF_MANY)
