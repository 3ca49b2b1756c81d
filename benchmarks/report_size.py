"""What a report costs of a study of a million requests, against what this project promises.

The study is made by hand, with the samples of every request and chunk as a run leaves them; the
report, tables, plots and timelines from the raw samples included, is made in a fresh process. Runs
are read one after the other, so memory is that of the largest: both shapes are measured. Making the
large one takes 3.3 GB.

    python benchmarks/report_size.py
    python benchmarks/report_size.py --runs 1 --requests 250000
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # tests/harness/builders.py

LIMIT_S, LIMIT_BYTES = 30.0, 1.5e9
MEASURED = r"""
import json, re, sys
from pathlib import Path
from time import perf_counter, process_time
began_s = perf_counter()
from harness.cli import run
assert run(["report", sys.argv[1]]) == 0
# not ru_maxrss, which also holds what the process had that started this one
peak_kib = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]
print(json.dumps({"s": perf_counter() - began_s, "cpu_s": process_time(),
                  "bytes": int(peak_kib) * 1024}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1_000_000, help="of the whole study")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 10], help="that hold them all")
    parser.add_argument("--tokens", type=int, default=128, help="of a reply, a chunk each")
    options = parser.parse_args()
    return max([tried(options.requests, runs, options.tokens) for runs in options.runs])


def tried(requests: int, runs: int, tokens: int) -> int:
    """Make such a study and its report, and print what it cost; 1 if that is too much."""
    with tempfile.TemporaryDirectory(prefix="million-") as folder:
        began_s = perf_counter()
        study = make(Path(folder), runs, requests // runs, tokens)
        held = sum(path.stat().st_size for path in study.rglob("*.parquet"))
        print(
            f"{requests:,} requests, {requests * tokens:,} chunks in {runs} run{'s' * (runs > 1)}:"
            f" {held / 1e6:,.0f} MB, made in {perf_counter() - began_s:.0f} s"
        )
        taken = measure(study)
        size = (study / "report.html").stat().st_size
    spent = f"{taken['s']:.1f} s ({taken['cpu_s']:.1f} s of CPU), limit {LIMIT_S:g}"
    print(f"  report: {spent}: {verdict(taken['s'], LIMIT_S)}")
    peak = f"{taken['bytes'] / 1e9:.2f} GB, limit {LIMIT_BYTES / 1e9:g}"
    print(f"  peak memory: {peak}: {verdict(taken['bytes'], LIMIT_BYTES)}")
    print(f"  report.html: {size / 1e6:.1f} MB", flush=True)
    return 0 if taken["s"] < LIMIT_S and taken["bytes"] < LIMIT_BYTES else 1


def make(out: Path, runs: int, each: int, tokens: int) -> Path:
    """A study of so many runs on one server, with `each` requests in each."""
    from tests.harness.builders import plan, record, study

    made = plan(f"load.concurrency=range(1,{runs + 1})", f"load.output_tokens={tokens}")
    kept = study(out, made)
    kept.add(command="python -m harness sweep=single")
    (launch,) = made.launches
    folder = kept.new_launch(launch.id)
    kept.save_launch(folder, {"gpus": launch.gpus, "startup_s": {"imports": 17.0}})
    for run in launch.runs:
        kept.save_run(run.id, record(made, run, folder), **samples(each, tokens, seed=run.seed))
    return kept.folder


def samples(num: int, tokens: int, seed: int) -> dict[str, Any]:
    """A run's requests and chunks: no two times alike, as they are measured."""
    from tests.harness.builders import requests

    ttft_s, tpot_s = 0.05, 0.01
    rng = np.random.default_rng(seed)
    template = requests(1, ttft_s, tpot_s, tokens)["requests"]
    columns = {name: np.repeat(values[:1], num) for name, values in template.items()}
    sent_at_s = np.sort(rng.uniform(100.0, 115.0, num))
    first_at_s = sent_at_s + rng.gamma(5.0, ttft_s / 5, num)
    gaps_s = rng.gamma(20.0, tpot_s / 20, (num, tokens))
    gaps_s[:, 0] = 0.0
    chunks_at_s = first_at_s[:, None] + np.cumsum(gaps_s, axis=1)
    columns |= {
        "request": np.arange(num),
        "due_at_s": sent_at_s,
        "sent_at_s": sent_at_s,
        "first_at_s": first_at_s,
        "last_at_s": chunks_at_s[:, -1],
        "ended_at_s": chunks_at_s[:, -1],
    }
    owners = np.repeat(np.arange(num), tokens)
    return {"requests": columns, "chunks": {"request": owners, "at_s": chunks_at_s.ravel()}}


def measure(study: Path) -> dict[str, float]:
    """Seconds and bytes of one report, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(study)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    taken: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return taken


def verdict(value: float, limit: float) -> str:
    return "ok" if value < limit else "MISSED"


if __name__ == "__main__":
    sys.exit(main())
