"""Studies to report on, made by hand, and pages taken apart."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from harness.captures import FINDINGS, RECORD, STRIP
from harness.study import Study
from tests.harness.builders import fill, plan, record, requests, study

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "results" / "reference"
FINDINGS_OF_A_RUN = REFERENCE / "h200/nsys/runs/29cbeb473c-1-1/profile/nsys" / FINDINGS
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c626001000000ffff03000006000557bfabd40000000049454e44ae426082"
)
COMMAND = "python -m harness sweep=single load.concurrency=1,2"


def finished(out: Path, *words: str, simulated: bool = False) -> Study:
    """A plan's runs, all well; without words, two points with one run each."""
    made = plan(*(words or ("load.concurrency=1,2",)))
    kept = study(out, made, simulated=simulated)
    kept.add(command=COMMAND)
    fill(kept, made)
    return kept


def failed(out: Path, message: str, evidence: list[str], detail: str) -> Study:
    """One point whose server died, and one of whose requests some failed."""
    made = plan("load.concurrency=1,2")
    kept = study(out, made)
    kept.add(command=COMMAND)
    (launch,) = made.launches
    folder = kept.new_launch(launch.id)
    kept.save_launch(folder, {"gpus": launch.gpus, "label": message})
    died, flaky = launch.runs
    failure = {"kind": "died_under_load", "message": message, "evidence": evidence}
    kept.save_run(died.id, record(made, died, folder, status="failed", failure=failure))
    samples = requests(700, 0.05, 0.01)
    columns = samples["requests"]
    for name, value in (("status", "failed"), ("failure", "error_chunk"), ("detail", detail)):
        columns[name] = columns[name].astype(object)
        columns[name][-3:] = value
    kept.save_run(flaky.id, record(made, flaky, folder), **samples)
    return kept


def captured(kept: Study, run: str, **record: Any) -> None:
    """A profile of a run, with findings of a real one."""
    told = {"kind": "nsys", "seconds": 1.0, "status": "ok", "slower_frac": 0.164} | record
    folder = kept.folder / "runs" / run / "profile" / str(told["kind"])
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(json.dumps(told))
    if told["status"] == "ok":
        (folder / FINDINGS).write_text(FINDINGS_OF_A_RUN.read_text())
        (folder / STRIP).write_bytes(PIXEL)
        (folder / "trace.nsys-rep").write_bytes(b"report")


def without_samples(kept: Study) -> None:
    """As it is committed: no samples of any run."""
    for path in (kept.folder / "runs").glob("*/*.parquet"):
        path.unlink()
    for path in (kept.folder / "runs").glob("*/run.json"):
        path.unlink()


def comparison(baseline: Path, candidate: Path, runs: list[str]) -> dict[str, Any]:
    """As `compare` writes it: a regression, what is open, and what is the same."""

    def point(concurrency: int, metric: str, verdict: str, ratio: float, **more: Any) -> Any:
        run = runs[concurrency - 1]
        return {
            "point": {"concurrency": concurrency},
            "metric": metric,
            "baseline": 100.0,
            "candidate": 100.0 * ratio,
            "ratio": ratio,
            "low": ratio - 0.02,
            "high": ratio + 0.02,
            "threshold_frac": 0.03,
            "verdict": verdict,
            "launches": [5, 5],
            "paired": True,
            "more_launches": None,
            "reason": None,
            "baseline_runs": [run],
            "candidate_runs": [run],
        } | more

    def side(folder: Path) -> dict[str, Any]:
        return {"study": str(folder), "engine": "vLLM", "simulated": False, "launches": 5}

    return {
        "verdict": "regressed",
        "summary": "1 of 2 points regressed.",
        "baseline": side(baseline),
        "candidate": side(candidate),
        "refusals": [
            {"what": "driver", "baseline": "580", "candidate": "581", "allowed": True},
        ],
        "thresholds": {"output_tok_per_s": 0.03},
        "confidence": 0.95,
        "family": 3,
        "points": [
            point(2, "output_tok_per_s", "unchanged", 1.0),
            point(2, "ttft_p99_s", "inconclusive", 1.02, more_launches=4, reason="too wide"),
            point(1, "output_tok_per_s", "regressed", 0.5),
        ],
        "variance": [
            {
                "study": "baseline",
                "metric": "output_tok_per_s",
                "point": {"concurrency": 1},
                "between_frac": 0.012,
                "within_frac": None,
                "launches": 5,
                "runs": 5,
            }
        ],
    }


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[tuple[str, str]] = []  # the tag that it is in, and the text
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append((self._open[-1] if self._open else "", data))

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def words(self, *tags: str) -> list[str]:
        """Texts inside these tags, or all that is shown."""
        wanted = [t for t in self.text if (t[0] in tags if tags else t[0] not in HIDDEN)]
        return [" ".join(text.split()) for _, text in wanted if text.strip()]

    @property
    def sections(self) -> list[str]:
        return [attrs["id"] for attrs in self.of("section")]


HIDDEN = ("script", "style", "title")
