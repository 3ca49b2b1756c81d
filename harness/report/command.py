"""`python -m harness report`: command-line words in, a page out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.artefacts import left_out
from harness.errors import UserError
from harness.guard.command import allowed, parted
from harness.guard.outcome import Comparison
from harness.report.comparison import read
from harness.report.report import write_report
from harness.study import Study
from profiles.config import Profile

USAGE = "report STUDY [against=BASELINE [allow=WHAT] | comparison=FILE.json] [profile=nsys]"
NAMES = ("against", "allow", "comparison", "profile", "profile.points", "profile.seconds")


def run(words: Sequence[str]) -> int:
    """Carry out the verb; returns the exit code. Raises UserError."""
    folders, said = parted(words, verb="report", names=NAMES, usage=USAGE)
    if len(folders) != 1 or {"against", "comparison"} <= said.keys():
        raise UserError(f"report takes one study's folder: python -m harness {USAGE}.")
    study = Path(folders[0])
    compared = None
    if "comparison" in said:
        compared = read(Path(said["comparison"]))
        _check_about(study, compared, said["comparison"])
    profile, points = _profile(said)
    if "against" in said:
        compared = _compared(Path(said["against"]), study, allowed(said))
    if profile.kind != "none":
        _capture(compared, study, profile, points)
    reported = Study(study)
    page = write_report(reported, compared)
    for note in left_out(reported):
        print(f"note: {note}")
    print(f"report: {page}")
    return 0


def _profile(said: Mapping[str, str]) -> tuple[Profile, int]:
    """How regressed points are captured, and how many of them. Raises UserError."""
    from pydantic import TypeAdapter, ValidationError

    from harness.guard.config import broken
    from harness.report.traces import POINTS

    told = {"kind": said.get("profile", "none")}
    if "profile.seconds" in said:
        told["seconds"] = said["profile.seconds"]
    try:
        profile = TypeAdapter(Profile).validate_python(told)
    except ValidationError as error:
        raise UserError(f"profile.{broken(error)[0]}") from None
    if profile.kind == "none" and any(name.startswith("profile.") for name in said):
        raise UserError("what is captured is said by profile=nsys or profile=torch.")
    number = said.get("profile.points", str(POINTS))
    if not number.isdecimal() or not int(number):
        raise UserError(
            f"profile.points={number}: the number of points that are captured, 1 or more."
        )
    return profile, int(number)


def _capture(compared: Comparison | None, study: Path, profile: Profile, points: int) -> None:
    from harness.report.traces import baseline_of, capture

    if compared is None:
        raise UserError(
            f"profile={profile.kind} captures what has regressed: say against=BASELINE."
        )
    capture(compared, baseline_of(compared, study), Study(study), profile, points)


def _check_about(study: Path, told: Comparison, file: str) -> None:
    """Raises UserError unless the comparison judged this study.

    The study is recognised by its path, or by its name if folders have moved.
    """
    here, candidate, baseline = (
        path.resolve() for path in (study, Path(told.candidate.study), Path(told.baseline.study))
    )
    if here == candidate or (here != baseline and here.name == candidate.name):
        return
    if here == baseline or here.name == baseline.name:
        judged = told.candidate.study
        raise UserError(
            f"comparison={file}: that comparison judges {judged} by this study: report {judged}."
        )
    raise UserError(
        f"comparison={file}: that comparison is about {told.candidate.study} against"
        f" {told.baseline.study}, not about {study}."
    )


def _compared(baseline: Path, study: Path, allow: Sequence[str]) -> Comparison:
    """The guard's comparison, as `compare` makes it."""
    from harness.guard.comparison import compare
    from harness.guard.config import read_guard
    from harness.guard.evidence import read_evidence

    sides = (read_evidence(baseline), read_evidence(study))
    return compare(*sides, read_guard("default"), allow=allow)
