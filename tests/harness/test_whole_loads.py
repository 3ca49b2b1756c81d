"""Every kind of load through the whole tool."""

import json
import re

import pandas as pd
import pytest

from tests.harness.whole_tool import QUICK, Tool, table


def test_replicas_are_measured_as_one_server(tool: Tool) -> None:
    done = tool("sweep=single", *QUICK, "engine.replicas=1,2", "load.concurrency=4")
    assert done.returncode == 0, done.stderr
    one, two = table(tool.study("single")).to_dict("records")
    assert (one["replicas"], two["replicas"]) == (1, 2)
    # each replica has one GPU, and the whole model on it
    assert (one["tensor_parallel_size"], two["tensor_parallel_size"]) == (2, 1)
    assert two["gpus"] == "2x h200 (simulated)"
    requests = pd.read_parquet(tool.study("single") / "runs" / two["run"] / "requests.parquet")
    assert set(requests["stream"]) == {0, 1, 2, 3}
    logs = sorted(tool.study("single").glob("launches/*/replica-*/server.log"))
    assert [path.parent.name for path in logs] == ["replica-0", "replica-1"]
    said = [re.findall(r"KV cache size: ([\d,]+) tokens", path.read_text()) for path in logs]
    assert two["kv_cache_tokens"] == sum(int(size.replace(",", "")) for (size,) in said)
    host = pd.read_parquet(tool.study("single") / "runs" / two["run"] / "host.parquet")
    assert host["pid"].nunique() == 2
    assert not tool.wait_until_gone()


KINDS = """\
# @package _global_
# Kinds: every kind of load, one after the other on one server.
load: {concurrency: 2}
cases:
  constant: {load: {arrival: constant, concurrency: null, rate_rps: 20}}
  poisson: {load: {arrival: poisson, concurrency: null, rate_rps: [20, 40]}}
  gamma: {load: {arrival: gamma, concurrency: null, rate_rps: 20, burstiness: 0.5}}
  ramp: {load: {arrival: ramp, concurrency: null, rate_rps: 10, rate_end_rps: 40}}
  chat: {load: {endpoint: chat, conversation: {turns: 2, think_s: 0.01}}}
  shared: {load: {prompts: {kind: shared_prefix, groups: 2, hit_frac: 0.5}}}
  whole: {load: {stream: false}}
"""
RATES = {"constant": [20], "poisson": [20, 40], "gamma": [20], "ramp": [10]}


def test_every_kind_of_load_is_measured(tool: Tool) -> None:
    (tool.folder / "mine" / "sweep").mkdir(parents=True)
    (tool.folder / "mine" / "sweep" / "kinds.yaml").write_text(KINDS)
    done = tool("--config-dir", "mine", "sweep=kinds", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = table(tool.study("kinds")).set_index("case")
    assert len(runs) == 8
    assert (runs["requests_ok"] > 0).all()
    assert (runs["requests_failed"] == 0).all()
    assert (runs["failure_kinds"] == "").all()
    for case, rates in RATES.items():
        rows = runs.loc[[case]]
        assert rows["rate_rps"].tolist() == rates
        assert (rows["ttft_sched_p50_s"] >= rows["ttft_p50_s"]).all()
    assert pd.isna(runs.loc["whole", "ttft_p50_s"])


def test_a_window_that_is_shorter_than_replies_is_told_as_its_run_ends(tool: Tool) -> None:
    words = [word for word in QUICK if "output_tokens" not in word and "warmup_max" not in word]
    words += ["load.concurrency=2", "load.output_tokens=800"]  # 2 ms each, and more
    done = tool("sweep=single", *words)
    assert done.returncode == 0, done.stderr
    told = re.search(
        r"; replies took ([\d.]+) s, the window 0.6 s: load.duration_s=\d+",
        done.stdout,
    )
    assert told, done.stdout
    assert float(told[1]) > 0.6
    assert {"short_window", "no_samples"} & set(table(tool.study("single"))["validity"][0].split())


def test_a_trace_is_played(tool: Tool) -> None:
    entries = ({"timestamp": 50 * i, "input_length": 20 + i, "output_length": 5} for i in range(40))
    (tool.folder / "trace.jsonl").write_text("".join(f"{json.dumps(e)}\n" for e in entries))
    words = ["sweep=single", "load=trace", "load.trace.path=trace.jsonl", "load.trace.speed=1"]
    words += ["engine=sim", "model=tiny", "load.warmup_s=0.2", "load.duration_s=1"]
    done = tool(*words, "client.calibrate=false")
    assert done.returncode == 0, done.stdout + done.stderr
    [row] = table(tool.study("single")).to_dict("records")
    assert row["output_tokens_mean"] == 5
    assert row["requests_ok"] == pytest.approx(20, abs=2)
