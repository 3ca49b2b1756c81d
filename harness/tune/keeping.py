"""An answer on disk: answer.json, and everything that is made from it."""

from pathlib import Path

from harness.config import TUNED
from harness.study import Study
from harness.tables import write_tables
from harness.tune.answer import CONF, JSON, MARKDOWN, Answer
from harness.tune.plots import draw


def keep(answer: Answer, study: Study) -> None:
    """Write the answer, its engine, page and plots, and the study's tables."""
    with study.draft(JSON) as path:
        path.write_text(answer.to_json())
    engine = study.folder / CONF / "engine" / f"{TUNED}.yaml"
    engine.unlink(missing_ok=True)  # it may be of an earlier answer
    if answer.offered is not None:
        engine.parent.mkdir(parents=True, exist_ok=True)
        engine.write_text(answer.offered.engine_yaml)
    write_tables(study)
    draw(answer, study.folder / "plots")
    with study.draft(MARKDOWN) as path:
        path.write_text(page(answer, study.folder))


def page(answer: Answer, folder: Path) -> str:
    """The text of answer.md: the report's tuning section by itself."""
    from harness.report.blocks import Report
    from harness.report.markdown import written
    from harness.report.tuned import tuned
    from harness.tables import SIMULATED

    made = Report(
        title=f"tune {answer.name}: {answer.model}",
        subtitle=f"{answer.engine}. Load: {answer.load}.",
        simulated=SIMULATED if answer.simulated else None,
        sections=(tuned(answer, folder),),
        made="",
    )
    return written(made, folder)
