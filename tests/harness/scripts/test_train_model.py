"""What needs no PyTorch: the text and its split. tests/vllm/test_accuracy.py trains and serves."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.scripts import train_model
from harness.scripts.train_model import held_out_windows, rate_frac, split


@pytest.fixture
def files(tmp_path):
    for number in range(400):
        (tmp_path / f"{number}.py").write_text(f"x = {number}\n")
    return sorted(tmp_path.iterdir())


def test_no_held_out_file_is_trained_on_and_none_is_lost(files):
    text = split(files, train_bytes=10**9)
    assert not {*text.trained} & {*text.held_out}
    assert len(text.trained) + len(text.held_out) == len(files)
    assert 0.01 < len(text.held_out) / len(files) < 0.1


def test_a_copy_of_a_held_out_file_is_held_out_too(files, tmp_path):
    text = split(files, train_bytes=10**9)
    copies = []
    for number, content in enumerate(text.held_out):
        copies.append(tmp_path / f"copy-{number}.py")
        copies[-1].write_text(content)
    assert split([*files, *copies], train_bytes=10**9) == text


def test_what_is_held_out_depends_on_no_other_file(files):
    whole, part = split(files, train_bytes=10**9), split(files[::2], train_bytes=10**9)
    assert {*part.held_out} < {*whole.held_out}
    assert not {*part.held_out} & {*whole.trained}


def test_less_text_to_train_on_holds_out_the_same(files):
    little = split(files, train_bytes=100)
    assert little.held_out == split(files, train_bytes=10**9).held_out
    assert len("".join(little.trained)) < 120


def test_files_that_are_no_text_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(train_model, "MAX_FILE_BYTES", 100)
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    (tmp_path / "empty.py").write_text(" \n")
    (tmp_path / "table.py").write_text("x" * 101)
    (tmp_path / "good.py").write_text("x = 1\n")
    text = split(sorted(tmp_path.iterdir()), train_bytes=10**9)
    assert text.trained + text.held_out == ("x = 1\n",)


def test_windows_are_of_different_files_and_the_same_for_a_seed():
    files = [[number] * 300 for number in range(200)] + [[777] * 255]
    windows = held_out_windows(files, seed=1)
    assert len(windows) == 128
    assert len({window[0] for window in windows} - {777}) == 128
    assert {len(window) for window in windows} == {256}
    assert windows == held_out_windows(files, seed=1) != held_out_windows(files, seed=2)


def test_the_rate_rises_falls_and_is_never_zero():
    rates = [rate_frac(step / 1000) for step in range(1001)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < min(rates) < max(rates) <= 1.001


def test_its_help_needs_nothing_installed():
    done = subprocess.run(
        [sys.executable, "-I", "-S", Path(train_model.__file__), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--minutes" in done.stdout
