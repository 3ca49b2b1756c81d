"""`python -m harness sweep=capacity` on the simulator, as a user types it."""

import shutil

from tests.harness.whole_tool import Tool, table

# Two places, and a service time of tenths of a second: a capacity that two cores can show.
WORDS = [
    "sweep=capacity",
    "engine=sim",
    "engine.max_num_seqs=2",
    "load.input_tokens=32",
    "load.output_tokens=8",
    "load.warmup_s=0.3",
    "load.warmup_max_s=1",
    "load.ramp_s=0.1",
    "load.duration_s=1",
    "load.drain_s=1",
    "client.calibrate=false",
]
SEARCH = ["case=rate", "load.search.probes=6", "slo.ttft_s=0.5", "slo.tpot_s=null"]


def test_a_capacity_is_found_told_and_gone_on_with(tool: Tool) -> None:
    done = tool(*WORDS, *SEARCH)
    assert done.returncode == 0, done.stdout + done.stderr
    study = tool.study("capacity")
    runs = table(study)
    assert runs["capacity_rps"].nunique() == 1
    assert runs["at_capacity"].sum() == 1
    (best,) = runs[runs["at_capacity"].astype(bool)].to_dict("records")
    assert best["rate_rps"] == best["capacity_rps"]
    assert best["slo_met_frac"] >= 0.9
    text = (study / "capacity.md").read_text()
    assert text in done.stdout
    assert "90 % of the requests keep TTFT ≤ 500 ms" in text
    assert (study / "plots" / "capacity-rate.png").is_file()
    head = (study / "table.md").read_text().splitlines()[2]
    assert "capacity req/s" in head

    again = tool(*WORDS, *SEARCH)
    assert "all runs are done; fresh=true measures again" in again.stdout
    lives = len(list(study.glob("launches/*")))
    files = {path: path.stat().st_mtime_ns for path in study.glob("runs/*/run.json")}
    [lost] = study.glob("runs/*-1-6")
    shutil.rmtree(lost)  # as if it had been killed before
    third = tool(*WORDS, *SEARCH)
    assert third.returncode == 0, third.stderr
    assert (lost / "run.json").is_file()
    kept = {path: at for path, at in files.items() if path.parent != lost}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(study.glob("launches/*"))) <= lives + 1

    report = tool("report", str(study))
    assert report.returncode == 0, report.stderr
    assert "Capacity" in (study / "report.md").read_text()
    assert not tool.wait_until_gone()


def test_limits_that_one_request_alone_misses_are_told_with_the_floor_at_once(tool: Tool) -> None:
    done = tool(*WORDS, "case=rate", "slo.ttft_s=0.000001", "slo.tpot_s=null")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("skipped: one request alone misses the limits") == 1
    study = tool.study("capacity")
    made = len(table(study))
    assert made in (1, 2)  # once more where our own side was slow
    assert done.stdout.count("skipped, as before") == 7 - made
    assert "alone on the server take at most TTFT" in done.stdout
    assert "these limits hold at no load" in (study / "capacity.md").read_text()


def test_the_largest_concurrency_is_found_too(tool: Tool) -> None:
    words = ["case=concurrency", "load.search.probes=4", "slo.ttft_s=30", "slo.tpot_s=null"]
    done = tool(*WORDS, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = table(tool.study("capacity"))
    assert runs["concurrency"].tolist() == [1, 2, 4, 8]
    assert runs["capacity_concurrency"].unique().tolist() == [8]
    assert (tool.study("capacity") / "plots" / "capacity-concurrency.png").is_file()
