"""For each point that regressed: the baseline's and the candidate's traces and timelines."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from harness.captures import Capture
from harness.columns import metric
from harness.errors import UserError
from harness.guard.outcome import Comparison, Judgement
from harness.guard.summary import change, regressed_points
from harness.report.blocks import Block, Gallery, Items, Log, Part, Picture, Section, Text
from harness.report.contents import Contents, read
from harness.report.profiled import capture_part, diff_part, profiler_of
from harness.report.traces import POINTS, baseline_of
from harness.report.verdict import point_label
from harness.units import plural


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One study's runs of a point, and the profile shown for them."""

    name: str  # baseline or candidate
    contents: Contents
    runs: tuple[str, ...]
    capture: Capture | None

    @classmethod
    def of(cls, name: str, contents: Contents, runs: tuple[str, ...], kind: str | None) -> Self:
        """The side with its best capture: an actual profile if any, then one of kind `kind`."""
        mine = [capture for capture in contents.captures if capture.run in runs]
        mine.sort(key=lambda capture: (capture.reason is not None, capture.kind != kind))
        capture = mine[0] if mine else None
        return cls(name=name, contents=contents, runs=runs, capture=capture)

    @property
    def is_traced(self) -> bool:
        return self.capture is not None and self.capture.reason is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point's regressions, and the evidence of both sides."""

    judgements: tuple[Judgement, ...]
    sides: tuple[Side, ...]  # the baseline's, if its study is here, then the candidate's

    @property
    def label(self) -> str:
        return point_label(self.judgements[0].point)

    @property
    def lacks_baseline(self) -> bool:
        """Whether the baseline is a study that is not here."""
        return bool(self.judgements[0].baseline_runs) and len(self.sides) == 1

    @property
    def is_traced(self) -> bool:
        return all(side.is_traced for side in self.sides)


def evidence(told: Comparison, points: Sequence[Point], candidate: Contents) -> Section | None:
    if not points:
        return None
    blocks: list[Block] = list(_missing(told, points, candidate))
    blocks += [Part(title=p.label, blocks=tuple(_blocks(p, candidate))) for p in points]
    return Section(id="evidence", title="Evidence for what regressed", blocks=tuple(blocks))


def points_of(told: Comparison, candidate: Contents) -> Iterator[Point]:
    """The points that regressed, the worst first."""
    if not regressed_points(told):
        return
    baseline = _baseline(told, candidate)
    for judgements in regressed_points(told):
        named = [("candidate", candidate, judgements[0].candidate_runs)]
        if baseline is not None and judgements[0].baseline_runs:
            named.insert(0, ("baseline", baseline, judgements[0].baseline_runs))
        kind = _common_kind([(contents, runs) for _, contents, runs in named])
        yield Point(judgements=judgements, sides=tuple(Side.of(*side, kind) for side in named))


def _baseline(told: Comparison, candidate: Contents) -> Contents | None:
    study = baseline_of(told, candidate.folder)
    try:
        return None if study is None else read(study, remake=False)
    except UserError:
        return None


def _common_kind(sides: Sequence[tuple[Contents, tuple[str, ...]]]) -> str | None:
    """A profiler with which every side was profiled, so that the profiles can be compared."""
    kinds = [
        {c.kind for c in contents.captures if c.run in runs and c.reason is None}
        for contents, runs in sides
    ]
    return min(set.intersection(*kinds), default=None)


def _missing(told: Comparison, points: Sequence[Point], candidate: Contents) -> Iterator[Block]:
    """What is missing, and the command that captures missing traces."""
    lacks_baseline = any(point.lacks_baseline for point in points)
    if lacks_baseline:
        yield Text(text="The baseline's study is not here: only the candidate is shown.")
    untraced = sum(not point.is_traced for point in points)
    if not untraced or candidate.simulated:
        return
    lack = "lacks" if untraced == 1 else "lack"
    yield Text(
        text=f"{plural(untraced, 'point')} {lack} a trace. Where it was measured, this captures it:"
    )
    is_here = told.baseline.launches and not lacks_baseline
    against = f"against={told.baseline.study}" if is_here else "comparison=FILE.json"
    words = ["report", str(candidate.folder), against, f"profile={profiler_of(candidate)}"]
    words += [f"profile.points={len(points)}"] * (len(points) > POINTS)
    yield Log(text=shlex.join(["python", "-m", "harness", *words]))


def _blocks(point: Point, candidate: Contents) -> Iterator[Block]:
    yield Items(items=tuple(_sentence(each) for each in point.judgements))
    captures = [side.capture for side in point.sides if side.capture is not None]
    if len(captures) == 2 and all(each.findings is not None for each in captures):
        yield diff_part(captures[0], captures[1], "baseline", "candidate")
    for side in point.sides:
        if side.capture is not None:
            where = f"{side.name}: "
            yield capture_part(side.contents, side.capture, candidate.folder, where=where)
    if pictures := [picture for side in point.sides for picture in _timeline(side)]:
        yield Gallery(pictures=tuple(pictures))


def _sentence(told: Judgement) -> str:
    name, form = metric(told.metric)
    values = [form(v) if v is not None else "–" for v in (told.baseline, told.candidate)]
    changed = f" ({change(told.ratio)})" if told.ratio is not None else ""
    reason = f": {told.reason}" if told.reason else ""
    return f"{name}: {values[0]} → {values[1]}{changed}{reason}"


def _timeline(side: Side) -> Iterator[Picture]:
    """The timeline of one run; those of the others would show the same."""
    for run in side.runs:
        if (path := side.contents.timeline(run)) is not None:
            yield Picture(file=path, caption=f"{side.name}: run {run}")
            return
