"""A study's profiles on disk: what was captured for each run, with its findings."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles.findings import Findings, from_json

PAGE, FINDINGS, STRIP, RECORD = "findings.md", "findings.json", "strip.png", "profile.json"
TRACES = ("*.nsys-rep", "trace.sqlite.xz", "traces")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One capture, successful or not."""

    run: str
    folder: Path
    record: dict[str, Any]  # profile.json
    findings: Findings | None  # None: not made, or by another version
    page: str | None  # findings.md, for findings that cannot be read as numbers
    strip: Path | None
    traces: tuple[Path, ...]

    @property
    def kind(self) -> str:
        return str(self.record.get("kind", self.folder.name))

    @property
    def reason(self) -> str | None:
        """Why there is no profile; None if there is one."""
        return None if self.record.get("status") == "ok" else str(self.record.get("reason"))


def captures(study: Path, runs: Iterable[str]) -> tuple[Capture, ...]:
    """The captures of these runs, in their order."""
    return tuple(capture for run in runs for capture in _of_run(study, run))


def _of_run(study: Path, run: str) -> Iterator[Capture]:
    for record in sorted((study / "runs" / run / "profile").glob(f"*/{RECORD}")):
        try:
            told = dict(json.loads(record.read_text()))
        except (OSError, ValueError):
            continue  # writing it was interrupted: treated as absent
        folder = record.parent
        page, strip = folder / PAGE, folder / STRIP
        yield Capture(
            run=run,
            folder=folder,
            record=told,
            findings=_findings(folder / FINDINGS),
            page=page.read_text(errors="replace") if page.is_file() else None,
            strip=strip if strip.is_file() else None,
            traces=tuple(path for name in TRACES for path in sorted(folder.glob(name))),
        )


def _findings(path: Path) -> Findings | None:
    try:
        return from_json(path.read_text())
    except (OSError, ValueError):
        return None
