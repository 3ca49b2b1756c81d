from pathlib import Path
from typing import Any

import pytest

from harness.ceilings import CEILINGS, last_validation, measured_ceiling
from tests.harness.hardware.builders import UUIDS, card_of, save


def test_peaks_are_dense() -> None:
    h200, h100 = CEILINGS["NVIDIA H200"], CEILINGS["NVIDIA H100 80GB HBM3"]
    assert h200.flops_per_s == h100.flops_per_s
    assert h200.flops_per_s["fp8"] == 2 * h200.flops_per_s["bfloat16"]
    assert all(900e12 < h200.flops_per_s[t] < 1000e12 for t in ("bfloat16", "float16"))


def study(begun_utc: str = "2026-11-21 12:00:00", uuids: tuple[str, ...] = UUIDS) -> dict[str, Any]:
    """The parts of study.json that say where and when it was measured."""
    gpus = [{"uuid": uuid} for uuid in uuids]
    return {"begun_utc": begun_utc, "environment": {"gpus": gpus}}


def test_a_study_has_the_ceiling_of_the_last_validation_before_it(tmp_path: Path) -> None:
    folder = tmp_path / "batching/2026-11-21-abc"
    assert measured_ceiling(folder, study()) is None
    save(tmp_path, "first", card_of(0) + card_of(1), begun_utc="2026-11-21 10:00:00")
    save(tmp_path, "second", card_of(0) + card_of(1, 0.9), begun_utc="2026-11-21 11:00:00")
    save(tmp_path, "later", card_of(0, 0.1) + card_of(1), begun_utc="2026-11-21 13:00:00")
    found = measured_ceiling(folder, study())
    assert found is not None
    assert found.source == "validation second"
    assert found.flops_per_s["bfloat16"] == pytest.approx(0.95 * 790e12)
    assert found.memory_bytes_per_s == pytest.approx(0.95 * 4.3e12)
    one = measured_ceiling(folder, study(uuids=UUIDS[1:]))
    assert one is not None
    assert one.flops_per_s["fp8"] == pytest.approx(0.9 * 1300e12)


def test_other_gpus_a_rehearsal_and_no_gpu_give_no_ceiling(tmp_path: Path) -> None:
    folder = tmp_path / "batching/study"
    measurements = card_of(0) + card_of(1)
    save(tmp_path, "rehearsed", measurements, options={"rehearsal": True})
    assert measured_ceiling(folder, study()) is None
    save(tmp_path, "real", measurements)
    assert measured_ceiling(folder, study()) is not None
    assert measured_ceiling(folder, study(uuids=("GPU-cc",))) is None
    assert measured_ceiling(folder, study(uuids=())) is None
    assert measured_ceiling(folder, {}) is None


def test_a_validation_among_the_reference_results_counts_and_the_newest_wins(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "batching/study"
    made = card_of(0) + card_of(1)
    save(tmp_path / "reference/2xh200", "kept", made, begun_utc="2026-11-20 10:00:00")
    found = last_validation(folder, study())
    assert found is not None
    assert found.id == "kept"
    save(tmp_path, "own", made, begun_utc="2026-11-21 10:00:00")
    found = last_validation(folder, study())
    assert found is not None
    assert found.id == "own"


def test_what_was_not_measured_on_every_gpu_is_not_in_its_ceiling(tmp_path: Path) -> None:
    without = [told for told in card_of(1) if not told.name.startswith("gemm.fp8")]
    save(tmp_path, "real", card_of(0) + without)
    found = measured_ceiling(tmp_path / "batching/study", study())
    assert found is not None
    assert set(found.flops_per_s) == {"bfloat16"}
