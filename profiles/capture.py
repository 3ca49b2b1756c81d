"""Capturing a server: the command lines for it, the tools it needs, and why it failed.

Nsight Systems wraps the server's command. It records from cudaProfilerStart to cudaProfilerStop,
which vLLM calls in every worker on POST /start_profile and /stop_profile, and writes its report
after that range. To get it, the server must be sent SIGINT (the server itself, not nsys), and nsys
waited for. Without --sample=none and --cpuctxsw=none, a second takes 2 GB. PyTorch's profiler needs
no wrapper: on /stop_profile, vLLM writes one trace per rank into a folder.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from profiles.errors import CaptureFailed, CaptureFailure

REPORT = ".nsys-rep"
UNFINISHED = ".qdstrm"
# Versions up to 2022 name options differently, and their exports lack the graph nodes of copies.
OLDEST = (2023, 1)
TOOL_TIMEOUT_S = 600.0
PLACES = (
    "/opt/nvidia/nsight-systems/*/bin/nsys",
    "/opt/nvidia/nsight-systems-cli/*/bin/nsys",
    "/usr/local/cuda*/bin/nsys",
    "/opt/nvidia/nsight-compute/*/host/target-linux-*/nsys",
)
IMPORTERS = ("host-linux-*/QdstrmImporter", "linux-desktop-*/QdstrmImporter")
# With spawn, every worker is a new process; nsys sees none that was forked after CUDA began.
NSYS_ENV: Mapping[str, str] = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
_NO_PERMISSION = re.compile(
    r"INSUFFICIENT_PRIVILEGES|NVGPUCTRPERM|permission denied|operation not permitted", re.IGNORECASE
)
_TOO_OLD = re.compile(r"unrecognised option|unrecognized option|illegal.*argument", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nsys:
    """An installed Nsight Systems."""

    path: Path
    version: tuple[int, ...]

    def prefix(self, report: Path) -> list[str]:
        """What to put before the server's command; `report` is where its report will go."""
        return [
            str(self.path),
            "profile",
            "--sample=none",
            "--cpuctxsw=none",
            "--trace=cuda,nvtx",
            "--capture-range=cudaProfilerApi",
            "--capture-range-end=stop",
            "--kill=sigterm",
            "--cuda-graph-trace=node",
            "--force-overwrite=true",
            f"--output={report.with_suffix('')}",
        ]


def find_nsys(root: Path = Path("/")) -> Nsys:
    """The nsys on PATH, else the newest installed one. Raises CaptureFailed."""
    found = shutil.which("nsys")
    paths = [Path(found)] if found else _installed(root)
    if not paths:
        raise CaptureFailed(
            CaptureFailure.ABSENT,
            "Nsight Systems is not on this machine: no `nsys` on PATH nor below /opt/nvidia"
            " (install nsight-systems-cli, or take profile=torch)",
        )
    nsys = max(_working(paths), key=lambda n: n.version)
    if nsys.version < OLDEST:
        raise CaptureFailed(
            CaptureFailure.TOO_OLD,
            f"{nsys.path} is version {dotted(nsys.version)}, expected {dotted(OLDEST)} or later",
        )
    return nsys


def _working(paths: Sequence[Path]) -> list[Nsys]:
    """Those that tell their version. Raises the last one's CaptureFailed if none does."""
    found, failed = [], None
    for path in paths:
        try:
            found.append(Nsys(path=path, version=version(path)))
        except CaptureFailed as error:
            failed = error
    if failed and not found:
        raise failed
    return found


def _installed(root: Path) -> list[Path]:
    return [path for place in PLACES for path in sorted(root.glob(place.removeprefix("/")))]


def version(nsys: Path) -> tuple[int, ...]:
    """The version that an nsys reports, e.g. (2025, 3, 1). Raises CaptureFailed."""
    told = _output([str(nsys), "--version"], CaptureFailure.OTHER)
    match = re.search(r"(\d{4})\.(\d+)(?:\.(\d+))?", told)
    if match is None:
        raise CaptureFailed(CaptureFailure.OTHER, f"{nsys} --version says {told.strip()!r:.80}")
    return tuple(int(part) for part in match.groups() if part is not None)


def dotted(numbers: Sequence[int]) -> str:
    return ".".join(map(str, numbers))


def profiler_config(kind: Literal["nsys", "torch"], folder: Path) -> dict[str, str | bool]:
    """The value of vLLM's --profiler-config.

    Stacks and the API server's own trace are left out, as they cost more than they tell: a stack
    for each operator slows the server down several times over.
    """
    if kind == "nsys":
        return {"profiler": "cuda"}
    return {
        "profiler": "torch",
        "torch_profiler_dir": str(folder.resolve()),
        "torch_profiler_with_stack": False,
        "ignore_frontend": True,
    }


def report_of(report: Path, log: str) -> Path:
    """The finished report, once nsys has ended; a .qdstrm left behind is imported.

    `log` is what nsys and the server wrote. Raises CaptureFailed if there is no report.
    """
    report = report.with_suffix(REPORT)
    if report.is_file() and report.stat().st_size:
        return report
    unfinished = report.with_suffix(UNFINISHED)
    if unfinished.is_file():
        return import_report(unfinished)
    raise diagnosed(log)


def traces_of(folder: Path, log: str) -> Path:
    """The folder, if vLLM's torch profiler wrote traces into it. Raises CaptureFailed."""
    if any(folder.glob("*.json*")):
        return folder
    raise diagnosed(log)


def diagnosed(log: str) -> CaptureFailed:
    """Why there is no trace, judging by the log."""
    for kind, pattern, what in (
        (CaptureFailure.NO_PERMISSION, _NO_PERMISSION, "the profiler may not look at the GPU"),
        (CaptureFailure.TOO_OLD, _TOO_OLD, "nsys does not know an option, it is too old"),
    ):
        if line := next((line for line in log.splitlines() if pattern.search(line)), None):
            return CaptureFailed(kind, f"{what}: {line.strip()[:200]}")
    return CaptureFailed(
        CaptureFailure.EMPTY,
        "the capture left no report: cudaProfilerStart was never called, or the server was killed"
        " before nsys had written (POST /start_profile and /stop_profile must both answer 200)",
    )


def refused(path: str, status: int | None, body: str = "") -> CaptureFailed:
    """The error for a server that refuses /start_profile or /stop_profile.

    `status` is None if it did not answer.
    """
    answer = "does not answer" if status is None else f"answers {status}"
    hint = " (was it started with --profiler-config?)" if status == 404 else ""
    return CaptureFailed(
        CaptureFailure.REFUSED, f"the server {answer} to POST {path}{hint} {body.strip()[:200]}"
    )


def export_command(nsys: Path, report: Path) -> list[str]:
    return [
        str(nsys),
        "export",
        "--type=sqlite",
        "--force-overwrite=true",
        f"--output={report.with_suffix('.sqlite')}",
        str(report),
    ]


def export_sqlite(report: Path) -> Path:
    """Export a report to SQLite beside it, with this machine's nsys. Raises CaptureFailed."""
    _output(export_command(find_nsys().path, report), CaptureFailure.OTHER)
    exported = report.with_suffix(".sqlite")
    if not exported.is_file():
        raise CaptureFailed(CaptureFailure.EMPTY, f"nsys export made no {exported.name}")
    return exported


def import_command(importer: Path, unfinished: Path) -> list[str]:
    return [str(importer), "-i", str(unfinished), "-o", str(unfinished.with_suffix(REPORT))]


def import_report(unfinished: Path) -> Path:
    """Make a report of a .qdstrm. Raises CaptureFailed."""
    importer = find_importer()
    libraries = os.pathsep.join(
        filter(None, (str(importer.resolve().parent), os.environ.get("LD_LIBRARY_PATH")))
    )
    _output(
        import_command(importer, unfinished),
        CaptureFailure.NOT_IMPORTED,
        {"LD_LIBRARY_PATH": libraries},
    )
    report = unfinished.with_suffix(REPORT)
    if not report.is_file():
        raise CaptureFailed(
            CaptureFailure.NOT_IMPORTED, f"{importer} made no report of {unfinished.name}"
        )
    return report


def find_importer() -> Path:
    """The QdstrmImporter on PATH, else one near an nsys. Raises CaptureFailed."""
    if found := shutil.which("QdstrmImporter"):
        return Path(found)
    on_path = shutil.which("nsys")
    for nsys in [*([Path(on_path)] if on_path else []), *_installed(Path("/"))]:
        for folder in list(nsys.resolve().parents)[:3]:
            for place in IMPORTERS:
                if found_here := sorted(folder.glob(place)):
                    return found_here[-1]
    raise CaptureFailed(
        CaptureFailure.NOT_IMPORTED,
        "nsys left a .qdstrm and QdstrmImporter, which makes a report of it, is not on this"
        " machine (a full install of Nsight Systems brings it)",
    )


def _output(
    command: Sequence[str], kind: CaptureFailure, env: Mapping[str, str] | None = None
) -> str:
    """What a tool prints. Raises CaptureFailed, with the last line it wrote."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TOOL_TIMEOUT_S,
            env={**os.environ, **(env or {})},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CaptureFailed(kind, f"{command[0]} cannot be run ({error})") from None
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise CaptureFailed(kind, f"{' '.join(command[:2])} ends with {done.returncode}: {words}")
    return done.stdout
