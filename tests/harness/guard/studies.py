"""Studies as a comparison sees them, made by hand: launches with values that we choose."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.guard.config import Guard, read_guard
from harness.guard.evidence import Evidence, Measured

THROUGHPUT = "output_tok_per_s"
LOAD = {"arrival": "closed", "concurrency": 8, "rate_rps": None}
ENVIRONMENT = {
    "gpus": [{"name": "NVIDIA H200", "uuid": "GPU-1", "power_limit_w": 700.0}],
    "driver_version": "580.159.04",
    "packages": {"torch": "2.11.0", "vllm": "0.25.1"},
    "variables": {},
    "host": {"cpu_model": "Xeon", "num_cpus_usable": 32, "cgroup_cpus": None},
}
STEADY = (1000.0, 1004.0, 997.0, 1001.0, 999.0)


def about(**changes: Any) -> dict[str, Any]:
    told = {
        "measurement_version": 2,
        "engine": "vLLM 0.25.1 on 1x NVIDIA H200",
        "simulated": False,
        "model": {"name": "tiny", "path": None},
        "options": {"seed": 0, "client": {"workers": None}},
        "environment": ENVIRONMENT,
    }
    return told | changes


def measured(number: int, value: float | None, **changes: Any) -> Measured:
    """One run of launch `number`; `row` and `engine` add to what is there."""
    point = changes.pop("point", "p")
    row = {"status": "ok", "simulated": False, "vllm_version": "0.25.1", THROUGHPUT: value}
    row |= changes.pop("row", {})
    told = {
        "id": f"{point}-{number}-{changes.get('run_repeat', 1)}",
        "launch": f"launch-{number}",
        "launch_repeat": number,
        "run_repeat": 1,
        "begun_at_s": 100.0 * number,
        "engine": {"max_num_seqs": 16} | changes.pop("engine", {}),
        "load": LOAD,
        "validity": (),
        "prompts": {0: (64, 16)},
        "has_samples": True,
    }
    return Measured(row=row, **(told | changes))


def evidence(runs: Sequence[Measured], folder: str = "baseline", **changes: Any) -> Evidence:
    told = about(runs=[run.id for run in runs]) | changes
    return Evidence(folder=Path(folder), about=told, runs=tuple(runs))


def baseline(values: Sequence[float | None] = STEADY, **changes: Any) -> Evidence:
    """A study of one point, a launch a value."""
    runs = [measured(i, value) for i, value in enumerate(values, 1)]
    return evidence(runs, **changes)


def candidate(
    values: Sequence[float | None] = STEADY, *, run: dict[str, Any] | None = None, **changes: Any
) -> Evidence:
    """Another one, measured after the baseline."""
    runs = [
        measured(i, value, **({"begun_at_s": 10_000.0 + 100 * i} | (run or {})))
        for i, value in enumerate(values, 1)
    ]
    return evidence(runs, "candidate", **changes)


def slower(frac: float, values: Sequence[float] = STEADY) -> list[float]:
    return [value * (1 - frac) for value in values]


def guard(*metrics: str) -> Guard:
    made = read_guard("default")
    made.metrics = list(metrics or (THROUGHPUT,))
    return made
