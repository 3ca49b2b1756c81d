"""Runs in other tools' formats: vllm_bench.json, as `vllm bench serve` writes it in detail.

Like the tables it is made from the raw samples, after the sweep, so as not to delay its runs.
"""

import json
from typing import Any

from harness.axes import axis_values
from harness.study import SavedRun, Study
from loadgen.config import Load
from loadgen.records import Window
from loadgen.vllm_bench import vllm_bench_json

VLLM_BENCH = "vllm_bench.json"


def export(study: Study) -> None:
    """Write the files that are missing beside the runs' samples. A run cut short has none.

    One that is there is kept: what it is made from was settled before the run was saved, and it
    takes ten times as long to make as the run's row of the table.
    """
    about = study.about
    for run in study.runs():
        if run.whole and not (run.folder / VLLM_BENCH).exists():
            document = json.dumps(vllm_bench(run, about), allow_nan=False) + "\n"
            draft = run.folder / f".{VLLM_BENCH}"
            draft.write_text(document)
            draft.rename(run.folder / VLLM_BENCH)


def vllm_bench(run: SavedRun, about: dict[str, Any]) -> dict[str, Any]:
    """One run's document; axis values are in it as flat keys, as in vLLM's own sweeps."""
    return vllm_bench_json(
        run.samples("requests"),
        run.samples("chunks"),
        window=Window(**run.record["window"]),
        load=Load(**run.record["load"]),
        model=run.launch.get("model") or about["model"]["name"],
        metadata={"run_number": run.record["run_repeat"], **axis_values(run.record, about["axes"])},
    )
