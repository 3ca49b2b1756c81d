"""`python -m harness report`: words in, a page out."""

from collections.abc import Sequence
from pathlib import Path

from harness.errors import UserError
from harness.overrides import did_you_mean
from harness.report.comparison import Comparison, from_json, read
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
    compared = read(Path(said["comparison"])) if "comparison" in said else None
    if "against" in said:
        compared = _compared(Path(said["against"]), study, said.get("allow", ""))
    print(f"report: {write_report(Study(study), compared)}")
    return 0


def _compared(baseline: Path, study: Path, allow: str) -> Comparison:
    """By the guard, as `compare` does it."""
    from harness.guard.comparison import compare
    from harness.guard.config import read_guard
    from harness.guard.evidence import read_evidence

    sides = (read_evidence(baseline), read_evidence(study))
    allowed = [what for what in allow.split(",") if what]
    return from_json(compare(*sides, read_guard("default"), allow=allowed).to_json())
