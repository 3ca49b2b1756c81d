"""Studies with samples made by hand, for tables and plots."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from harness.config import compose
from harness.overrides import parse
from harness.plan import Plan, Run, make_plan
from harness.study import Study
from loadgen.records import RequestRow, Window

WINDOW = Window(
    started_at_s=100.0,
    opened_at_s=105.0,
    closed_at_s=115.0,
    ended_at_s=115.0,
    clock_monotonic_s=100.0,
    clock_utc_ns=1_700_000_000_000_000_000,
)


def plan(*words: str, conf: Path | None = None) -> Plan:
    said = ["engine=sim", "sweep=single", "model=tiny", *words]
    return make_plan(compose(parse(said), conf), ())


def about(made: Plan, *, simulated: bool = False) -> dict[str, Any]:
    return {
        "engine": "vLLM 0.25.1 on 2x NVIDIA H200",
        "simulated": simulated,
        "model": {"name": "tiny"},
        "load": "closed loop, 64 tokens in, 4 out",
        "instrument": {
            "calibration": {
                "at_load": {"ttft_error_p50_s": 1e-4, "ttft_error_p99_s": 1e-3},
                "clean_chunks_per_s": 60_000.0,
            }
        },
        "axes": made.axes,
        "runs": [run.id for run in made.runs],
    }


def study(out: Path, made: Plan, *, simulated: bool = False) -> Study:
    return Study.open(out, made, about(made, simulated=simulated), fresh=False)


def requests(num: int, ttft_s: float, tpot_s: float, output_tokens: int = 4) -> dict[str, Any]:
    """`num` requests one after another in the window, and two before it, all alike."""
    duration_s = ttft_s + tpot_s * (output_tokens - 1)
    sent_at_s = np.concatenate([[101.0, 102.0], 105.0 + np.arange(num) * (9.9 / num)])
    rows = []
    for index, at_s in enumerate(sent_at_s):
        row = RequestRow(
            request=index,
            conversation=index,
            turn=1,
            stream=index % 2,
            due_at_s=at_s,
            sent_at_s=at_s,
            first_at_s=at_s + ttft_s,
            last_at_s=at_s + duration_s,
            ended_at_s=at_s + duration_s,
            input_tokens_asked=64,
            output_tokens_asked=output_tokens,
            input_tokens=64,
            output_tokens=output_tokens,
            cached_tokens=0,
            num_chunks=output_tokens,
            status="ok",
            failure="",
            http_status=200,
            finish_reason="length",
            detail="",
        )
        rows.append(asdict(row))
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    chunk_at_s = [at_s + ttft_s + k * tpot_s for at_s in sent_at_s for k in range(output_tokens)]
    owners = np.repeat(np.arange(len(sent_at_s)), output_tokens)
    return {"requests": columns, "chunks": {"request": owners, "at_s": np.array(chunk_at_s)}}


def record(made: Plan, run: Run, folder: Path, **changes: Any) -> dict[str, Any]:
    launch = next(x for x in made.launches if run in x.runs)
    return {
        "id": run.id,
        "point": run.point,
        "launch": folder.name,
        "launch_repeat": launch.repeat,
        "run_repeat": run.repeat,
        "seed": run.seed,
        "case": run.case,
        "place": run.place,
        "engine": asdict(launch.engine),
        "load": asdict(run.load),
        "window": asdict(WINDOW),
        "client": {"cpu_frac": 0.2},
        "not_monitored": [],
        "status": "ok",
    } | changes


def void(kept: Study, *runs: str) -> None:
    """Say of these runs of a study that the load generator was busy in them."""
    for saved in kept.runs(runs):
        told = saved.record | {"client": {"cpu_frac": 0.95}}
        (saved.folder / "run.json").write_text(json.dumps(told))


def fill(kept: Study, made: Plan, *, num: int = 700, ttft_s: float = 0.05) -> None:
    """Save every run of the plan; later launches answer more requests."""
    for index, launch in enumerate(made.launches):
        folder = kept.new_launch(launch.id)
        facts = {"vllm_version": "0.25.1", "max_num_batched_tokens": 8192}
        startup_s = {"imports": 17.0, "weights": 2.0}
        kept.save_launch(folder, {"gpus": launch.gpus, "facts": facts, "startup_s": startup_s})
        for run in launch.runs:
            samples = requests(num * (index + 1), ttft_s, 0.01)
            kept.save_run(run.id, record(made, run, folder), **samples)
