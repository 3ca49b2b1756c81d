import errno
import os

import pytest

from harness import cli
from harness.cli import run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["reprot", "results/x"], "Did you mean report?"),
        (["batching"], "Did you mean sweep=batching?"),
        (["throughput", "plan=true"], "Did you mean tune=throughput?"),
        (["sweep"], "measure with sweep=NAME"),
    ],
)
def test_a_bare_first_word_is_answered_with_what_it_may_mean(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert says in capsys.readouterr().err


def test_a_setting_without_its_value_is_not_taken_for_a_sweep(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["sweep=batching", "engine.max_num_seqs"]) == 2
    error = capsys.readouterr().err
    assert "not of the form name=value" in error
    assert "sweep=engine" not in error


def test_help_on_a_sweep_is_its_own_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep=parallel", "load.concurrency=1", "--help"]) == 0
    told = capsys.readouterr().out
    assert "# Parallelism: tensor parallel" in told
    assert "\n  replicas2: {engine:" in told
    assert "@package" not in told


@pytest.mark.parametrize("choice", ["sweep=paralel", "tune=througput"])
def test_help_and_a_command_say_the_same_of_a_choice_that_is_not_there(
    choice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--help", choice]) == 2
    told = capsys.readouterr().err
    assert "Did you mean " in told
    assert run([choice]) == 2
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sweep=single"], "nothing was started"),
        (["sweep=single", "against=defaults", "engine.max_num_seqs=4"], "  block 1"),
        (["tune=throughput"], "tune throughput: tiny"),
    ],
)
def test_whatever_is_measured_can_be_asked_for_its_plan(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "engine=sim", "model=tiny", "plan=true"]) == 0
    assert says in capsys.readouterr().out


def test_a_tuning_has_no_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tune=throughput", "engine=sim", "against=defaults", "plan=true"]) == 2
    assert "against" in capsys.readouterr().err


def test_a_full_disk_is_told_with_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_words: list[str]) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cli, "_dispatch", full)
    assert run(["sweep=single"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("harness: the disk is full (")
    assert "make room where the results lie, and the same command continues" in told


@pytest.mark.parametrize(("module", "is_ours"), [("hydra.core", False), ("harness.nowhere", True)])
def test_a_python_without_the_packages_is_told_and_a_fault_of_ours_is_not_hidden(
    module: str,
    is_ours: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lacking(_words: list[str]) -> int:
        raise ModuleNotFoundError(f"No module named '{module}'", name=module)

    monkeypatch.setattr(cli, "_dispatch", lacking)
    if is_ours:
        with pytest.raises(ModuleNotFoundError):
            run(["sweep=single"])
        return
    assert run(["sweep=single"]) == 2
    assert "has no package 'hydra': `. .venv/bin/activate`" in capsys.readouterr().err
