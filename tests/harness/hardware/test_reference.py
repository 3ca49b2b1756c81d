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
    products = [(*key, value) for key, value in values.items() if key[0].startswith("gemm.")]
    for name, gpus, value in products:
        precision = name.split(".")[1].replace("model", "bf16")
        best = values.get((f"gemm.{precision}.max", gpus))
        assert best is None or value <= best, name


def test_nothing_in_it_is_doubtful(reference):
    assert {row.status for row in reference.card.rows} == {"PASS", "MEASURED"}
