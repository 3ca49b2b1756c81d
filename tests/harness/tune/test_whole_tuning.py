"""`python -m harness tune=NAME` on the simulator, as people use it, cut off in every part."""

import json
import sys
from pathlib import Path

import pytest

from harness.cli import run
from harness.tune.answer import Answer, Outcome, read
from tests.harness.tune.small import TUNE, words
from tests.harness.whole_tool import Tool, wait_for_line

SETTINGS = 6
PROOF_LAUNCHES = 4
FLOOR = "tune.constraints=ttft_p99_s < 0.0001"


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Tool:
    return Tool(tmp_path_factory.mktemp("tune"))


def kept(study: Path) -> dict[str, float]:
    """When each run of search and proof was written."""
    return {str(p): p.stat().st_mtime_ns for p in study.glob("**/run.json")}


@pytest.fixture(scope="module")
def study(tool: Tool) -> Path:
    """A tuning killed in its search and in its proof, and continued by the same command."""
    mine = words(tool.folder)
    process = tool.start(*mine)
    wait_for_line(process, "trial 1,")
    process.kill()
    process.communicate()
    assert tool.wait_until_gone() == []
    folder = tool.study("tune-small")
    after_search = kept(folder)
    assert after_search

    process = tool.start(*mine)
    wait_for_line(process, "proof: ")
    wait_for_line(process, "tok/s")
    process.kill()
    process.communicate()
    assert tool.wait_until_gone() == []
    after_proof = kept(folder)
    assert after_search.items() <= after_proof.items(), "nothing is measured twice"

    done = tool(*mine)
    print(done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert after_proof.items() <= kept(folder).items()
    assert tool.study("tune-small") == folder, "one study"
    assert done.returncode == answer_of(folder).exit_code
    assert "SIMULATED: no hardware was measured." in done.stdout
    assert "vllm serve /path/to/tiny" in done.stdout
    return folder


def answer_of(study: Path) -> Answer:
    found = read(study)
    assert found is not None
    return found


def test_every_setting_is_tried_once_the_defaults_first(study: Path) -> None:
    tried = answer_of(study).tried
    assert [one.number for one in tried] == list(range(SETTINGS))
    assert tried[0].setting == {}
    assert len({str(one.setting) for one in tried}) == SETTINGS


def test_the_winner_is_measured_again_beside_the_defaults(study: Path) -> None:
    found = answer_of(study)
    assert found.setting is not None
    assert found.setting["api_server_count"] in (2, 4)
    assert found.outcome in (Outcome.PROVEN, Outcome.INCONCLUSIVE), "two launches may differ"
    (proof,) = (study / "proof").glob("*")
    runs = [json.loads(p.read_text()) for p in proof.glob("runs/*/run.json")]
    sides = [run["case"] for run in sorted(runs, key=lambda run: run["launch_repeat"])]
    assert sorted(sides[:2]) == sorted(sides[2:]) == ["defaults", "tuned"], "in rounds"
    assert found.proof is not None
    assert found.spent.search_launches == SETTINGS


def test_what_was_spent_is_counted_over_all_commands(study: Path) -> None:
    about = json.loads((study / "study.json").read_text())
    assert about["spent_s"] >= sum(about["seen_s"]) > 0
    assert len(about["seen_s"]) >= SETTINGS - 1, "but for the launch that was killed"
    both = list(zip(about["seen_s"], about["proof_s"], strict=True))
    assert all(0 < without_s <= took_s for took_s, without_s in both)


def test_the_same_command_answers_again_and_starts_nothing(tool: Tool, study: Path) -> None:
    before = kept(study)
    done = tool(*words(tool.folder))
    assert "launch " not in done.stdout.replace("launches", "")
    assert kept(study) == before


def test_a_longer_proof_wants_a_larger_budget(tool: Tool, study: Path) -> None:
    done = tool(*words(tool.folder, "tune.proof.launches=4"))
    assert done.returncode == 2, done.stdout
    assert "the proof wants 8 launches" in done.stderr
    assert done.stderr.endswith("set tune.budget.launches=14.\n")
    assert answer_of(study).proof is not None, "what was found before stands"


def test_a_longer_proof_goes_on_with_the_shorter_one(tool: Tool, study: Path) -> None:
    before = kept(study)
    more = words(tool.folder, "tune.proof.launches=3", "tune.budget.launches=12")
    done = tool(*more)
    assert "proof: 2 launches of the defaults and the winner" in done.stdout, done.stderr
    assert before.items() <= kept(study).items()
    assert len(kept(study)) == len(before) + 2
    proof = answer_of(study).proof
    assert proof is not None
    assert proof.launches == 3


def test_a_lost_journal_is_told_and_the_answer_stands(tool: Tool, study: Path) -> None:
    journal, answer = study / "search.journal", (study / "answer.json").read_bytes()
    kept_journal = journal.read_bytes()
    journal.unlink()
    done = tool(*words(tool.folder))
    journal.write_bytes(kept_journal)
    assert done.returncode == 2, done.stdout
    assert "search.journal is lost" in done.stderr
    assert (study / "answer.json").read_bytes() == answer


def test_without_optuna_no_study_is_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run(words(tmp_path, f"out={tmp_path / 'out'}")) == 2
    assert "tune= needs Optuna" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_tuned_engine_is_there_for_the_next_sweep(tool: Tool, study: Path) -> None:
    done = tool("--config-dir", str(study / "conf"), "sweep=single", "engine=tuned", "plan=true")
    assert done.returncode == 0, done.stderr
    setting = answer_of(study).setting
    assert setting is not None
    text = (study / "conf" / "engine" / "tuned.yaml").read_text()
    assert f"api_server_count: {setting['api_server_count']}" in text


def test_the_report_begins_with_the_answer(tool: Tool, study: Path) -> None:
    assert tool("report", str(study)).returncode == 0
    page = (study / "report.md").read_text()
    first = next(line for line in page.splitlines() if line.startswith("## "))
    assert first == "## Answer"
    assert "plots/tune_history.png" in page
    assert "### Proof" in page
    assert (study / "plots" / "tune_slices.png").is_file()
    assert "## Answer" in (study / "answer.md").read_text()


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tool: Tool) -> None:
    mine = words(tool.folder, "seed=7")
    process = tool.start(*mine)
    wait_for_line(process, "trial 0,")
    process.send_signal(2)
    out, _ = process.communicate(timeout=tool.limit_s)
    assert process.returncode == 130
    assert "the same command continues" in out
    assert tool.wait_until_gone() == []


def test_a_plan_starts_nothing(tool: Tool) -> None:
    done = tool(*words(tool.folder, "plan=true", "seed=8"))
    assert done.returncode == 0
    assert "space: 6 settings of api_server_count (3), enforce_eager (2)" in done.stdout
    assert "at most 6 launches of the search, then 4 of the proof (2 of each side)" in done.stdout
    assert "nothing was started" in done.stdout


def test_a_plan_says_what_is_kept_and_what_of_the_words_has_no_effect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = words(
        tmp_path,
        "plan=true",
        f"out={tmp_path}",
        "tune.maximise=[output_tok_per_s,goodput_rps]",
        "tune.screen.duration_s=0.2",
        "slo.ttft_s=0.5",
    )
    assert run(mine) == 0
    told = capsys.readouterr().out
    assert "and maximise goodput_rps (TTFT ≤ 500 ms)\n" in told
    assert "tune.screen is left out: of two goals no trial is a clear loser" in told


def test_a_prior_that_sees_no_gain_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slower = "tune.space={api_server_count: null, enforce_eager: [true]}"
    assert run(words(tmp_path, "plan=true", f"out={tmp_path}", slower)) == 0
    assert "the prior expects nothing to be better than the defaults" in capsys.readouterr().out


def test_a_limit_that_one_request_alone_misses_is_told_after_the_first_launch(tool: Tool) -> None:
    # so slow a GPU that its steps are waited for, however busy this machine is
    slow = ["engine.gpu=l4", "model=qwen2.5-1.5b"]
    done = tool(*words(tool.folder, FLOOR, *slow))
    assert done.returncode == 2, done.stdout
    assert "TTFT < 0.10 ms cannot be kept: with the defaults one request alone" in done.stderr
    assert done.stdout.count("trial 0,") == 1
    assert "trial 1" not in done.stdout


def test_a_limit_on_what_is_not_measured_here_is_told_after_the_first_launch(tool: Tool) -> None:
    mine = words(tool.folder, "tune.constraints=gpu_power_w < 300", "seed=9")
    for _ in range(2):  # and by the same command again, which launches nothing
        done = tool(*mine)
        assert done.returncode == 2, done.stdout
        assert "the launch of the defaults measured no gpu_power_w here" in done.stderr
        assert "trial 1" not in done.stdout


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("tune.space={}", "the space is empty"),
        ('tune.constraints=["tpot_p99_s < 1","tpot_p99_s > 2"]', "contradict each other"),
        ("tune.budget.launches=5", "budget.launches=5 is too small"),
        ("tune.budget.minutes=0.01", "tune.budget.minutes=0.01 is too small"),
        ("tune.maximise=tokens", "there is no column 'tokens' to tune for"),
        ("engine.max_num_seqs=1,2", "under tune= an engine setting has one value"),
        ("sweep=batching", "are two commands"),
        ("tune.proof.allow=client_bussy", "Did you mean 'client_busy'?"),
        ("repeats.launches=3", "repeats is for sweeps"),
        ("tune.constraints=capacity_rps > 3", "'capacity_rps' is what load.search finds"),
        ("tune.maximise=goodput_rps", "'goodput_rps' needs limits: set slo.ttft_s"),
        ("load.stream=false", "'tpot_p99_s' is not to be seen with load.stream=false"),
        ("tune.space.max_num_sequences=[1]", "there is no engine setting 'max_num_sequences'"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, says: str
) -> None:
    text = TUNE
    if word == "tune.space={}":  # on the command line it would add nothing to what is there
        text = text.replace("    api_server_count: [2, 4]\n    enforce_eager: [true]\n", "    {}\n")
        word = "seed=0"
    assert run(words(tmp_path, f"out={tmp_path}", word, text=text)) == 2
    said = capsys.readouterr()
    assert said.err.startswith("harness: ")
    assert says in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""
