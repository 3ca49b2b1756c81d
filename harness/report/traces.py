"""Captures traces for a report: of baseline and candidate, at the points that regressed the most.

They are stored with each study's runs, like those of a sweep, and are not captured again. Nothing
is started unless everything can be captured: only the machine that was measured can explain its
numbers.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from harness.continuity import changed
from harness.engines.config import VllmEngine
from harness.environment import snapshot, vllm_installed
from harness.errors import UserError
from harness.guard.outcome import Comparison, Judgement, Outcome
from harness.guard.summary import regressed_points
from harness.instrument import Instrument
from harness.profiling.capture import Equipment
from harness.profiling.profile import folder_of, is_done, make
from harness.profiling.subject import Subject, stored_engine, stored_model
from harness.report.verdict import point_label
from harness.rules import check_profiler
from harness.study import SavedRun, Study
from harness.units import plural
from profiles.config import Profile

POINTS = 2  # a point costs two starts of a server


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A trace that is missing, for one side at one point."""

    side: str
    study: Study
    run: SavedRun
    point: str

    @property
    def label(self) -> str:
        return f"{self.side}, {self.point}"


def capture(
    told: Comparison, baseline: Study | None, candidate: Study, profile: Profile, points: int
) -> None:
    """Capture the missing traces of the `points` worst points. Raises UserError if one cannot be.

    `baseline` is None for a policy, or if the baseline's study is not here.
    """
    worst = regressed_points(told)
    if not worst:
        what = (
            "the comparison is refused"
            if told.verdict is Outcome.REFUSED
            else "nothing has regressed"
        )
        print(f"{what}: nothing to capture", flush=True)
        return
    wanted = list(_wanted(worst[:points], baseline, candidate, profile.kind))
    subjects = [_subject(each, profile.kind) for each in wanted]
    if len(worst) > points:
        print(f"{len(worst)} points regressed: capturing the worst {points} (profile.points=N)")
    started = f"{plural(len(wanted), 'trace')} to capture, with a server start each"
    print(started if wanted else "all traces exist already", flush=True)
    with ExitStack() as locked:
        for study in {each.study.folder: each.study for each in wanted}.values():
            study.lock()
            locked.callback(study.close)
        for each, subject in zip(wanted, subjects, strict=True):
            print(f"capture {each.label}", flush=True)
            print(f"  {_captured(each, subject, profile)}", flush=True)


def _wanted(
    points: Sequence[Sequence[Judgement]], baseline: Study | None, candidate: Study, kind: str
) -> Iterator[Wanted]:
    """A good run of each side of each point, if none of the side's runs there has a profile."""
    for first, *_ in points:
        for side, study, runs in (
            ("baseline", baseline, first.baseline_runs),
            ("candidate", candidate, first.candidate_runs),
        ):
            if study is None or any(is_done(folder_of(study, r, kind), retry=True) for r in runs):
                continue
            good = [run for run in study.runs() if run.ok and run.record["id"] in runs]
            if good:
                point = point_label(first.point)
                yield Wanted(side=side, study=study, run=good[0], point=point)


def _subject(wanted: Wanted, kind: str) -> Subject:
    """What is to be captured. Raises UserError if it was measured in another environment."""
    about, engine = wanted.study.about, stored_engine(wanted.run)
    check_profiler(kind, engine.kind)
    assert isinstance(engine, VllmEngine)
    here = snapshot(engine.python)
    begun = about.get("environment")
    what = "which is not recorded" if begun is None else changed(begun, here)
    if what is not None:
        raise UserError(
            f"profile={kind} needs the environment in which {wanted.study.folder} was measured"
            f" ({what}): capture there, or leave profile= out."
        )
    build = vllm_installed(engine.python)
    return Subject.of(
        wanted.run,
        stored_model(about),
        engine,
        () if build and build.is_cpu else tuple(gpu.uuid for gpu in here.gpus),
        f"{about['sweep']}: {about['model']['name']}, {wanted.label}",
    )


def _captured(wanted: Wanted, subject: Subject, profile: Profile) -> str:
    """Capture one trace; returns a line on how it went."""
    begun = wanted.study.about.get("instrument")
    instrument = Instrument.from_study(begun) if begun else Instrument.none()
    equipment = Equipment(
        profile=profile, instrument=instrument, models=wanted.study.models, phase=lambda _: None
    )
    with instrument.apart():
        return make(subject, wanted.study, wanted.run.record["id"], equipment)


def baseline_of(told: Comparison, candidate: Path) -> Study | None:
    """The baseline's study, at its given path or beside the candidate; None if it is gone.

    None for a policy, too, which is not a study.
    """
    named = Path(told.baseline.study)
    for folder in (named, candidate.parent / named.name):
        if (folder / "study.json").is_file():
            return Study(folder)
    return None
