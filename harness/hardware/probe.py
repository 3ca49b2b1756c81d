"""A probe: one family of measurements, in its own process with a time limit.

The process is started ahead of its turn, so that it imports PyTorch while the family before it
measures, and begins when told to. If it then hangs or crashes, only its own numbers are lost: those
printed so far are kept, and its standard error says why there are no more. Output goes to files,
because a pipe that is not read would block it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from harness.hardware.probes.record import Measurement, read

PROGRAMS = Path(__file__).resolve().parent  # where `python -m probes` finds them
STDERR_LINES = 20
KILL_S = 20.0  # after SIGKILL: the kernel frees a GPU's memory before the process is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What to run, where, and the time limit."""

    family: str
    gpus: tuple[int, ...]  # NVML's indices
    uuids: tuple[str, ...]  # of the same cards: the only ones it may see
    options: dict[str, Any]  # those of harness.hardware.probes.options.Options
    limit_s: float  # from its turn on, including the rest of its imports
    python: str | None = None  # the interpreter that has PyTorch; None: this one

    @property
    def label(self) -> str:
        return "-".join([self.family, *map(str, self.gpus)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a probe's process ended, and everything it had printed by then."""

    probe: Probe
    measurements: tuple[Measurement, ...]
    about: tuple[dict[str, Any], ...]
    failure: str | None  # a sentence; None if it finished
    stderr: str  # the last lines
    took_s: float

    def series(self) -> dict[str, Any] | None:
        """The samples of the steady state, if it has any."""
        return next((told["series"] for told in self.about if "series" in told), None)


class ProbeProcess:
    """A started probe. Leaving the context ends it and all processes it started."""

    def __init__(self, probe: Probe, folder: Path) -> None:
        self.probe = probe
        self._out = folder / f"{probe.label}.jsonl"
        self._err = folder / f"{probe.label}.stderr"
        self._began_at_s = perf_counter()

    def __enter__(self) -> Self:
        python = shutil.which(self.probe.python or sys.executable) or str(self.probe.python)
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                # absolute, but with links unresolved: Python finds its virtual environment by path
                [os.path.abspath(python), "-m", "probes", self.probe.family, self._options()],  # noqa: PTH100
                cwd=PROGRAMS,
                env=environment(self.probe, os.environ),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                start_new_session=True,  # the harness handles Ctrl-C, and ends the whole group
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # a "go" that it never read may still be buffered
            self._process.stdin.close()

    def begin(self) -> None:
        """Tell it that its turn has come."""
        self._began_at_s = perf_counter()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is gone already, which `outcome` reports
            self._process.stdin.write(b"go\n")
            self._process.stdin.flush()

    def outcome(self) -> Outcome:
        """Wait until it ends or reaches its limit."""
        left_s = self.probe.limit_s - (perf_counter() - self._began_at_s)
        try:
            code: int | None = self._process.wait(max(0.0, left_s))
        except subprocess.TimeoutExpired:
            code = None
        took_s = perf_counter() - self._began_at_s
        self._kill()
        told = [read(line) for line in self._out.read_text(errors="replace").splitlines()]
        about = tuple(part for part in told if isinstance(part, dict))
        is_done = any("done" in part for part in about)
        return Outcome(
            probe=self.probe,
            measurements=tuple(part for part in told if isinstance(part, Measurement)),
            about=about,
            failure=_failure(code, self.probe.limit_s, is_done=is_done),
            stderr="\n".join(self._err.read_text(errors="replace").splitlines()[-STDERR_LINES:]),
            took_s=took_s,
        )

    def _options(self) -> str:
        return json.dumps(self.probe.options | {"gpus": self.probe.gpus})

    def _kill(self) -> None:
        """End the whole process group: a family for several cards has one process per card."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # stuck in the driver: nothing more can be done
            self._process.wait(KILL_S)


def environment(probe: Probe, environ: Mapping[str, str]) -> dict[str, str]:
    """The probe's environment, which shows its own cards only; NCCL's variables are unchanged."""
    changed = dict(environ)
    if probe.uuids:
        changed["CUDA_VISIBLE_DEVICES"] = ",".join(probe.uuids)
    if probe.options.get("rehearsal"):
        changed["TRITON_INTERPRET"] = "1"  # Triton's kernels run on the CPU
    return changed


def _failure(code: int | None, limit_s: float, *, is_done: bool) -> str | None:
    if code is None:
        return f"it was ended at its limit of {limit_s:g} s"
    if code < 0:
        return f"it died of {signal.Signals(-code).name}"
    if code or not is_done:
        return f"it ended early, exit code {code}"
    return None


def run_together(started: Sequence[ProbeProcess]) -> list[Outcome]:
    """Let these measure at the same time, one on each card, and wait for all."""
    for process in started:
        process.begin()
    return [process.outcome() for process in started]
