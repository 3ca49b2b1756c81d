"""The verb on studies that lie on disk."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness.cli import run
from harness.study import Study
from tests.harness.builders import WINDOW, about, plan, record, requests
from tests.harness.guard.studies import ENVIRONMENT

REFERENCE = Path(__file__).parents[3] / "results/reference/2xh200/batching"


def made(out: Path, *, ttft_s: float = 0.05, begun_s: float = 0.0, launches: int = 4) -> str:
    """A study of one point, whose launches scatter by a percent around `ttft_s`."""
    planned = plan("load.concurrency=2", f"repeats.launches={launches}")
    told = about(planned) | {"environment": ENVIRONMENT, "options": {"seed": 0}}
    kept = Study.open(out, planned, told, fresh=False)
    for index, launch in enumerate(planned.launches):
        folder = kept.new_launch(launch.id)
        kept.save_launch(folder, {"gpus": "1x NVIDIA H200", "facts": {"vllm_version": "0.25.1"}})
        window = replace(WINDOW, clock_utc_ns=WINDOW.clock_utc_ns + int((begun_s + index) * 1e9))
        for one in launch.runs:
            noise = 1 + 0.01 * (index % 3)
            samples = requests(700, ttft_s * noise, 0.01 * noise)
            told = record(planned, one, folder) | {"window": asdict(window)}
            kept.save_run(one.id, told, **samples)
    kept.close()
    return str(kept.folder)


@pytest.fixture
def mine(tmp_path: Path) -> str:
    return made(tmp_path / "mine")


def test_a_regression_exits_with_1_and_is_written_in_three_forms(
    tmp_path: Path, mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = made(tmp_path / "theirs", ttft_s=0.08, begun_s=1000)
    files = [f"{name}={tmp_path / name}" for name in ("json", "junit", "markdown")]
    assert run(["compare", mine, theirs, "metrics=ttft_p50_s,ttft_p99_s", *files]) == 1
    shown = capsys.readouterr().out
    assert "REGRESSED. 2 regressed of 2 (1 point × 2 metrics)" in shown.replace("\n", " ")
    assert "+60" in shown
    told = json.loads((tmp_path / "json").read_text())
    assert [point["verdict"] for point in told["points"]] == ["regressed"] * 2
    assert "<failure" in (tmp_path / "junit").read_text()
    assert (tmp_path / "markdown").read_text().startswith("**Regressed.**")


def test_the_verb_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "--help"]) == 0
    assert "compare BASELINE CANDIDATE" in capsys.readouterr().out


def test_the_same_again_exits_with_0(tmp_path: Path, mine: str) -> None:
    theirs = made(tmp_path / "theirs", begun_s=1000)
    assert run(["compare", mine, theirs, "metrics=ttft_p50_s", "guard=default"]) == 0


def test_a_metric_named_twice_is_judged_once(
    tmp_path: Path, mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = made(tmp_path / "other", begun_s=100)
    assert run(["compare", mine, other, "metrics=ttft_p50_s,ttft_p50_s"]) == 0
    assert "1 point × 1 metric" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_told_before_or_after_the_verdict(
    tmp_path: Path, mine: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["compare", mine, mine, f"json={tmp_path}"]) == 2
    assert "that is a folder" in capsys.readouterr().err
    other = made(tmp_path / "other", begun_s=100)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    assert run(["compare", mine, other, f"json={tmp_path}/a.json"]) == 2
    told = capsys.readouterr()
    assert "at 95 %" in told.out
    assert "a.json cannot be written: No space left on device." in told.err


def test_few_launches_exit_with_2(tmp_path: Path, mine: str) -> None:
    theirs = made(tmp_path / "theirs", begun_s=1000, launches=1)
    assert run(["compare", mine, theirs, "metrics=ttft_p50_s"]) == 2


def test_what_is_refused_exits_with_2_unless_it_is_allowed(
    tmp_path: Path, mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = made(tmp_path / "theirs", begun_s=1000)
    Study(Path(theirs)).add(environment=ENVIRONMENT | {"driver_version": "590.1"})
    words = ["compare", mine, theirs, "metrics=ttft_p50_s"]
    assert run(words) == 2
    assert "refused    driver_version: 580.159.04 / 590.1" in capsys.readouterr().out
    assert run([*words, "--allow", "driver_version"]) == 0
    assert run([*words, "allow=driver_version,gpus"]) == 0
    assert "allowed    driver_version" in capsys.readouterr().out


def test_a_study_without_samples_is_refused(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", mine, str(REFERENCE)]) == 2
    assert "raw_samples: there / none: an aggregate cannot be judged" in capsys.readouterr().out
    assert run(["compare", str(REFERENCE), "policy=interactive"]) == 2
    told = capsys.readouterr().out
    assert "raw_samples" in told
    assert "unfinished" not in told


def test_a_policy_is_held_against_one_study(tmp_path: Path, mine: str) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("objectives: [{at: {concurrency: 2}, limits: [ttft_p99_s < 0.2]}]")
    assert run(["compare", mine, f"policy={policy}"]) == 0
    policy.write_text("objectives: [{limits: [ttft_p99_s < 0.02]}]")
    assert run(["compare", mine, f"policy={policy}"]) == 1
    assert run(["compare", mine, "policy=interactive"]) == 0


def test_policies_and_guards_of_ones_own_are_found_by_name(
    tmp_path: Path, mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    for group in ("policy", "guard"):
        (own / group).mkdir(parents=True)
    (own / "policy/promised.yaml").write_text("objectives: [{limits: [ttft_p99_s < 0.02]}]")
    words = [f"--config-dir={own}", "compare", mine]
    assert run([*words, "policy=promised"]) == 1
    assert run([*words, "policy=interactive"]) == 0, "the harness' own is still there"
    assert run(["compare", mine, "policy=promised"]) == 2
    assert "By name there are: interactive." in capsys.readouterr().err
    shutil.copy(own / "policy/promised.yaml", own / "policy/interactive.yaml")
    assert run([*words, "policy=interactive"]) == 1, "one's own has the last word"
    (own / "guard/strict.yaml").write_text("alpha: 2")
    assert run([*words, "policy=interactive", "guard=strict"]) == 2
    assert f"{own}/guard/strict.yaml: alpha=2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("objectives: [{at: {}}]", "'objectives.0.limits' is missing."),
        ("objective: []", "there is no key 'objective'."),
        ("objectives: 3", "objectives=3: must be a list: [a, b]."),
        ("[]", "it must be names with values: {NAME: VALUE}."),
        ("objectives: [{limits: [ttft_p98_s < 1]}]", "objectives.0: there is no metric"),
    ],
)
def test_a_policy_that_is_none_is_told_by_file_and_key(
    tmp_path: Path, mine: str, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(text)
    assert run(["compare", mine, f"policy={policy}"]) == 2
    assert f"{policy}: {says}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "two studies, or one and a policy"),
        (["{mine}"], "two studies, or one and a policy"),
        (["{mine}", "{mine}"], "same measurements"),
        (["{mine}", "/nowhere"], "is not a study"),
        (["{mine}", "{mine}", "metric=x"], "Did you mean 'metrics'?"),
        (["{mine}", "{mine}", "metrics=ttft_p98_s"], "Did you mean 'ttft_p"),
        (["{mine}", "{mine}", "metrics=foo"], "There are: output_tok_per_s, total_tok_per_s"),
        (["{mine}", "{mine}", "allow=driver"], "Did you mean 'driver_version'?"),
        (["{mine}", "{mine}", "allow=simulated"], "nothing to compare"),
        (["{mine}", "{mine}", "--allow"], "needs a value"),
        (["{mine}", "policy=interactiv"], "Did you mean 'interactive'?"),
        (["{mine}", "guard=strict", "policy=interactive"], "By name there are: default."),
        (["{mine}", "policy=interactive", "json=/nowhere/x"], "there is no such folder"),
    ],
)
def test_bad_words_get_one_sentence_and_exit_code_2(
    mine: str, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", *(word.format(mine=mine) for word in words)]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert len(told.strip().splitlines()) == 1
