"""Baseline and candidate, measured alternately until the verdict is settled or the budget is spent.

Both are ordinary studies side by side on disk, so they can be compared, tabulated and reported like
any others. They are looked at after fixed numbers of launches. The number of looks is stored with
them, because every look costs a share of the error rate.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, groupby

from harness.artefacts import make
from harness.columns import metric
from harness.config import Config
from harness.duel.blocks import SIDES, Block, Schedule
from harness.export import export
from harness.guard.command import Asked
from harness.guard.comparison import compare
from harness.guard.evidence import engine_settings, read_evidence
from harness.guard.outcome import Comparison, Outcome, Verdict
from harness.guard.pairing import varying
from harness.guard.summary import headline, phrases, place
from harness.instrument import Instrument
from harness.progress import display
from harness.study import Study
from harness.sweep import Sweep, failures, reasons
from harness.units import between, plural, value_text

NAMED = 3  # open questions named in the line about a look


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """Two sweeps, the order of their launches, and how they are judged."""

    baseline: Sweep
    candidate: Sweep
    schedule: Schedule
    looks: tuple[int, ...]  # launches of each engine setting after which there is a verdict
    asked: Asked
    against: str

    @property
    def config(self) -> Config:
        """The configuration that was asked for, i.e. the candidate's."""
        return self.candidate.config

    def plan_text(self) -> str:
        """Both sides' launches in order, the looks, and how long it can take."""
        lines = list(self._head())
        for block in self.schedule.blocks:
            lines.append(f"  block {block.repeat}")
            for _, launch in block.turns:
                lines.append(f"    launch {launch.id}: {launch.label}")
                if block.repeat == 1:
                    lines += [f"      run {run.id}: {run.label}" for run in launch.runs]
        launches = 2 * len(self.schedule.blocks)
        return "\n".join([*lines, f"{plural(launches, 'launch')} at most; nothing was started"])

    def run(self) -> int:
        """Measure what is missing and look, until settled; returns the verdict's exit code.

        Raises UserError if a study cannot be written, or was begun in another environment.
        """
        print("\n".join(self._head()), flush=True)
        with self._opened() as studies:
            try:
                found = self._settle(studies)
            except (KeyboardInterrupt, SystemExit):
                print(self.candidate.stopped())
                raise
            finally:
                for study in studies:
                    make(study)
            for name, study in zip(SIDES, studies, strict=True):
                for line in reasons(failures(study)):
                    print(f"{name}: {line}")
        print()
        return self.asked.conclude(found)

    def _settle(self, studies: Sequence[Study]) -> Comparison:
        """Measure the blocks up to each look, then look; returns what the last look found."""
        instrument: Instrument | None = None
        noted: set[str] = set()  # shared by the displays of all looks
        for number, until in enumerate(self.looks, 1):
            for study, plan in zip(studies, self.schedule.plans(until), strict=True):
                study.add(runs=[run.id for run in plan.runs])  # later runs must not look missing
            due = [block for block in self.schedule.blocks if block.repeat <= until]
            if left := [block for block in due if not self._is_done(block, studies)]:
                instrument = instrument or self._instrument(studies)
                self._measure(left, due, studies, instrument, noted)
            found = self._compared(studies)
            is_last = is_settled(found) or until == self.looks[-1]
            further = f"on to {plural(self.looks[number], 'launch')}" if not is_last else ""
            look = f"look {number} of {len(self.looks)}"
            print(look_line(look, found, until, further), flush=True)
            if is_last:
                break
        return found

    def _measure(
        self,
        left: Sequence[Block],
        due: Sequence[Block],
        studies: Sequence[Study],
        instrument: Instrument,
        noted: set[str],
    ) -> None:
        """Run the blocks, each side into its own study."""
        total, missing = (sum(_runs(block) for block in blocks) for blocks in (due, left))
        with instrument.apart(), display(total, total - missing, noted) as show:
            sweeps = (self.baseline, self.candidate)
            runners = {
                name: sweep.runner(study, instrument, show)
                for name, sweep, study in zip(SIDES, sweeps, studies, strict=True)
            }
            for _, blocks in groupby(left, key=lambda block: block.repeat):
                if self._is_void(studies):
                    break
                for name, launch in chain.from_iterable(block.turns for block in blocks):
                    runners[name].work([launch])
        for study in studies:
            export(study)

    def _is_done(self, block: Block, studies: Sequence[Study]) -> bool:
        """Whether both launches of a block are done; if only one is, both are run again.

        They belong side by side.
        """
        states = [
            study.status(run.id)
            for study, launch in zip(studies, (block.baseline, block.candidate), strict=True)
            for run in launch.runs
        ]
        is_retried = self.config.options.retry and "failed" in states
        return None not in states and not is_retried

    def _is_void(self, studies: Sequence[Study]) -> bool:
        """Whether the comparison is refused already, so that further launches give no verdict."""
        is_there = all(any(True for _ in study.runs()) for study in studies)
        if not is_there or self.config.options.retry:
            return False
        return self._compared(studies).verdict is Outcome.REFUSED

    def _compared(self, studies: Sequence[Study]) -> Comparison:
        baseline, candidate = (read_evidence(study.folder) for study in studies)
        return compare(baseline, candidate, self.asked.guard, allow=self.asked.allow)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Study, Study]]:
        """Open both studies for writing."""
        with ExitStack() as stack:
            mine, theirs = (
                stack.enter_context(sweep.opened(looks=len(self.looks)))
                for sweep in (self.baseline, self.candidate)
            )
            for name, study in zip(SIDES, (mine, theirs), strict=True):
                print(f"{name}: {study.folder}", flush=True)
            yield mine, theirs

    def _instrument(self, studies: Sequence[Study]) -> Instrument:
        """One load generator for both sides, calibrated once."""
        baseline, candidate = studies
        instrument = self.candidate.instrument(candidate)
        baseline.add(instrument=asdict(instrument))
        return instrument

    def _head(self) -> Iterator[str]:
        """Lines on what will be measured, what differs, and how long it may take."""
        mine, theirs = self.baseline.engine_line(), self.candidate.engine_line()
        yield from [theirs] if mine == theirs else [f"baseline, {mine}", f"candidate, {theirs}"]
        name = self.config.model.name
        yield f"sweep {self.candidate.plan.sweep} against {self.against}: {name}"
        changes = list(self._changes())
        yield from changes
        if mine == theirs and not changes:
            yield "nothing differs: this is an A/A comparison"
        yield from (f"note: {note}" for note in self.schedule.notes)
        first, most = self.looks[0], self.looks[-1]
        (least_s, _), (_, most_s) = (self.schedule.span_s(n) for n in (first, most))
        numbers = " and ".join(filter(None, [", ".join(map(str, self.looks[:-1])), str(most)]))
        yield (
            f"at most {plural(most, 'launch')} per engine setting and side, with a verdict after"
            f" {numbers}: {between(least_s, most_s)}"
        )

    def _changes(self) -> Iterator[str]:
        """Lines on how the engines of a block differ; swept settings are the same in both."""
        block = self.schedule.blocks[0]
        engines = [engine_settings(asdict(x.engine)) for x in (block.baseline, block.candidate)]
        for name in varying(engines):
            mine, theirs = (value_text(engine.get(name)) for engine in engines)
            yield f"changed: engine.{name}: {mine} → {theirs}"


def is_settled(found: Comparison) -> bool:
    """Whether the verdict is final, or more launches could not help.

    One regression settles it, whatever else is open: it was found at its share of the error rate.
    """
    is_one_sided = not (found.baseline.launches and found.candidate.launches)
    return found.verdict is not Outcome.INCONCLUSIVE or is_one_sided or not found.points


def look_line(look: str, found: Comparison, launches: int, further: str) -> str:
    """A look in one line: the verdict so far, what is open, and what comes next."""
    told = f"{look}: {headline(found).lower()}"
    if found.points:  # if refused, it may not have been measured up to this look
        told = f"{look}, after {plural(launches, 'launch')} of each side: {headline(found).lower()}"
        told += f" ({', '.join(phrases(found))})"
    waiting = found.of(Verdict.INCONCLUSIVE)
    if waiting:
        named = [
            metric(judgement.metric)[0]
            + place(judgement.point)
            + (f" (+{judgement.more_launches})" if judgement.more_launches else "")
            for judgement in waiting[:NAMED]
        ]
        more = f" and {len(waiting) - NAMED} more" if len(waiting) > NAMED else ""
        told += f"; open: {', '.join(named)}{more}"
    return f"{told}; {further}" if further else told


def _runs(block: Block) -> int:
    return len(block.baseline.runs) + len(block.candidate.runs)
