"""Tasks of lm-evaluation-harness, run against the measured server through /v1/completions.

lm_eval runs as a separate program, in an interpreter that has it; what it asks and how it scores
are up to it. The command line and the results are those of version 0.4.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

from harness.checks.config import TaskAccuracyCheck
from harness.engines.failure import tail
from harness.engines.process import Process
from harness.units import percent, plural

NEEDED = ("lm_eval", "transformers", "aiohttp", "requests", "tenacity")  # lm_eval[api], tokenizers
PROBE_S = 60.0
STOP_S = 10.0
METRICS = ("acc", "exact_match")  # shares of correct answers; the first that a task reports counts


class NoScoreError(Exception):
    """lm_eval gave no score; the message says why, and `evidence` has its last lines."""

    def __init__(self, message: str, evidence: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.evidence = tuple(evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The server to ask."""

    url: str
    model: str  # the server's name for it
    tokenizer: str  # a folder or a hub id
    max_model_len: int | None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A task's share of correct answers."""

    task: str
    metric: str  # lm_eval's name for it, e.g. acc,none
    frac: float
    stderr_frac: float | None  # standard error of the mean over samples; None if lm_eval has none
    samples: int | None

    @property
    def text(self) -> str:
        """For people, e.g. "gsm8k 71.2 ± 1.4 % (exact_match,strict-match, 1,319 questions)"."""
        error = "" if self.stderr_frac is None else f" ± {percent(self.stderr_frac)}"
        asked = "" if self.samples is None else f", {plural(self.samples, 'question')}"
        return f"{self.task} {percent(self.frac)}{error} % ({self.metric}{asked})"


def missing(python: str) -> list[str]:
    """The needed packages that an interpreter lacks. Raises OSError or SubprocessError."""
    code = (
        "import sys; from importlib.util import find_spec;"
        "print(*(name for name in sys.argv[1:] if find_spec(name) is None))"
    )
    done = subprocess.run(
        [python, "-c", code, *NEEDED], capture_output=True, text=True, timeout=PROBE_S, check=True
    )
    return done.stdout.split()


def measure(check: TaskAccuracyCheck, endpoint: Endpoint, folder: Path) -> tuple[Score, ...]:
    """Run lm_eval. Its log and its results go to `folder`. Raises NoScoreError."""
    shutil.rmtree(folder, ignore_errors=True)  # earlier results would be taken for this one's
    folder.mkdir(parents=True)
    log = folder / "lm_eval.log"
    # by the environment, because a key must not be on a command line; lm_eval adds "Bearer"
    key = endpoint.headers.get("Authorization", "").removeprefix("Bearer ")
    process = Process(command(check, endpoint, folder), {"OPENAI_API_KEY": key}, log)
    try:
        ended = process.has_exited(within_s=check.timeout_s)
    finally:
        process.stop(STOP_S)
    evidence = tail(log.read_text(errors="replace"))
    if not ended:
        raise NoScoreError(
            f"lm_eval was not done within {check.timeout_s:g} s: lower checks.task_accuracy.limit"
            " or raise checks.task_accuracy.timeout_s",
            evidence,
        )
    told = sorted(folder.rglob("results_*.json"))
    if process.exit_code or not told:
        what = f"ended with exit code {process.exit_code}" if process.exit_code else "wrote nothing"
        raise NoScoreError(f"lm_eval {what}: {(evidence or ('its log is empty',))[-1]}", evidence)
    try:
        return scores(json.loads(told[-1].read_text()), check.tasks)
    except ValueError as error:
        raise NoScoreError(str(error), evidence) from None


def command(check: TaskAccuracyCheck, endpoint: Endpoint, folder: Path) -> list[str]:
    """lm_eval's command line."""
    arguments = {
        "base_url": f"{endpoint.url}/v1/completions",
        "model": endpoint.model,
        "tokenizer": endpoint.tokenizer,
        "tokenizer_backend": "huggingface",
        "num_concurrent": check.concurrency,
        "max_length": endpoint.max_model_len,
    }
    options = {
        "--tasks": ",".join(check.tasks),
        "--limit": check.limit,
        "--num_fewshot": check.num_fewshot,
        "--include_path": check.include_path,
        "--output_path": folder,
        "--model_args": ",".join(f"{n}={v}" for n, v in arguments.items() if v is not None),
    }
    told = [str(w) for name, v in options.items() if v is not None for w in (name, v)]
    # unbuffered, so that its last words come last in its log
    start = [check.python or sys.executable, "-u", "-m", "lm_eval"]
    return [*start, "--model", "local-completions", *told]


def scores(results: Mapping[str, Any], tasks: Sequence[str]) -> tuple[Score, ...]:
    """One score per task or group of tasks. Raises ValueError if one lacks a metric of METRICS.

    lm_eval names a metric NAME,FILTER, and its standard error NAME_stderr,FILTER.
    """
    found = results.get("results") or {}
    counts = results.get("n-samples") or {}
    told = []
    for task in tasks:
        if task not in found:
            raise ValueError(
                f"lm_eval has no score of '{task}', it has: {', '.join(found) or 'none'}"
            )
        values: Mapping[str, Any] = found[task]
        metric = next((m for n in METRICS for m in values if m.partition(",")[0] == n), None)
        if metric is None:
            raise ValueError(
                f"lm_eval's task '{task}' reports neither of {', '.join(METRICS)}:"
                f" {', '.join(m for m in values if ',' in m)}"
            )
        name, _, rest = metric.partition(",")
        stderr = values.get(f"{name}_stderr,{rest}")
        told.append(
            Score(
                task=task,
                metric=metric,
                frac=float(values[metric]),
                stderr_frac=float(stderr) if isinstance(stderr, int | float) else None,
                samples=(counts.get(task) or {}).get("effective"),
            )
        )
    return tuple(told)


def mean(told: Sequence[Score]) -> tuple[float, float | None]:
    """The mean over tasks, with equal weights, and its standard error.

    Tasks are independent, so the error is √(Σ stderr²) / tasks; None if any task has none.
    """
    errors = [one.stderr_frac for one in told]
    known = [error for error in errors if error is not None]
    stderr = sqrt(sum(e * e for e in known)) / len(told) if len(known) == len(told) else None
    return sum(one.frac for one in told) / len(told), stderr
