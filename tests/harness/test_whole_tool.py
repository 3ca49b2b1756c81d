"""The whole tool on the simulator: what a user types, and what then lies on disk."""

import json
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest

from harness.cli import run
from harness.reading import read_study
from tests.harness.sim.process import SimProcess, write_model
from tests.harness.whole_tool import LIMIT_S, QUICK, Tool, run_times, table, wait_for_line

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "2xh200" / "batching"
COMMAND = ["sweep=single", *QUICK, "load.concurrency=2,4"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What COMMAND left on disk."""
    tool = Tool(tmp_path_factory.mktemp("measured"))
    done = tool(*COMMAND)
    assert done.returncode == 0, done.stderr
    return tool.folder / "results"


@pytest.fixture
def study(measured: Path, tool: Tool) -> Path:
    """The study of COMMAND, a test's own, where the same command finds it."""
    shutil.copytree(measured, tool.folder / "results")
    return tool.study("single")


def test_a_sweep_ends_in_tables_and_plots(tool: Tool) -> None:
    done = tool(
        "sweep=batching",
        "case=max_num_seqs",
        *QUICK,
        "engine.max_num_seqs=2,8",
        "load.concurrency=4,8",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("engine: sim (as asked for)")
    assert "SIMULATED" in done.stdout

    study = tool.study("batching")
    runs = table(study)
    assert len(runs) == 4
    assert len(list(study.glob("launches/*/launch.json"))) == 2, "one serves all loads of a setting"
    assert runs["max_num_seqs"].tolist() == [2, 2, 8, 8]
    assert (runs["status"] == "ok").all()
    assert (runs["requests_failed"] == 0).all()
    assert (runs["output_tok_per_s"] > 0).all()
    told = [line for line in done.stdout.splitlines() if " tok/s, " in line]
    codes = [f"simulated {line.partition('; ')[2]}".strip() for line in told]
    assert sorted(codes) == sorted(runs["validity"]), "known as each run ends"
    assert runs["kv_cache_usage_peak_frac"].notna().all()
    assert len(pd.read_csv(study / "table.csv")) == 4
    text = (study / "table.md").read_text()
    for heading in ("max_num_seqs", "max_num_batched_tokens", "concurrency", "output tok/s"):
        assert heading in text
    gains = read_study(study).points["gain_frac"]
    assert ("gain %" in text) == gains.notna().any(), "on a busy machine, void rows have none"
    assert text.count("\n| ") == 6  # head, rule, and one row a point
    assert {p.name for p in (study / "plots").iterdir()} == {
        "over_max_num_seqs.png",
        "throughput_latency.png",
        *(f"timeline-{run}.png" for run in runs["run"]),
    }
    assert not tool.wait_until_gone()


def test_the_same_command_finds_everything_done_and_fresh_measures_again(
    tool: Tool, study: Path
) -> None:
    before = run_times(study)
    again = tool(*COMMAND)
    assert again.returncode == 0
    assert "all runs are done" in again.stdout
    assert run_times(study) == before
    assert tool(*COMMAND, "fresh=true").returncode == 0
    assert len(list((tool.folder / "results" / "single").iterdir())) == 2, "in a study of its own"
    assert run_times(study) == before


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
        (
            ["sweep=single", "engine=external", "engine.url=http://a", "engine.api_key_env=NO_KEY"],
            "the environment has no NO_KEY",
        ),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    told = capsys.readouterr().err
    assert says in told
    assert len(told.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_shell_gets_the_sentence_and_the_exit_code(tool: Tool) -> None:
    done = tool("sweep=batchin")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("harness: ")
    assert len(done.stderr.splitlines()) == 1


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


def test_a_table_is_made_again_from_the_samples(tool: Tool, study: Path) -> None:
    before = (study / "table.md").read_text()
    for path in study.glob("table.*"):
        path.unlink()
    assert tool("table", str(study)).returncode == 0
    assert (study / "table.md").read_text() == before


def test_a_damaged_run_is_named_left_out_and_can_be_measured_again(tool: Tool, study: Path) -> None:
    first, second = sorted(study.glob("runs/*"))
    (first / "run.json").write_text("{")
    done = tool(*COMMAND)
    assert done.returncode == 0, done.stderr
    assert "1 to do" in done.stdout
    (second / "requests.parquet").write_text("PAR1")
    done = tool("table", str(study))
    assert done.returncode == 0, done.stderr
    assert f"note: run {second.name} is damaged" in done.stdout
    assert list(table(study)["run"]) == [first.name]
    assert tool(*COMMAND).returncode == 1, "the study is not whole"
    shutil.rmtree(second)
    again = tool(*COMMAND)
    assert again.returncode == 0, again.stderr
    assert "1 to do" in again.stdout


def test_the_simulator_is_known_behind_a_url_too(tool: Tool) -> None:
    words = ["sweep=single", *QUICK[2:], "engine=external", "load.concurrency=1"]
    with SimProcess(write_model(tool.folder / "model")) as sim:
        words += [f"engine.url={sim.url}", "checks.longest_context={}"]
        first = tool(*words)
        assert first.returncode == 0, first.stderr
        done = tool(*words, "fresh=true")
    assert done.returncode == 0, done.stderr
    assert "SIMULATED" in done.stdout
    newest = max((tool.folder / "results" / "single").glob("*-*"), key=lambda p: p.stat().st_ctime)
    row = table(newest).iloc[0]
    assert "simulated" in row["validity"]
    assert "prefix_hits" not in row["validity"], "its prompts are not those of the first sweep"
    assert row["longest_context_tokens"] == 2048, "a check needs no server of our own"


def test_help_lists_the_sweeps_with_their_first_comment_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["--help"]) == 0
    told = capsys.readouterr().out
    assert "batching   Batching: batch size, step size" in told
    assert "throughput  Throughput: the most output tok/s at a fixed concurrency" in told
    assert run([]) == 0
    assert capsys.readouterr().out == told, "no words: help, not a server"


@pytest.mark.parametrize(
    ("topic", "line"),
    [
        ("settings", "engine.max_num_seqs"),
        ("columns", "ttft_p99_s"),
        ("validity", "not_steady"),
        ("tune", "tune.budget.launches"),
    ],
)
def test_help_topics_list_names_with_their_meaning(
    capsys: pytest.CaptureFixture[str], topic: str, line: str
) -> None:
    assert run(["--help", topic]) == 0
    assert f"\n  {line} " in capsys.readouterr().out


def test_the_client_is_calibrated_before_a_study_and_keeps_what_it_was(tool: Tool) -> None:
    words = ["sweep=single", *QUICK, "load.concurrency=4", "client.calibrate=true"]
    words += ["client.workers=1"]  # on a busy machine it would take more
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


def test_each_run_is_written_as_vllm_bench_serve_does(study: Path) -> None:
    files = [json.loads(path.read_text()) for path in study.glob("runs/*/vllm_bench.json")]
    assert sorted(file["max_concurrency"] for file in files) == [2, 4]
    rows = table(study).set_index("concurrency")
    for file in files:
        assert file["completed"] == rows.loc[file["concurrency"], "requests_ok"]
        assert file["p50_ttft_ms"] / 1e3 == pytest.approx(
            rows.loc[file["concurrency"], "ttft_p50_s"]
        )
