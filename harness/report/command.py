"""`python -m harness report`: words in, a page out."""

from collections.abc import Sequence
from pathlib import Path

from harness.errors import UserError
from harness.guard.outcome import Comparison
from harness.overrides import did_you_mean
from harness.report.comparison import read
from harness.report.report import write_report
from harness.study import Study

USAGE = "report STUDY [against=BASELINE [allow=WHAT] | comparison=FILE.json]"
NAMES = ("against", "allow", "comparison")


def run(words: Sequence[str]) -> int:
    """Carry out the verb; returns the exit code. Raises UserError."""
    folders = [word for word in words if "=" not in word or Path(word).exists()]
    said = dict(word.split("=", 1) for word in words if word not in folders)
    for name in said:
        if name not in NAMES:
            raise UserError(f"report has no '{name}'.{did_you_mean(name, NAMES)} {USAGE}.")
    if len(folders) != 1 or {"against", "comparison"} <= said.keys():
        raise UserError(f"report takes one study's folder: python -m harness {USAGE}.")
    study = Path(folders[0])
    compared = None
    if "comparison" in said:
        compared = read(Path(said["comparison"]))
        _check_about(study, compared, said["comparison"])
    if "against" in said:
        compared = _compared(Path(said["against"]), study, said.get("allow", ""))
    print(f"report: {write_report(Study(study), compared)}")
    return 0


def _check_about(study: Path, told: Comparison, file: str) -> None:
    """That it is this study which was judged: by its path, or its name if folders have moved."""
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


def _compared(baseline: Path, study: Path, allow: str) -> Comparison:
    """By the guard, as `compare` does it."""
    from harness.guard.comparison import compare
    from harness.guard.config import read_guard
    from harness.guard.evidence import read_evidence

    sides = (read_evidence(baseline), read_evidence(study))
    allowed = [what for what in allow.split(",") if what]
    return compare(*sides, read_guard("default"), allow=allowed)
