"""`python -m harness validate` as people type it; the probes of the host run for real."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from harness.cli import run
from harness.hardware import probe, saved, validation
from tests.harness.hardware.builders import card_of, document, environment, measurement, save


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_without_a_gpu_the_host_is_measured_and_the_rest_left_out(tmp_path, capsys):
    assert run(["validate", f"out={tmp_path}"]) == 2, "there is nothing to certify"
    printed = capsys.readouterr().out
    assert "NOT RUN gemm, memory, kernels, p2p, nccl, scaling, steady" in printed
    assert "this machine shows no GPU" in printed
    (told,) = saved.saved(tmp_path)
    values = {m.name: m.value for m in told.measurements}
    wanted = {"host.memory.copy.one", "host.gemm.float64", "host.http_round_trip"}
    assert all(values[name] > 0 for name in [*wanted, "host.client_chunks"])
    assert told.card.verdict == "NO VERDICT"
    assert (told.folder / "card.md").read_text().startswith(f"# Validation {told.id}\n")
    assert [asdict(row) for row in told.card.rows] == told.document["rows"]


def test_drift_between_two_is_printed_and_nothing_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(probe.subprocess, "Popen", None)
    one = save(tmp_path, "one", card_of(0))
    other = tmp_path / "study"
    other.mkdir()
    told = {"environment": environment(driver_version="590.1")}
    (other / "study.json").write_text(json.dumps(told))
    assert run(["validate", f"drift={one},{other}"]) == 0
    assert "could matter: driver_version: 580.159.04 → 590.1" in capsys.readouterr().out
    told["environment"]["gpus"] = []
    (other / "study.json").write_text(json.dumps(told))
    assert run(["validate", f"drift={one},{other}"]) == 1
    assert "not comparable: gpus.count: 2 → 0" in capsys.readouterr().out


def test_a_new_validation_is_compared_with_the_named_one(tmp_path, capsys):
    before = save(tmp_path / "before", "one", [])
    words = ["validate", f"out={tmp_path}", "probes=gemm", f"drift={before}"]
    assert run(words) == 2
    assert "not comparable: gpus.count: 2 → 0" in capsys.readouterr().out
    (told,) = saved.saved(tmp_path)
    assert told.document["drift"]["since"] == "one"
    assert str(tmp_path) not in (told.folder / "validation.json").read_text()
    assert told.document["drift"]["differences"][0]["grade"] == "not comparable"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["second=3"], "Did you mean 'seconds'?"),
        (["seconds=0"], "seconds=0"),
        (["probes=gem"], "probes"),
        (["fast"], "not of the form name=value"),
        (["model=qwen"], "there is no shape 'qwen'. There are"),
        (["drift=/nowhere"], "neither a validation nor a study"),
        (["drift=a,b,c"], "drift"),
        (["python=/nowhere/python"], "cannot be run"),
    ],
)
def test_wrong_words_are_refused_in_a_sentence(tmp_path, capsys, words, said):
    assert run(["validate", f"out={tmp_path}", *words]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert not (tmp_path / "validation").exists(), "nothing was begun"


def test_gpus_without_pytorch_cannot_be_validated(tmp_path, capsys, monkeypatch):
    from tests.harness.test_environment import FOUR

    monkeypatch.setattr("harness.environment.gpus", lambda: FOUR)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("harness.environment.PACKAGES", ("numpy",))
    assert run(["validate", f"out={tmp_path}", "probes=gemm"]) == 2
    assert "has no PyTorch" in capsys.readouterr().err


@pytest.fixture
def two_cards(tmp_path, monkeypatch):
    """Two H200 by the snapshot, and an interpreter that says what their probes would print."""
    from tests.harness.test_environment import FOUR

    monkeypatch.setattr("harness.environment.gpus", lambda: FOUR[:2])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    series = {"series": {"gpu": 0, "at_s": [1.0, 2.0], "flops_per_s": [7e14, 7e14]}}
    outputs = {
        "gemm": [{"measurement": asdict(told)} for told in card_of(0)],
        "p2p": [{"measurement": asdict(measurement("p2p.one_way", unit="B/s", value=3.9e11))}],
        "steady": [{"about": series}],
    }
    for family, lines in outputs.items():
        for line in lines:
            if "measurement" in line:
                line["measurement"]["gpus"] = ["@"]  # the script's own
        told = [*lines, {"about": {"done": True}}]
        text = "".join(f"{json.dumps(line)}\n" for line in told).replace('"@"', "@")
        (tmp_path / f"{family}.jsonl").write_text(text)
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        """[ "$1" = -c ] && { echo '{"python": "3.12.3", "torch": "2.11.0"}'; exit; }\n"""
        "read go\n"
        """gpus=$(echo "$4" | sed 's/.*"gpus": \\[\\([0-9, ]*\\)\\].*/\\1/')\n"""
        f"""sed "s/@/$gpus/" {tmp_path}/$3.jsonl\n"""
    )
    python.chmod(0o755)
    return [f"python={python}", f"out={tmp_path}"]


def test_two_cards_from_the_snapshot_to_the_verdict(two_cards, tmp_path, capsys):
    assert run(["validate", *two_cards, "probes=gemm,p2p,steady"]) == 0
    printed = capsys.readouterr().out
    assert "2x NVIDIA H200" in printed
    (told,) = saved.saved(tmp_path)
    where = {row.where: row.status for row in told.card.rows if row.name == "gemm.bf16.8192"}
    assert where == {"GPU 0": "PASS", "GPU 1": "PASS"}
    assert [row.where for row in told.card.rows if row.name == "p2p.one_way"] == ["GPU 0-1"]
    assert told.card.verdict == "PASS"
    assert {p.name for p in (told.folder / "plots").iterdir()} == {
        "roofline.png",
        "steady_state.png",
    }
    assert run(["validate", *two_cards, "probes=gemm"]) == 0
    assert f"drift since {told.id}" in capsys.readouterr().out


def test_a_family_that_dies_fails_the_card_and_not_the_run(two_cards, tmp_path, capsys):
    (tmp_path / "p2p.jsonl").unlink()  # so its process ends without a word
    assert run(["validate", *two_cards, "probes=gemm,p2p"]) == 1
    printed = capsys.readouterr().out
    assert "FAIL p2p (GPU 0-1): it ended early" in printed
    (told,) = saved.saved(tmp_path)
    assert {row.status for row in told.card.rows if row.name.startswith("gemm.bf16")} == {"PASS"}


def test_one_card_alone_is_told_that_pairs_need_two(two_cards, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert run(["validate", *two_cards, "probes=gemm,p2p,nccl"]) == 0
    printed = capsys.readouterr().out
    assert "NOT RUN p2p, nccl: needs two GPUs or more, CUDA shows one" in printed
    assert "GPU 1" in printed


def test_the_last_validation_of_a_box_is_that_of_the_same_cards(tmp_path):
    save(tmp_path, "old", [], begun_utc="2026-11-20 10:00:00")
    save(tmp_path, "new", [], begun_utc="2026-11-21 10:00:00")
    save(tmp_path, "rehearsed", [], begun_utc="2026-11-22", options={"rehearsal": True})
    save(tmp_path, "other", [], begun_utc="2026-11-23", environment=environment(gpus=[]))
    broken = tmp_path / "validation/broken"
    broken.mkdir()
    (broken / "validation.json").write_text("{")

    told = document([])["environment"]["gpus"]
    taken = SimpleNamespace(gpus=[SimpleNamespace(uuid=one["uuid"]) for one in told])
    assert validation._last(tmp_path, taken).id == "new"


def test_help_tells_every_setting(capsys):
    assert run(["--help", "validate"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("python", "probes", "seconds", "drift", "rehearsal"))
