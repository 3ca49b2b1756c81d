"""The whole tool on the simulator: what a user types, and what then lies on disk."""

import json
import os
import re
import signal
from pathlib import Path

import pandas as pd
import pytest

from tests.harness.whole_tool import LIMIT_S, QUICK, Tool, wait_for_line

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "2xh200" / "batching"


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool(tmp_path)


def table(study: Path) -> pd.DataFrame:
    return pd.read_parquet(study / "table.parquet")


def run_times(study: Path) -> dict[str, int]:
    return {p.parent.name: p.stat().st_mtime_ns for p in study.glob("runs/*/run.json")}


def test_a_sweep_ends_in_tables_and_plots(tool: Tool) -> None:
    done = tool(
        "sweep=batching",
        "case=max_num_seqs",
        *QUICK,
        "engine.max_num_seqs=2,8",
        "load.concurrency=4,8",
        "repeats.runs=2",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("engine: sim (as asked for)")
    assert "SIMULATED" in done.stdout

    study = tool.study("batching")
    runs = table(study)
    assert len(runs) == 8
    assert runs["max_num_seqs"].tolist() == [2] * 4 + [8] * 4
    assert (runs["status"] == "ok").all()
    assert (runs["requests_failed"] == 0).all()
    assert (runs["output_tok_per_s"] > 0).all()
    told = [line for line in done.stdout.splitlines() if " tok/s, " in line]
    codes = [f"simulated {line.partition('; ')[2]}".strip() for line in told]
    assert sorted(codes) == sorted(runs["validity"]), "known as each run ends"
    assert runs["kv_cache_usage_peak_frac"].notna().all()
    assert len(pd.read_csv(study / "table.csv")) == 8
    text = (study / "table.md").read_text()
    for heading in (
        "max_num_seqs",
        "max_num_batched_tokens",
        "concurrency",
        "output tok/s",
        "gain %",
    ):
        assert heading in text
    assert text.count("\n| ") == 6  # head, rule, and one row a point
    assert {p.name for p in (study / "plots").iterdir()} == {
        "over_max_num_seqs.png",
        "throughput_latency.png",
        *(f"timeline-{run}.png" for run in runs["run"]),
    }
    assert not tool.wait_until_gone()


def test_one_launch_serves_all_loads_of_an_engine_setting(tool: Tool) -> None:
    tool("sweep=single", *QUICK, "engine.max_num_seqs=2,8", "load.concurrency=1,2,4")
    assert len(list(tool.study("single").glob("launches/*/launch.json"))) == 2


def test_the_same_command_finds_everything_done(tool: Tool) -> None:
    command = ["sweep=single", *QUICK, "load.concurrency=2"]
    tool(*command)
    before = run_times(tool.study("single"))
    again = tool(*command)
    assert again.returncode == 0
    assert "all runs are there" in again.stdout
    assert run_times(tool.study("single")) == before


def test_fresh_measures_again_in_a_study_of_its_own(tool: Tool) -> None:
    command = ["sweep=single", *QUICK, "load.concurrency=2"]
    tool(*command)
    tool(*command, "fresh=true")
    assert len(list((tool.folder / "results" / "single").iterdir())) == 2


def test_a_killed_sweep_is_continued_where_it_was(tool: Tool) -> None:
    command = ["sweep=single", *QUICK, "engine.max_num_seqs=2,4,8", "load.concurrency=2,4"]
    process = tool.start(*command)
    wait_for_line(process, "run 4/6")
    process.kill()
    process.communicate(timeout=LIMIT_S)
    assert not tool.wait_until_gone(), "processes outlived the harness' SIGKILL"

    study = tool.study("single")
    before = run_times(study)
    assert len(before) == 3
    done = tool(*command)
    assert done.returncode == 0, done.stderr
    after = run_times(study)
    assert len(after) == 6
    assert before.items() <= after.items(), "finished runs were run again"
    assert len(table(study)) == 6


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_sweep_keeps_and_tabulates_what_is_done(
    tool: Tool, number: signal.Signals, code: int
) -> None:
    process = tool.start("sweep=single", *QUICK, "load.concurrency=1,2,4", start_new_session=True)
    wait_for_line(process, "run 2/3")
    os.killpg(process.pid, number)  # as a terminal does: the whole foreground group
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "the same command continues" in out
    assert len(table(tool.study("single"))) >= 1
    assert not tool.wait_until_gone()


def test_a_launch_that_fails_in_the_middle_costs_its_runs_only(tool: Tool) -> None:
    done = tool(
        "sweep=single",
        *QUICK,
        "engine.extra.fault=null,die_at_start,'truncate_every=1000000'",
        "load.concurrency=1,2",
    )
    assert done.returncode == 1, done.stderr
    assert "FAILED (missing_package)" in done.stdout
    runs = table(tool.study("single"))
    assert runs["status"].tolist() == ["ok"] * 2 + ["failed"] * 2 + ["ok"] * 2
    assert runs["failure"].tolist()[2:4] == ["missing_package"] * 2
    (failed,) = [
        launch
        for path in tool.study("single").glob("launches/*/launch.json")
        if (launch := json.loads(path.read_text())).get("failure")
    ]
    assert any("flashinfer" in line for line in failed["failure"]["evidence"])


def test_a_server_that_dies_in_a_run_costs_that_run_only(tool: Tool) -> None:
    # each server lives for 5,000 tokens: a run of one stream makes fewer, one of 64 makes more
    done = tool(
        "sweep=single",
        *QUICK,
        "load.output_tokens=100",
        "engine.gpu=l4",
        "engine.extra.fault='die_after_tokens=5000'",
        "load.concurrency=1,64,2",
    )
    assert done.returncode == 1
    runs = table(tool.study("single"))
    assert runs["status"].tolist() == ["ok", "failed", "ok"]
    assert runs["failure"].tolist()[1] == "died_under_load"
    assert len(list(tool.study("single").glob("launches/*/launch.json"))) == 2
    assert not tool.wait_until_gone()


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


def test_a_replica_that_dies_costs_its_run_only(tool: Tool) -> None:
    # long enough to be hit in the run
    words = [*QUICK, "engine.replicas=2", "load.concurrency=2,4", "load.duration_s=3"]
    process = tool.start("sweep=single", *words)
    wait_for_line(process, "run 1/2")
    servers = [p for p in tool.processes() if "harness.sim" in p.cmdline()]
    servers = [p for p in servers if "keeper.py" not in " ".join(p.cmdline())]
    assert len(servers) == 2
    servers[-1].kill()
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1, err
    assert "FAILED (died_under_load): replica " in out
    assert table(tool.study("single"))["status"].tolist() == ["failed", "ok"]
    assert len(list(tool.study("single").glob("launches/*/launch.json"))) == 2
    assert not tool.wait_until_gone()


def test_what_is_not_possible_here_is_told_and_costs_nothing_else(tool: Tool) -> None:
    command = ["sweep=single", *QUICK, "engine.tensor_parallel_size=1,3", "load.concurrency=1"]
    told = "not possible here: engine.tensor_parallel_size=3: the heads of tiny"
    assert told in tool(*command, "plan=true").stdout
    done = tool(*command)
    assert done.returncode == 1
    assert f"FAILED (not_possible): {told}" in done.stdout
    runs = table(tool.study("single"))
    assert runs["status"].tolist() == ["ok", "failed"]
    assert runs["validity"].tolist()[1] == "simulated not_possible"
    assert len(list(tool.study("single").glob("launches/*/launch.json"))) == 2
    assert len(list(tool.study("single").glob("launches/*/server.log"))) == 1


def test_a_sweep_of_which_nothing_is_possible_here_is_refused(tool: Tool) -> None:
    done = tool("sweep=single", *QUICK, "engine.tensor_parallel_size=3,5", "load.concurrency=1")
    assert done.returncode == 2
    assert done.stderr.count("harness: not possible here: engine.tensor_parallel_size") == 2
    assert list(tool.folder.iterdir()) == []


def test_failed_runs_are_run_again_only_when_asked_for(tool: Tool) -> None:
    command = ["sweep=single", *QUICK, "engine.extra.fault=oom_at_start", "load.concurrency=1"]
    assert "out_of_memory" in tool(*command).stdout
    again = tool(*command)
    assert again.returncode == 1
    assert "retry=true" in again.stdout
    assert "FAILED" in tool(*command, "retry=true").stdout


def test_requests_that_fail_void_the_row(tool: Tool) -> None:
    tool("sweep=single", *QUICK, "engine.extra.fault=error_chunk_every=3", "load.concurrency=4")
    (row,) = table(tool.study("single")).to_dict("records")
    assert row["requests_failed"] > 0
    assert "failures" in row["validity"]


def test_an_open_loop_sweep_tabulates_the_rate(tool: Tool) -> None:
    done = tool(
        "sweep=single", "load=poisson", *QUICK[:5], "load.rate_rps=20,40", "load.duration_s=1"
    )
    assert done.returncode == 0, done.stderr
    runs = table(tool.study("single"))
    assert runs["rate_rps"].tolist() == [20, 40]
    assert (runs["ttft_sched_p50_s"] >= runs["ttft_p50_s"]).all()


def test_plan_prints_launches_runs_and_time_and_starts_nothing(tool: Tool) -> None:
    words = ["sweep=batching", "case=max_num_seqs", "engine=sim", "engine.max_num_seqs=2,8"]
    done = tool(*words, "checks.longest_context={}", "plan=true")
    assert done.returncode == 0
    assert done.stdout.count("  launch ") == 2
    assert done.stdout.count("    check longest_context") == 2
    assert "2 launches, 2 runs" in done.stdout
    assert "nothing was started" in done.stdout
    assert list(tool.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sweep=batchin"], "Did you mean 'batching'?"),
        (["sweep=batching", "engine.max_num_seq=3"], "Did you mean 'engine.max_num_seqs'?"),
        (["sweep=batching", "load.concurrency=-4"], "must be 1 or more"),
        (["batching"], "sweep=batching"),
        (["tabel"], "name=value"),
        (["sweep=single", "load.duration_s=inf"], "finite"),
        (["sweep=single", "engine=sim", "engine.gpu=nonsense"], "must be b200, h200, h100"),
        (["sweep=single", "engine=sim", "engine.quantization=fp8"], "no effect on the simulator"),
        (["sweep=single", "engine=external", "engine.url=localhost:8000"], "engine.url"),
        (["sweep=single", "engine=sim", "load.concurrency=4,4"], "are the same"),
        (["sweep=single", "out="], "out"),
        (["sweep=single", "engine=vllm", "engine.python=/nonexistent"], "/nonexistent"),
        (["table", "/nowhere"], "is not a study"),
        (["table", str(REFERENCE)], "no samples"),
        (["--config-dir", "/nowhere", "sweep=single"], "no such folder"),
        (["sweep=single", "load.concurrency=1", "out=/proc/x"], "cannot be written"),
        (["--help", "nothing"], "there is no help on"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(
    tool: Tool, words: list[str], says: str
) -> None:
    done = tool(*words)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert list(tool.folder.iterdir()) == []


def test_two_harnesses_do_not_share_a_study(tool: Tool) -> None:
    command = ["sweep=single", *QUICK, "load.duration_s=60", "load.concurrency=1"]
    first = tool.start(*command)
    wait_for_line(first, "study:")
    second = tool(*command)
    assert second.returncode == 2
    assert "another harness" in second.stderr
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=LIMIT_S)
    assert first.returncode == 130


def test_a_table_is_made_again_from_the_samples(tool: Tool) -> None:
    tool("sweep=single", *QUICK, "load.concurrency=1,2")
    study = tool.study("single")
    before = (study / "table.md").read_text()
    for path in study.glob("table.*"):
        path.unlink()
    assert tool("table", str(study)).returncode == 0
    assert (study / "table.md").read_text() == before


def test_a_damaged_run_is_named_and_can_be_measured_again(tool: Tool) -> None:
    command = ["sweep=single", *QUICK, "load.concurrency=1,2"]
    tool(*command)
    study = tool.study("single")
    first, second = sorted(study.glob("runs/*"))
    (first / "run.json").write_text("{")
    done = tool(*command)
    assert done.returncode == 0, done.stderr
    assert "1 to do" in done.stdout
    (second / "requests.parquet").write_text("PAR1")
    done = tool("table", str(study))
    assert done.returncode == 2
    assert f"{second.name} is damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_simulator_is_known_behind_a_url_too(tool: Tool) -> None:
    process = tool.start("sweep=single", *QUICK, "load.duration_s=60", "out=served")
    wait_for_line(process, "run 1/1")
    (command,) = (tool.folder / "served").glob("single/*/launches/*/command.txt")
    port = re.search(r"--port (\d+)", command.read_text())
    assert port is not None
    url = f"engine.url=http://127.0.0.1:{port[1]}"
    words = ["sweep=single", *QUICK[2:], "engine=external", url, "load.concurrency=1"]
    words += ["checks.longest_context={}"]
    tool(*words)
    done = tool(*words, "fresh=true")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert "SIMULATED" in done.stdout
    newest = max((tool.folder / "results" / "single").glob("*-*"), key=lambda p: p.stat().st_ctime)
    row = table(newest).iloc[0]
    assert "simulated" in row["validity"]
    assert "prefix_hits" not in row["validity"], "its prompts are not those of the first sweep"
    assert row["longest_context_tokens"] == 2048, "a check needs no server of our own"


def test_help_lists_the_sweeps_with_their_first_comment_line(tool: Tool) -> None:
    done = tool("--help")
    assert done.returncode == 0
    assert "batching   Batching: batch size, step size" in done.stdout
    assert "throughput  Throughput: the most output tokens a second" in done.stdout
    assert tool().stdout == done.stdout, "no words: help, not a server"


@pytest.mark.parametrize(
    ("topic", "line"),
    [
        ("settings", "engine.max_num_seqs"),
        ("columns", "ttft_p99_s"),
        ("validity", "not_steady"),
        ("tune", "tune.budget.launches"),
    ],
)
def test_help_topics_list_names_with_their_meaning(tool: Tool, topic: str, line: str) -> None:
    assert f"\n  {line} " in tool("--help", topic).stdout


def test_the_client_is_calibrated_before_a_study_and_keeps_what_it_was(tool: Tool) -> None:
    words = ["sweep=single", *QUICK, "load.concurrency=4", "client.calibrate=true"]
    first = tool(*words)
    assert first.returncode == 0, first.stderr
    assert "client: direct, 1 worker; TTFT error p50" in first.stdout
    study = tool.study("single")
    begun = json.loads((study / "study.json").read_text())["instrument"]
    assert begun["calibration"]["at_load"]["streams"] == 4
    assert begun["calibration"]["clean_chunks_per_s"] >= 0
    [row] = table(study).to_dict("records")
    assert row["client_transport"] == "direct"
    assert row["client_workers"] == 1
    assert row["client_error_p99_s"] == begun["calibration"]["at_load"]["ttft_error_p99_s"]
    assert "not_calibrated" not in row["validity"]

    [run] = study.glob("runs/*")
    (run / "run.json").unlink()  # as if it had not been measured yet
    again = tool(*words)
    assert again.returncode == 0, again.stderr
    assert json.loads((study / "study.json").read_text())["instrument"] == begun


def test_each_run_is_written_as_vllm_bench_serve_does(tool: Tool) -> None:
    done = tool("sweep=single", *QUICK, "load.concurrency=2,4")
    assert done.returncode == 0, done.stderr
    study = tool.study("single")
    files = [json.loads(path.read_text()) for path in study.glob("runs/*/vllm_bench.json")]
    assert sorted(file["max_concurrency"] for file in files) == [2, 4]
    rows = table(study).set_index("concurrency")
    for file in files:
        assert file["completed"] == rows.loc[file["concurrency"], "requests_ok"]
        assert file["p50_ttft_ms"] / 1e3 == pytest.approx(
            rows.loc[file["concurrency"], "ttft_p50_s"]
        )


@pytest.mark.parametrize(
    ("words", "column", "value"),
    [
        (["load=constant", "load.rate_rps=20"], "rate_rps", 20),
        (["load=gamma", "load.rate_rps=20", "load.burstiness=0.5"], "rate_rps", 20),
        (["load=ramp", "load.rate_rps=10", "load.rate_end_rps=40"], "rate_rps", 10),
        (
            ["load.endpoint=chat", "load.conversation={turns: 2, think_s: 0.01}"],
            "failure_kinds",
            "",
        ),
        (["load.prompts={kind: shared_prefix, groups: 2, hit_frac: 0.5}"], "failure_kinds", ""),
        (["load.stream=false"], "failure_kinds", ""),
    ],
)
def test_every_kind_of_load_is_measured(
    tool: Tool, words: list[str], column: str, value: object
) -> None:
    quick = [word for word in QUICK if words[0].startswith("load.") or "ramp_s" not in word]
    if not words[0].startswith("load."):
        quick = [word for word in quick if "warmup_max_s" not in word]
    done = tool("sweep=single", *words, *quick)
    assert done.returncode == 0, done.stdout + done.stderr
    [row] = table(tool.study("single")).to_dict("records")
    assert row["requests_ok"] > 0
    assert row["requests_failed"] == 0
    assert row[column] == value


def test_a_trace_is_played_and_belongs_to_the_studys_identity(tool: Tool) -> None:
    def write(output_tokens: int) -> None:
        entries = [
            {"timestamp": 50 * i, "input_length": 20 + i, "output_length": output_tokens}
            for i in range(40)
        ]
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        (tool.folder / "trace.jsonl").write_text(lines)

    words = ["sweep=single", "load=trace", "load.trace.path=trace.jsonl", "load.trace.speed=1"]
    words += ["engine=sim", "model=tiny", "load.warmup_s=0.2", "load.duration_s=1"]
    words += ["client.calibrate=false"]
    write(output_tokens=5)
    done = tool(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    [row] = table(tool.study("single")).to_dict("records")
    assert row["output_tokens_mean"] == 5
    assert row["requests_ok"] == pytest.approx(20, abs=2)
    write(output_tokens=6)
    assert tool(*words).returncode == 0
    studies = list((tool.folder / "results/single").glob("*-*"))
    assert len(studies) == 2, "another file is another measurement"


def test_a_key_for_an_external_server_comes_from_the_environment(tool: Tool) -> None:
    done = tool(
        "sweep=single", "engine=external", "engine.url=http://127.0.0.1:9", *QUICK[2:],
        "engine.api_key_env=NO_SUCH_VARIABLE",
    )  # fmt: skip
    assert done.returncode == 2
    assert "the environment has no NO_SUCH_VARIABLE" in done.stderr


SWEEP = """\
# @package _global_
# Cases: a closed loop, an open loop at shares of its capacity, and a smaller batch.
load: {concurrency: 2}
slo: {ttft_s: 5.0, tpot_s: 1.0}
cases:
  closed: {load: {concurrency: [1, 2, 4]}}
  open: {load: {arrival: poisson, concurrency: null, rate_frac: [0.4, 0.8], drain_s: 5}}
  small: {engine: {max_num_seqs: 2}, load: {concurrency: [2, 4]}}
checks: {longest_context: {start_tokens: 300, timeout_s: 60}}
columns: [output_tok_per_s, speedup, knee, goodput_rps, slo_met_frac, longest_context_tokens]
plots:
  scaling: {x: concurrency, y: [output_tok_per_s], by: case, log_x: true}
  open_loop: {x: rate_frac, y: [ttft_sched_p50_s], cases: [open]}
"""


@pytest.fixture
def cases(tool: Tool) -> list[str]:
    """The words of a sweep of cases of one's own."""
    (tool.folder / "mine" / "sweep").mkdir(parents=True)
    (tool.folder / "mine" / "sweep" / "cases.yaml").write_text(SWEEP)
    return ["--config-dir", "mine", "sweep=cases", *QUICK]


def test_cases_shares_of_a_capacity_limits_and_a_check_are_one_sweep(
    tool: Tool, cases: list[str]
) -> None:
    done = tool(*cases)
    assert done.returncode == 0, done.stdout + done.stderr
    study = tool.study("cases")
    runs = table(study)
    assert runs["case"].tolist() == ["closed"] * 3 + ["open"] * 2 + ["small"] * 2
    assert len(list(study.glob("launches/*"))) == 2, "closed and open share a server"
    assert runs["launch"].nunique() == 2
    shares = runs[runs["case"] == "open"]
    capacity = shares["rate_rps"] / shares["rate_frac"]
    most_rps = runs[runs["case"] == "closed"]["requests_per_s"].max()
    assert capacity.tolist() == pytest.approx([most_rps] * 2)
    assert (runs["slo_met_frac"] == 1.0).all()
    assert (runs["goodput_rps"] > 0).all()
    assert runs["longest_context_tokens"].tolist() == [2048] * 7
    assert runs["longest_context_limit"].unique().tolist() == ["max_model_len=2048"]
    assert {path.stem for path in study.glob("plots/*") if "timeline" not in path.stem} == {
        "scaling",
        "open_loop",
        "cases",
    }
    head = (study / "table.md").read_text().splitlines()[2]
    assert "| goodput req/s | SLO met % | longest context tokens | validity |" in head

    files = {
        p: p.stat().st_mtime_ns
        for kind in ("runs", "checks")
        for p in study.glob(f"{kind}/*/*.json")
    }
    again = tool(*cases)
    assert again.returncode == 0, again.stderr
    assert "all runs are there; fresh=true measures again" in again.stdout
    assert len(list(study.glob("launches/*"))) == 2, "no server was started"
    assert {path: path.stat().st_mtime_ns for path in files} == files

    (first, *_) = study.glob("checks/*/longest_context.json")
    first.unlink()  # as if it had been cut off before
    third = tool(*cases)
    assert third.returncode == 0, third.stderr
    assert "all runs are there, checks of 1 engine setting to do" in third.stdout
    assert first.is_file()
    assert {path: path.stat().st_mtime_ns for path in files if path != first} == {
        path: at for path, at in files.items() if path != first
    }
    assert not tool.wait_until_gone()


def test_a_check_that_failed_is_done_again_only_when_asked_for(
    tool: Tool, cases: list[str]
) -> None:
    words = [*cases, "case=small", "load.concurrency=2", "engine.extra.fault=oom_at_start"]
    first = tool(*words)
    assert first.returncode == 1, first.stderr
    assert "1 run and 1 check failed; retry=true tries again" in first.stdout
    study = tool.study("cases")
    (kept,) = study.glob("checks/*/longest_context.json")
    at_ns = kept.stat().st_mtime_ns
    assert json.loads(kept.read_text())["failure"]["kind"] == "out_of_memory"

    again = tool(*words)
    assert again.returncode == 1
    assert len(list(study.glob("launches/*"))) == 1
    assert kept.stat().st_mtime_ns == at_ns

    retried = tool(*words, "retry=true")
    assert retried.returncode == 1
    assert len(list(study.glob("launches/*"))) == 2, "one more try, and no more"
    assert kept.stat().st_mtime_ns > at_ns


def test_a_server_that_a_check_kills_costs_no_run(tool: Tool, cases: list[str]) -> None:
    words = [*cases, "case=closed,small", "load.concurrency=2"]
    done = tool(*words, "engine.extra.fault='die_over_prompt_of=700'")
    assert done.returncode == 0, done.stdout + done.stderr
    study = tool.study("cases")
    runs = table(study)
    assert runs["status"].tolist() == ["ok"] * 2
    assert runs["longest_context_tokens"].tolist() == [600, 600], "what was served before"
    assert runs["longest_context_limit"].str.startswith("the server died while it served").all()
    assert len(list(study.glob("launches/*"))) == 2, "nothing is left to do that needs a server"
    lives = [json.loads(path.read_text()) for path in study.glob("launches/*/launch.json")]
    assert [life["failure"]["kind"] for life in lives] == ["died_under_load"] * 2
    assert not tool.wait_until_gone()


def test_a_closed_loop_that_failed_leaves_its_open_loops_without_a_rate(
    tool: Tool, cases: list[str]
) -> None:
    fault = "engine.extra.fault='die_after_tokens=40'"
    done = tool(
        *cases, "case=closed,open", "load.concurrency=4", fault, "checks.longest_context=null"
    )
    assert done.returncode == 1, done.stderr
    runs = table(tool.study("cases"))
    assert runs["failure"].tolist() == ["died_under_load", "no_capacity", "no_capacity"]
    assert runs["rate_rps"].isna().all()
    assert "no closed-loop run of this launch ended well" in done.stdout


def test_cases_are_repeated_and_shuffled(tool: Tool, cases: list[str]) -> None:
    words = ["repeats.launches=2", "order=shuffled", "checks.longest_context=null"]
    done = tool(*cases, *words, "load.concurrency=2")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = table(tool.study("cases"))
    assert runs["case"].tolist() == ["closed"] * 2 + ["open"] * 4 + ["small"] * 2
    shares = runs[runs["case"] == "open"]
    capacity = (shares["rate_rps"] / shares["rate_frac"]).groupby(shares["launch"]).nunique()
    assert capacity.tolist() == [1, 1], "each launch finds its own"
