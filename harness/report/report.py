"""The report card of a study: report.html, a self-contained file, and report.md."""

from datetime import UTC, datetime
from pathlib import Path

from harness.environment import harness_version
from harness.guard.outcome import Comparison
from harness.report import html, markdown
from harness.report.blocks import Report, Section
from harness.report.contents import Contents, read
from harness.report.evidence import evidence, points_of
from harness.report.failures import failures
from harness.report.machine import machine
from harness.report.profiled import profiles
from harness.report.results import capacity, in_short, plots, table, timelines, validity
from harness.report.setup import setup
from harness.report.tuned import tuned
from harness.report.verdict import settling, verdict
from harness.study import Study
from harness.tables import SIMULATED

HTML, MARKDOWN = "report.html", "report.md"


def write_report(study: Study, comparison: Comparison | None = None) -> Path:
    """Write both files into the study's folder; returns the HTML one. Raises UserError."""
    report = compile_report(read(study), comparison)
    with study.draft(MARKDOWN) as path:
        path.write_text(markdown.written(report, study.folder))
    with study.draft(HTML) as path:
        path.write_text(html.written(report))
    return study.folder / HTML


def compile_report(contents: Contents, comparison: Comparison | None) -> Report:
    """The report with all sections that have content, in reading order."""
    about = contents.about
    points = tuple(points_of(comparison, contents)) if comparison else ()
    shown = {s.capture.folder for p in points for s in p.sides if s.capture is not None}
    sections: list[Section | None] = [
        tuned(contents.answer, contents.folder) if contents.answer else None,
        verdict(comparison) if comparison else None,
        in_short(contents) if not (comparison or contents.answer) else None,
        machine(contents),
        setup(contents),
        table(contents),
        capacity(contents),
        plots(contents),
        timelines(contents),
        validity(contents),
        failures(contents),
        profiles(contents, shown),
        evidence(comparison, points, contents) if comparison else None,
        settling(comparison, contents) if comparison else None,
    ]
    simulated = contents.simulated or bool(
        comparison and (comparison.baseline.simulated or comparison.candidate.simulated)
    )
    made_by = harness_version() or "of a checkout"
    return Report(
        title=f"{about['sweep']}: {about['model']['name']}",
        subtitle=f"{about['engine']}. Load: {about['load']}.",
        simulated=SIMULATED if simulated else None,
        sections=tuple(section for section in sections if section is not None),
        made=f"Made by vLLM harness {made_by}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
    )
