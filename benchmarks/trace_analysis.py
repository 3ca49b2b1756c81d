"""How long the analysis of a trace takes, and how much memory, against what this project promises.

The trace is Nsight Systems' own, of two H200 serving with tensor parallelism 2; a long one is made
of it by laying copies of it one after the other. Each is read and analysed in a fresh process.

    python benchmarks/trace_analysis.py
    python benchmarks/trace_analysis.py --kernels 500000
"""

import argparse
import json
import lzma
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "profiles" / "data"
FIXTURE = DATA / "nsys-tp2-qwen2.5-1.5b-vllm0.25.1.sqlite.xz"
KERNELS = "CUPTI_ACTIVITY_KIND_KERNEL"
TILED = (
    KERNELS,
    "CUPTI_ACTIVITY_KIND_MEMCPY",
    "CUPTI_ACTIVITY_KIND_MEMSET",
    "CUPTI_ACTIVITY_KIND_RUNTIME",
    "NVTX_EVENTS",
)
NOT_READ = ("CUDA_GRAPH_NODE_EVENTS", "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION")
GAP_NS = 1_000_000  # between two copies
MEASURED = """
import json, resource, sys
from pathlib import Path
from time import perf_counter
from profiles.findings import analyse
from profiles.page import page
from profiles.source import read
began_s = perf_counter()
trace = read(Path(sys.argv[1]))
read_s = perf_counter() - began_s
findings = analyse(trace)
page(findings)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
devices = [
    {"busy": d.busy_frac, "gap_s": d.longest_gaps[0].length_s, "activities": d.activities,
     "other": sum(c.frac for c in d.classes if c.name == "other")}
    for d in findings.devices
]
print(json.dumps({"read_s": read_s, "all_s": perf_counter() - began_s, "peak": peak,
                  "devices": devices}))
"""
# Found independently of this project.
BUSY = (0.735, 0.753)
LONGEST_GAP_S = 0.0433


@dataclass(frozen=True, slots=True)
class Limit:
    what: str
    value: float
    limit: float
    unit: str

    def __str__(self) -> str:
        verdict = "ok" if self.value < self.limit else "MISSED"
        return f"{self.what:34} {self.value:8.2f} {self.unit}, limit {self.limit:g}: {verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", type=int, default=2_000_000, help="of the long trace")
    options = parser.parse_args()
    fixture = measure(FIXTURE)
    with tempfile.TemporaryDirectory(prefix="tiled-") as folder:
        long, kernels = tile(Path(folder), options.kernels)
        tiled = measure(long)
    limits = [
        Limit("fixture: read, analyse, write", fixture["all_s"], 3.0, "s"),
        Limit(f"{kernels:,} kernels: the same", tiled["all_s"], 20.0, "s"),
        Limit(f"{kernels:,} kernels: peak memory", tiled["peak"] / 1e9, 1.5, "GB"),
    ]
    for index, (device, busy) in enumerate(zip(fixture["devices"], BUSY, strict=True)):
        name = f"GPU {index}"
        off = abs(device["busy"] - busy) * 100
        print(f"{name}: busy {device['busy']:.2%}, longest gap {device['gap_s'] * 1e3:.2f} ms")
        limits.append(Limit(f"{name}: busy, off by", off, 0.1, "points"))
        off_ms = abs(device["gap_s"] - LONGEST_GAP_S) * 1e3
        limits.append(Limit(f"{name}: longest gap, off by", off_ms, 0.1, "ms"))
        limits.append(Limit(f"{name}: kernels of no class", device["other"] * 100, 1, "%"))
    print(f"{kernels:,} kernels: {tiled['read_s']:.1f} s of {tiled['all_s']:.1f} s are reading")
    for limit in limits:
        print(limit)
    return 0 if all(limit.value < limit.limit for limit in limits) else 1


def measure(trace: Path) -> dict[str, Any]:
    """Seconds, bytes and numbers of one analysis, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(trace)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def tile(folder: Path, least: int) -> tuple[Path, int]:
    """The fixture so often that it has at least so many kernels; their number."""
    path = folder / "long.sqlite"
    with lzma.open(FIXTURE) as packed, path.open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    with closing(sqlite3.connect(path)) as trace:
        trace.execute("PRAGMA journal_mode = OFF")
        for table in NOT_READ:
            trace.execute(f"DROP TABLE IF EXISTS {table}")
        once = count(trace)
        first, last, correlations = trace.execute(
            f"SELECT min(start), max(end), max(correlationId) + 1 FROM {TILED[3]}"
        ).fetchone()
        for table in TILED:
            trace.execute(f"CREATE TEMP TABLE one AS SELECT * FROM {table} WHERE start >= {first}")
            for copy in range(1, ceil(least / once)):
                later = copy * (last - first + GAP_NS)
                append(trace, table, later, copy * correlations)
            trace.execute("DROP TABLE one")
        trace.commit()
        return path, count(trace)


def append(trace: sqlite3.Connection, table: str, later_ns: int, correlations: int) -> None:
    """A copy of the rows, so much later, with correlation ids of its own."""
    moved = {
        "start": f"start + {later_ns}",
        "end": f"end + {later_ns}",
        "correlationId": f"correlationId + {correlations}",
    }
    columns = [row[1] for row in trace.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(moved.get(column, f'"{column}"') for column in columns)
    trace.execute(f"INSERT INTO main.{table} SELECT {values} FROM one")


def count(trace: sqlite3.Connection) -> int:
    return int(trace.execute(f"SELECT count(*) FROM {KERNELS}").fetchone()[0])


if __name__ == "__main__":
    sys.exit(main())
