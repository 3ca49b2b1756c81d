"""Decides, just before a run, which load it sends, if any, and during the run, whether to end it.

Both may depend on what the same launch has shown so far, so they are decided as late as possible. A
run that is not needed is saved as skipped: done, but neither ok nor failed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.capacity.closed import capacity_rps
from harness.capacity.found import capacity_of
from harness.capacity.probe import ProbeJudge, looked_at
from harness.capacity.search import Alone, At, Done
from harness.capacity.text import ended, shown, told
from harness.engines.failure import Failure, FailureKind
from harness.plan import Launch, Run
from harness.study import Study
from loadgen.config import Load, Slo
from loadgen.records import Progress, Result

NO_CAPACITY = Failure(
    kind=FailureKind.NO_CAPACITY,
    message="no closed-loop run of this launch ended well, so its capacity is not known",
    evidence=(),
)


# Called with the progress of one run, about four times per second; a reason ends the run at once.
Judge = Callable[[Progress], str | None]


def never(_: Progress) -> str | None:
    """The judge that ends no run."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """A run is to be made with this load; `judge` follows its progress and may end it."""

    load: Load
    judge: Judge = never
    label: str | None = None  # of this run, if the plan's is not specific enough
    slo: Slo | None = None  # limits whose violations progress counts for the judge
    # One line on the result, instead of the usual; it is given the codes of our own side.
    brief: Callable[[Result, tuple[str, ...]], str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """A run is not needed; `reason` is a sentence without full stop."""

    reason: str


Decision = Send | Skip | Failure  # a Failure: the run is needed but cannot be made
# Asked just before each run, and also before a server is started, because none is needed if all
# remaining runs are skipped. So it may be asked twice about a run, and must have no side effects.
Steering = Callable[[Launch, Run], Decision]
# Loads with a search, and the rate or concurrency to try first.
Starts = Sequence[tuple[Load, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """Follows what the launch's earlier runs found.

    A rate is then a share of their capacity, or the next one of a search. `starts` says where
    searches begin of which nothing is known.
    """

    study: Study
    starts: Starts = ()

    def __call__(self, launch: Launch, run: Run) -> Decision:
        """The decision about a run, with the rate filled in."""
        if run.load.search is not None:
            return self._probe(launch, run)
        if run.load.rate_frac is None:
            return Send(load=run.load)
        found_rps = capacity_rps(self.study, launch.id, run.load)
        return NO_CAPACITY if found_rps is None else Send(load=run.load.at_capacity(found_rps))

    def _probe(self, launch: Launch, run: Run) -> Decision:
        start = next((value for load, value in self.starts if load == run.load), None)
        so_far = capacity_of(self.study, launch.id, run.point, run.load, start)
        match so_far.step:
            case Done():
                return Skip(reason=ended(so_far))
            case Alone():
                load, at = run.load.alone(), ", one request at a time"
            case At(rate=rate):
                load, at = run.load.at_intensity(rate), f" at {shown(rate, run.load)}"
        slo = so_far.slo
        return Send(
            load=load,
            judge=ProbeJudge(load=load, share_frac=slo.share_frac),
            label=f"{run.label}{at}",
            slo=slo,
            brief=lambda result, doubts: told(
                looked_at(result.requests, result.window, load, slo, doubts=doubts),
                slo.share_frac,
            ),
        )
