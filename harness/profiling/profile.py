"""One profile: a trace of a point, its findings and its strip, in their own folder.

No measured number comes from it; the findings come with how much the profiler slowed the server. A
capture that fails is recorded with its reason, and costs nothing else.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from harness.captures import FINDINGS, PAGE, RECORD, STRIP
from harness.engines.failure import EngineFailed
from harness.profiling.capture import Equipment, Trace
from harness.profiling.subject import Subject
from harness.strip_plot import draw_strip
from harness.study import Study
from loadgen.generator import WorkerError
from profiles import source
from profiles.errors import CaptureFailed, ProfileError
from profiles.findings import analyse
from profiles.page import page
from profiles.strip import strip


def folder_of(study: Study, run: str, kind: str) -> Path:
    """The folder for the profile of a run."""
    return study.folder / "runs" / run / "profile" / kind


def is_done(folder: Path, *, retry: bool) -> bool:
    """Whether there is a profile, or a failed one that is not to be retried."""
    try:
        told = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return False
    return bool(told["status"] == "ok" or not retry)


def make(subject: Subject, study: Study, run: str, equipment: Equipment) -> str:
    """Capture and explain, replacing an earlier profile; returns how it went, for people."""
    profile = equipment.profile
    folder = folder_of(study, run, profile.kind)
    if folder.exists():  # a capture that failed, or was cut off
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    told: dict[str, Any] = {"kind": profile.kind, "seconds": profile.seconds}
    try:
        rate = _explained(subject, folder, equipment)
    except (ProfileError, EngineFailed, WorkerError) as error:
        failure, reason = _failure(error)
        told |= {"status": "failed", "failure": failure, "reason": reason}
        said = f"no profile: {reason}"
    else:
        measured = _measured(study, run)
        slower_frac = 1 - rate / measured if measured else None
        told |= {"status": "ok", "output_tok_per_s": rate, "slower_frac": slower_frac}
        slower = "" if slower_frac is None else f", {slower_frac:.0%} slower than measured"
        said = f"profile{slower}: {folder / PAGE}"
    (folder / RECORD).write_text(json.dumps(told, indent=1) + "\n")
    return said


def _explained(subject: Subject, folder: Path, equipment: Equipment) -> float:
    """Capture, write the findings, and return the output tokens/s under the profiler."""
    captured = Trace.capture(subject, folder, equipment)
    equipment.phase("analyse")
    trace = source.read(captured.path)
    findings = analyse(trace)
    (folder / PAGE).write_text(page(findings))
    (folder / FINDINGS).write_text(findings.as_json() + "\n")
    if trace.devices:
        draw_strip(strip(trace), subject.title, folder / STRIP)
    return captured.output_tok_per_s


def _failure(error: Exception) -> tuple[str, str]:
    """The kind and the message of a failure."""
    match error:
        case EngineFailed():
            return error.failure.kind, error.failure.message
        case CaptureFailed():
            return error.kind, str(error)
        case WorkerError():
            return "harness", str(error)
        case _:
            return "bad_trace", str(error)


def _measured(study: Study, run: str) -> float | None:
    """The output_tok_per_s of the same run without a profiler."""
    path = study.folder / "table.parquet"
    if not path.is_file():
        return None
    table = pd.read_parquet(path)
    rows = table[table["run"] == run]
    return None if rows.empty else float(rows["output_tok_per_s"].iloc[0])
