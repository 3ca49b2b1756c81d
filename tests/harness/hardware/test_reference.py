"""The committed validation of two H200, and the limits that rest on it."""

from pathlib import Path

import pytest

from harness.hardware.card import make_card
from harness.hardware.limits import read_products
from harness.hardware.saved import Validation

FOLDER = Path(__file__).resolve().parents[3] / "results/reference/2xh200/validation"


@pytest.fixture(scope="module")
def reference() -> Validation:
    return Validation.read(FOLDER)


def test_its_card_is_what_the_shipped_limits_say(reference):
    products = read_products()
    gpus = reference.document["environment"]["gpus"]
    by_gpu = {gpu["index"]: products[gpu["name"]] for gpu in gpus}
    assert make_card(reference.measurements, by_gpu) == reference.card


def test_no_product_is_above_the_best_of_its_precision(reference):
    values = {(told.name, told.gpus): told.value for told in reference.measurements}
    for (name, gpus), value in values.items():
        best = values.get((f"{name.rpartition('.')[0]}.max", gpus))
        if name.startswith("gemm.") and best is not None:
            assert value <= best, name


def test_what_is_doubtful_in_it_is_told_in_the_docs(reference):
    doubtful = {row.name for row in reference.card.rows if row.status not in ("PASS", "MEASURED")}
    assert doubtful == {"scaling.gemm.2.efficiency"}
    told = (FOLDER.parents[3] / "docs/validate.md").read_text()
    assert "efficiency of 0.919 is a WARN" in told
