"""For each point that regressed: what was seen there in the baseline and in the candidate."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.captures import Capture
from harness.columns import metric
from harness.errors import UserError
from harness.guard.outcome import Comparison, Judgement, Verdict
from harness.guard.summary import change
from harness.report.blocks import Block, Gallery, Items, Part, Picture, Section, Text
from harness.report.contents import Contents, read
from harness.report.profiled import capture_command, capture_part, diff_part
from harness.report.verdict import point_label
from harness.study import Study


def evidence(told: Comparison, candidate: Contents) -> Section | None:
    regressed = told.of(Verdict.REGRESSED)
    if not regressed:
        return None
    baseline = _baseline(told, candidate)
    by_point: dict[str, list[Judgement]] = {}
    for each in regressed:
        by_point.setdefault(point_label(each.point), []).append(each)
    parts = tuple(
        Part(title=label, blocks=tuple(_point(label, mine, baseline, candidate)))
        for label, mine in by_point.items()
    )
    return Section(id="evidence", title="Evidence for what regressed", blocks=parts)


def _baseline(told: Comparison, candidate: Contents) -> Contents | None:
    """The other study, by its path as it was given, or beside the candidate's."""
    named = Path(told.baseline.study)
    for folder in (named, candidate.folder.parent / named.name):
        try:
            return read(Study(folder), remake=False)
        except UserError:
            continue
    return None


def _point(
    label: str, mine: Sequence[Judgement], baseline: Contents | None, candidate: Contents
) -> Iterator[Block]:
    yield Items(items=tuple(_sentence(each) for each in mine))
    if baseline is None and mine[0].baseline_runs:
        yield Text(text="The baseline's study is not here: only the candidate is shown.")
    sides = [("baseline", baseline, mine[0].baseline_runs)] if baseline else []
    found: dict[str, Capture] = {}
    pictures: list[Picture] = []
    for name, contents, runs in [*sides, ("candidate", candidate, mine[0].candidate_runs)]:
        pictures += _timeline(name, contents, runs)
        capture = next((c for c in contents.captures if c.run in runs and not c.reason), None)
        if capture is not None:
            found[name] = capture
            yield capture_part(contents, capture, candidate.folder, where=f"{name}: ")
        else:
            yield Text(text=f"No trace of the {name} at this point. This captures one:")
            yield capture_command(contents, label.replace(", ", ","))
    if len(found) == 2 and all(each.findings is not None for each in found.values()):
        yield diff_part(found["baseline"], found["candidate"], "baseline", "candidate")
    if pictures:
        yield Gallery(pictures=tuple(pictures))


def _sentence(told: Judgement) -> str:
    name, form = metric(told.metric)
    values = [form(v) if v is not None else "–" for v in (told.baseline, told.candidate)]
    changed = f" ({change(told.ratio)})" if told.ratio is not None else ""
    reason = f": {told.reason}" if told.reason else ""
    return f"{name}: {values[0]} → {values[1]}{changed}{reason}"


def _timeline(name: str, contents: Contents, runs: Sequence[str]) -> Iterator[Picture]:
    """Of one run: those of all would say the same."""
    for run in runs:
        if (path := contents.timeline(run)) is not None:
            yield Picture(file=path, caption=f"{name}: run {run}")
            return
