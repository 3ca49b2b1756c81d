"""Runs `python -m harness` as people do, and finds every process that it leaves behind."""

import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

# Two cores and neighbours: limits say when something hangs, not how long it takes.
LIMIT_S = 240.0  # of one command; a busy machine takes several times its usual
QUICK = [
    "engine=sim",
    "model=tiny",
    "load.input_tokens=32",
    "load.output_tokens=8",
    "load.warmup_s=0.2",
    "load.warmup_max_s=1",
    "load.ramp_s=0.1",
    "load.duration_s=0.6",
    "client.calibrate=false",
]


@dataclass
class Tool:
    """`python -m harness` in an empty folder of its own."""

    folder: Path
    limit_s: float = LIMIT_S
    tag: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, *words: str, **options: Any) -> "subprocess.Popen[str]":
        env = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *words],
            cwd=self.folder,
            env=env | {"HARNESS_TEST_TAG": self.tag, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background jobs ignore SIGINT, and what they start inherits it.
            preexec_fn=_hear_interrupts,
            **options,
        )

    def __call__(self, *words: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(*words)
        out, err = process.communicate(timeout=self.limit_s)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def processes(self) -> list[psutil.Process]:
        """All processes that this tool started, whoever their parent is now."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("HARNESS_TEST_TAG") == self.tag:
                    found.append(process)
            except psutil.Error:
                continue
        return [p for p in found if p.status() != psutil.STATUS_ZOMBIE]

    def wait_until_gone(self, limit_s: float = 5.0) -> list[psutil.Process]:
        """What is still alive after `limit_s`, as soon as nothing is."""
        deadline_s = time.perf_counter() + limit_s
        while (alive := self.processes()) and time.perf_counter() < deadline_s:
            time.sleep(0.05)
        return alive

    def study(self, sweep: str) -> Path:
        """The one study of a sweep."""
        (folder,) = (self.folder / "results" / sweep).glob("*-*")
        return folder


def table(study: Path) -> pd.DataFrame:
    return pd.read_parquet(study / "table.parquet")


def run_times(study: Path) -> dict[str, int]:
    """When each run of a study was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in study.glob("runs/*/run.json")}


def wait_for_line(process: "subprocess.Popen[str]", text: str) -> None:
    """Read the process' output up to the line that holds `text`."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    assert process.stderr is not None
    raise AssertionError(f"ended without {text!r}: {process.stderr.read()}")


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
