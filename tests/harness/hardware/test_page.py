from dataclasses import asdict
from pathlib import Path

import pytest

from harness.hardware.card import make_card
from harness.hardware.drift import Difference, Grade
from harness.hardware.limits import read_products
from harness.hardware.page import markdown, show
from harness.hardware.saved import Validation
from tests.harness.hardware.builders import card_of, environment, measurement, save

H200 = read_products()["NVIDIA H200"]
REFERENCE = Path(__file__).parents[3] / "results" / "reference" / "2xh200" / "validation"
LEFT_OUT = {"p2p": "needs two GPUs", "nccl": "needs two GPUs", "steady": "not asked for"}


def validation(tmp_path, **changes):
    told = [*card_of(0), *card_of(1, 0.5), measurement("gemm.bf16.1024", value=200e12)]
    told.append(measurement("kernels.rms_norm", speedup_plain=5.2, speedup_cpu=180.0, how="Triton"))
    card = make_card(told, {0: H200, 1: H200}, (), LEFT_OUT)
    rows = [asdict(row) for row in card.rows]
    return Validation.read(
        save(tmp_path, "one", told, rows=rows, verdict=card.verdict, **changes),
    )


def test_the_card_says_the_verdict_the_reasons_and_everything_measured(tmp_path):
    text = markdown(validation(tmp_path), None, ["roofline.png"])
    assert text.startswith("# Validation one\n\n**FAIL**: 2x NVIDIA H200, PyTorch 2.11.0")
    assert "| FAIL | gemm.bf16.8192 | GPU 1 | 390 TFLOP/s | 39.4 |" in text
    assert "- FAIL gemm.bf16.8192 (GPU 1): ≥ 68.0 % (fail 60.0 %): ours gave 0.7" in text
    assert "- NOT RUN p2p, nccl: needs two GPUs" in text
    assert "- NOT RUN steady: not asked for" in text
    assert "| MEASURED | gemm.bf16.1024 | GPU 0 | 200 TFLOP/s | 20.2 |" in text
    assert "| kernels.rms_norm | GPU 0 | Triton | – | 5.2 | 180 |" in text
    assert "![roofline.png](plots/roofline.png)" in text
    assert "Drift" not in text, "there is nothing to compare with"


def test_the_card_names_each_gpu_and_what_it_does_not_know(tmp_path):
    pair = {"gpus": [0, 1], "nvlink_links": 18, "level": "one NUMA node", "p2p": True}
    text = markdown(validation(tmp_path, environment=environment(pairs=[pair])), None, [])
    assert "- GPU 0: NVIDIA H200, power limit 700 W, 18 NVLinks of ? GB/s" in text
    assert "- GPU 0 to 1: 18 NVLinks, one NUMA node, peer to peer yes" in text


def test_drift_is_shown_worst_first_or_as_none(tmp_path, capsys):
    told = validation(tmp_path, drift={"since": "before", "differences": []})
    moved = Difference(name="driver_version", before="580", now="590", grade=Grade.COULD_MATTER)
    assert "## Drift since before\n\nNone." in markdown(told, [], [])
    assert "- could matter: `driver_version` 580 → 590" in markdown(told, [moved], [])
    show(told, [moved])
    assert "  could matter: driver_version: 580 → 590" in capsys.readouterr().out


def test_the_screen_leaves_out_the_long_series(tmp_path, capsys):
    show(validation(tmp_path), None)
    printed = capsys.readouterr().out
    assert "gemm.bf16.8192" in printed
    assert "gemm.bf16.1024" not in printed
    assert "FAIL: 2x NVIDIA H200" in printed


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_screen_is_not_wider_than_it_is(capsys, monkeypatch, width):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    told = Validation.read(REFERENCE)
    (wanted,) = [r for r in told.card.rows if (r.name, r.where) == ("gemm.bf16.max", "GPU 0")]
    show(told, None)
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if "gemm.bf16.max" in line and "GPU 0" in line]
    assert (wanted.limit.split(" (")[0] in row) == (width >= 100)
    assert f" {wanted.peak_frac * 100:.1f}" in row, "its share of the peak is always there"
    assert max(len(line.rstrip()) for line in lines if "GPU 0" in line) <= width


def test_a_rehearsal_says_so_before_anything_else(tmp_path):
    told = validation(tmp_path, options={"rehearsal": True})
    assert "REHEARSAL" in markdown(told, None, []).splitlines()[2]
