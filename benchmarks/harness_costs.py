"""What the harness itself costs: python -m pytest benchmarks/harness_costs.py -m benchmark -s

Each prints the number reached beside the one promised, and asserts none.
"""

import itertools
import json
import signal
import statistics
import time
from pathlib import Path

import psutil
import pytest

from tests.harness.whole_tool import LIMIT_S, QUICK, Tool, wait_for_line

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600)]


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool(tmp_path)


def median_s(tool: Tool, *words: str, times: int = 7) -> float:
    taken = []
    for _ in range(times):
        began_at_s = time.perf_counter()
        assert tool(*words).returncode == 0
        taken.append(time.perf_counter() - began_at_s)
    return statistics.median(taken)


def say(what: str, reached: str, promised: str) -> None:
    print(f"\n{what}: {reached} (promised: {promised})")


def test_help(tool: Tool) -> None:
    say("--help", f"{median_s(tool, '--help'):.2f} s", "under 0.8 s")


def test_plan_of_200_runs(tool: Tool) -> None:
    words = ["sweep=batching", "engine=sim", "plan=true"]
    words += ["engine.max_num_seqs=range(1,11)", "load.concurrency=range(1,21)"]
    say("plan=true for 200 runs", f"{median_s(tool, *words):.2f} s", "under 1.5 s")


def test_time_between_runs_and_memory(tool: Tool) -> None:
    """Three runs of 20 s, some 16,000 chunks a second, on one server."""
    words = ["sweep=single", "engine=sim", "model=tiny", "load.concurrency=16,17,18"]
    words += ["load.output_tokens=256", "load.warmup_s=1"]
    process = tool.start(*words)
    peak_bytes = 0
    while process.poll() is None:
        ours = [p for p in tool.processes() if not is_server(p)]
        peak_bytes = max(peak_bytes, sum(map(rss_bytes, ours)))
        time.sleep(0.5)
    process.communicate(timeout=LIMIT_S)
    study = tool.study("single")
    ids = json.loads((study / "study.json").read_text())["runs"]
    windows = [json.loads((study / "runs" / i / "run.json").read_text())["window"] for i in ids]
    gaps_s = [b["started_at_s"] - a["ended_at_s"] for a, b in itertools.pairwise(windows)]
    longest = f"{max(gaps_s):.2f} s"
    say("between two runs on one server, the longest", longest, "at most 1 s")
    say("process tree besides the server, peak", f"{peak_bytes / 1e6:.0f} MB", "under 400 MB")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_time_until_nothing_is_alive(tool: Tool, number: signal.Signals) -> None:
    process = tool.start("sweep=single", *QUICK, "load.duration_s=30", "load.concurrency=4")
    wait_for_line(process, "run 1/1")
    began_at_s = time.perf_counter()
    process.send_signal(number)
    alive = tool.wait_until_gone(30.0)
    took = f"{time.perf_counter() - began_at_s:.2f} s, {len(alive)} left"
    process.communicate(timeout=LIMIT_S)
    say(f"after {number.name}, until no process of ours is alive", took, "within 5 s")


def is_server(process: psutil.Process) -> bool:
    try:
        return "harness.sim" in process.cmdline()
    except psutil.Error:
        return False


def rss_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
