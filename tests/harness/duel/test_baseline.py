"""What BASELINE stands for, and what is refused before anything is launched."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from harness.conf_files import conf_dir
from harness.config import Config, compose
from harness.duel.baseline import baseline_of
from harness.duel.command import prepare
from harness.engines.config import SimEngine
from harness.errors import UserError
from harness.overrides import Words, parse
from harness.study import Study
from tests.harness.builders import about, fill, plan

SIM = ["engine=sim", "sweep=single", "model=tiny"]


def words(*more: str) -> Words:
    return parse([*SIM, "load.concurrency=2", *more])


def study(out: Path, *said: str) -> Path:
    """A study of two launches, on disk."""
    made = plan("load.concurrency=2", *said)
    model = {"model": asdict(compose(words()).model)}
    kept = Study.open(out, made, about(made) | model, fresh=False)
    fill(kept, made, num=10)
    kept.close()
    return kept.folder


def change(folder: Path, **changes: Any) -> None:
    """Engine settings of every run of a study, as another machine would have stored them."""
    for path in folder.glob("runs/*/run.json"):
        record = json.loads(path.read_text())
        record["engine"] |= changes
        path.write_text(json.dumps(record))


def baseline(against: Any, *said: str, allow: tuple[str, ...] = ()) -> Config:
    asked = words(*said)
    return baseline_of(str(against), asked, compose(asked), allow=allow)


def test_the_defaults_are_the_same_command_without_its_engine_settings() -> None:
    found = baseline("defaults", "engine.max_num_seqs=2", "load.input_tokens=8")
    [engine], [load] = found.engines, found.loads
    assert engine.max_num_seqs is None
    assert load == compose(words("load.input_tokens=8")).loads[0]


def test_how_a_server_is_run_and_what_is_imitated_are_no_engine_settings() -> None:
    [engine] = baseline("defaults", "engine.start_timeout_s=9", "engine.gpu=l4").engines
    assert (engine.start_timeout_s, engine.gpu) == (9.0, "l4")


def test_a_file_of_settings_is_no_default(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    text = "{kind: sim, gpu: l4, max_num_seqs: 2, start_timeout_s: 9}"
    (tmp_path / "engine" / "tuned.yaml").write_text(text)
    asked = words("engine=tuned")
    candidate = compose(asked, tmp_path)
    assert candidate.engines[0].max_num_seqs == 2  # type: ignore[union-attr]
    [engine] = baseline_of("defaults", asked, candidate, extra_conf_dir=tmp_path).engines
    assert isinstance(engine, SimEngine)
    assert (engine.max_num_seqs, engine.gpu, engine.start_timeout_s) == (None, "l4", 9.0)


def test_a_study_gives_its_engine_settings_and_loads(tmp_path: Path) -> None:
    folder = study(
        tmp_path, "engine.max_num_seqs=4,8", "load.concurrency=1,2", "load.input_tokens=8"
    )
    found = baseline(folder, "engine.max_num_seqs=64")
    assert [engine.max_num_seqs for engine in found.engines] == [4, 8]
    assert [load.concurrency for load in found.loads] == [1, 2]
    assert {load.input_tokens for load in found.loads} == {8}


def test_the_cases_of_a_study_are_cases_again(tmp_path: Path) -> None:
    folder = study(tmp_path, "sweep=batching", "case=max_num_seqs,max_num_batched_tokens")
    found = baseline(folder, allow=("imitated_gpu",))
    assert [case.name for case in found.cases] == ["max_num_seqs", "max_num_batched_tokens"]


def test_settings_that_only_say_how_a_server_is_run_make_no_second_point(tmp_path: Path) -> None:
    folder = study(tmp_path, "repeats.launches=2")
    path = sorted(folder.glob("runs/*/run.json"))[0]
    path.write_text(path.read_text().replace('"start_timeout_s": 60.0', '"start_timeout_s": 9.0'))
    assert len(baseline(folder).engines) == 1


@pytest.mark.parametrize(
    ("against", "told"),
    [
        ("nowhere", "there is no such study; against=defaults"),
        (".", "is not a study: it has no study.json"),
    ],
)
def test_what_is_no_study_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, against: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=told):
        baseline(against)


def test_a_study_without_runs_is_refused(tmp_path: Path) -> None:
    made = plan("load.concurrency=2")
    Study.open(tmp_path, made, about(made), fresh=False).close()
    [folder] = tmp_path.glob("single/*")
    with pytest.raises(UserError, match="no run of it is there"):
        baseline(folder)


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its model is tiny, and this is qwen2\.5-1\.5b"):
        baseline(study(tmp_path), "model=qwen2.5-1.5b")


def test_simulated_against_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it was simulated, and this is measured"):
        baseline(study(tmp_path), "engine=external", "engine.url=http://localhost:1")


def test_another_imitated_gpu_is_refused_unless_allowed(tmp_path: Path) -> None:
    folder = study(tmp_path)
    with pytest.raises(UserError, match="imitates h200, and this one l4"):
        baseline(folder, "engine.gpu=l4")
    assert baseline(folder, "engine.gpu=l4", allow=("imitated_gpu",)).engines[0].gpu == "h200"


def test_a_server_that_somebody_else_runs_has_no_defaults() -> None:
    with pytest.raises(UserError, match="has no defaults here"):
        baseline("defaults", "engine=external", "engine.url=http://localhost:1")


def test_settings_that_this_version_does_not_know_are_told(tmp_path: Path) -> None:
    folder = study(tmp_path)
    change(folder, warp_drive=True)
    with pytest.raises(
        UserError, match="its engine cannot be set here: there is no key 'warp_drive'"
    ):
        baseline(folder)


def test_what_was_masked_is_taken_from_the_candidate_or_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = study(tmp_path)
    change(folder, kind="vllm", python=None, port=None, env={"HF_TOKEN": "***", "A": "1"})
    for path in folder.glob("runs/*/run.json"):
        record = json.loads(path.read_text())
        del record["engine"]["gpu"]
        path.write_text(json.dumps(record))
    monkeypatch.setattr("harness.duel.baseline.choose", lambda kind, python: (kind, python))

    def candidate(*env: str) -> Config:
        from dataclasses import replace

        from harness.engines.choice import Choice
        from harness.engines.config import VllmEngine

        config = compose(words())
        engine = VllmEngine(env=dict(word.split("=") for word in env))
        case = replace(config.cases[0], engines=(engine,))
        choice = Choice(kind="vllm", place="cpu", num_gpus=0, vllm_version="1", why="")
        return replace(config, cases=(case,), choice=choice)

    with pytest.raises(UserError, match=r"engine\.env\.HF_TOKEN is masked in its files: set"):
        baseline_of(str(folder), words(), candidate())
    [engine] = baseline_of(str(folder), words(), candidate("HF_TOKEN=x")).engines
    assert engine.env == {"HF_TOKEN": "x", "A": "1"}


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("against=", "against= needs a study's folder"),
        ("repeats.launches=3", "launches are added until the verdict is settled"),
        ("checks.longest_context.start_tokens=9", "has no effect with against="),
        ("guard.max_launches=1", "max_launches=1: must be 2 or more"),
        ("guard.max_launches=a", "max_launches=a: must be a whole number"),
        ("guard.max_launchs=4", "there is no key 'max_launchs'"),
        ("guard=nothing", "guard=nothing: there is no such file"),
        ("json=", "json= needs a value"),
        ("allow=points", "without it there is nothing to compare"),
        ("engine.max_num_seq=2", "Did you mean 'engine.max_num_seqs'"),
        ("policy=interactive", "there is no setting 'policy'"),
    ],
)
def test_bad_words_are_refused_in_a_sentence(word: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        prepare([*SIM, "against=defaults", word], [], None)


def test_the_guards_settings_of_the_command_line_have_the_last_word() -> None:
    duel = prepare([*SIM, "against=defaults", "guard.max_launches=5", "guard.alpha=0.01"], [], None)
    assert duel.looks == (3, 5)
    assert duel.asked.guard.alpha == 0.01
    assert len(duel.schedule.blocks) == 5


def test_a_study_and_a_command_line_become_one_duel(tmp_path: Path) -> None:
    folder = study(tmp_path, "engine.max_num_seqs=4", "load.concurrency=1,2")
    more = ["engine.max_num_seqs=64", "load.concurrency=2,8", f"against={folder}"]
    duel = prepare([*SIM, *more], [*SIM, *more], None)
    block = duel.schedule.blocks[0]
    assert (block.baseline.engine.max_num_seqs, block.candidate.engine.max_num_seqs) == (4, 64)
    assert [run.load.concurrency for run in block.baseline.runs] == [2]
    shown = duel.plan_text()
    assert "changed: engine.max_num_seqs: 4 → 64" in shown
    assert "note: 1 point of the baseline only: not measured" in shown
    assert "a verdict after 3, 5, 8 and 12" in shown


def test_a_guard_of_ones_own_judges_both_sides(tmp_path: Path) -> None:
    (tmp_path / "guard").mkdir()
    own = (conf_dir() / "guard" / "default.yaml").read_text()
    (tmp_path / "guard" / "mine.yaml").write_text(own.replace("first_look: 3", "first_look: 2"))
    duel = prepare([*SIM, "against=defaults", "guard=mine"], [], tmp_path)
    assert duel.asked.guard.first_look == 2
