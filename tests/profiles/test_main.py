import gzip
import json
import lzma
import subprocess
import sys

import pytest

from profiles.__main__ import main
from tests.profiles.conftest import NSYS, TORCH_CPU


def run(*words, capsys):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_trace_is_told_as_a_page(capsys):
    code, out, err = run(NSYS, capsys=capsys)
    assert (code, err) == (0, "")
    assert out.startswith(f"# Profile of {NSYS.name}\n")


def test_findings_are_written_and_read_again_in_place_of_their_trace(tmp_path, capsys):
    file = tmp_path / "a.findings.json"
    _, first, _ = run(TORCH_CPU, "--json", file, capsys=capsys)
    code, second, _ = run(file, capsys=capsys)
    assert code == 0
    assert first == second


def test_the_folder_of_a_capture_is_told_by_its_findings(tmp_path, capsys):
    _, first, _ = run(TORCH_CPU, "--json", tmp_path / "findings.json", capsys=capsys)
    (tmp_path / "profile.json").write_text("{}")
    (tmp_path / "traces").mkdir()
    code, second, err = run(tmp_path, capsys=capsys)
    assert (code, err) == (0, "")
    assert first == second


def test_a_trace_is_told_by_what_changed_since_the_one_that_it_is_set_against(tmp_path, capsys):
    earlier, file = tmp_path / "earlier.findings.json", tmp_path / "diff.json"
    run(TORCH_CPU, "--json", earlier, capsys=capsys)
    earlier.write_text(json.dumps(json.loads(earlier.read_text()) | {"source": "earlier"}))
    code, out, _ = run(TORCH_CPU, "--against", earlier, "--json", file, capsys=capsys)
    assert code == 0
    assert out.startswith(f"# {TORCH_CPU.name} against earlier\n")
    told = json.loads(file.read_text())
    assert (told["before"], told["after"]) == ("earlier", TORCH_CPU.name)
    assert told["steps"][0]["kind"] == "decode"


def test_traces_of_one_name_are_told_apart_by_where_they_lie(tmp_path, capsys):
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        run(TORCH_CPU, "--json", folder / "findings.json", capsys=capsys)
    _, out, _ = run(tmp_path / "a", "--against", tmp_path / "b", capsys=capsys)
    assert out.startswith(f"# {tmp_path}/a against {tmp_path}/b\n")


@pytest.mark.parametrize("name", ["gone.sqlite", "bad.findings.json", "bad.json"])
def test_bad_input_is_one_sentence_and_code_2(tmp_path, capsys, name):
    if name.startswith("bad"):
        (tmp_path / name).write_text("{}")
    code, out, err = run(tmp_path / name, capsys=capsys)
    assert (code, out) == (2, "")
    assert err.startswith(f"profiles: {tmp_path / name}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["a.sqlite", "a.sqlite.xz", "a.sqlite.gz", "a.json.xz", "a.json"])
def test_a_broken_file_is_named_as_it_was_given(tmp_path, capsys, name):
    pack = {".xz": lzma.compress, ".gz": gzip.compress}.get(name[-3:], bytes)
    (tmp_path / name).write_bytes(pack(b"{" * 200))
    code, _, err = run(tmp_path / name, capsys=capsys)
    assert code == 2
    assert err.startswith(f"profiles: {tmp_path / name}: no ")


def test_it_stands_on_its_own_feet():
    """As people start it, and without what the application needs."""
    script = (
        "import sys, runpy; sys.argv = ['profiles', sys.argv[1]];"
        "\ntry: runpy.run_module('profiles', run_name='__main__')"
        "\nexcept SystemExit as left: assert not left.code"
        "\nheavy = {'hydra', 'pandas', 'matplotlib', 'harness', 'loadgen', 'monitors', 'torch'}"
        "\nassert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(TORCH_CPU)], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
