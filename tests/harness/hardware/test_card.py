from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.hardware.card import TITLES, cells, make_card, verdict
from harness.hardware.ceilings import Ceilings
from harness.hardware.limits import read_products
from harness.hardware.probe import Outcome, Probe
from harness.hardware.probes.record import highest
from tests.harness.hardware.builders import card_of, measurement

H200 = read_products()["NVIDIA H200"]
BOTH = {0: H200, 1: H200}


def status_of(told, products=BOTH):
    (row,) = make_card([told], products).rows
    return row.status


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("gemm.bf16.8192", 780e12, "PASS"),
        ("gemm.bf16.8192", 650e12, "WARN"),
        ("gemm.bf16.8192", 400e12, "FAIL"),
        ("gemm.bf16.4096", 400e12, "MEASURED"),
        ("state.nvlink_links", 18, "PASS"),
        ("state.nvlink_links", 9, "FAIL"),
        ("state.ecc_uncorrected", 0, "PASS"),
        ("state.ecc_uncorrected", 1, "FAIL"),
        ("steady.heat_throttled_frac", 0.01, "WARN"),
        ("kernels.rms_norm", 1.0, "MEASURED"),
    ],
)
def test_a_value_is_judged_by_its_products_limits(name, value, expected):
    assert status_of(measurement(name, value=value)) == expected


def test_a_product_without_a_file_has_values_and_no_verdict():
    card = make_card(card_of(0), {0: None})
    assert {row.status for row in card.rows} == {"MEASURED"}
    assert card.verdict == "NO VERDICT"
    assert card.exit_code == 0
    assert all(row.value is not None for row in card.short())


def test_two_cards_of_different_products_are_not_judged_as_a_pair():
    assert status_of(measurement("p2p.one_way", gpus=(0, 1), value=1.0)) == "FAIL"
    mixed = {0: H200, 1: None}
    assert status_of(measurement("p2p.one_way", gpus=(0, 1), value=1.0), mixed) == "MEASURED"


@pytest.mark.parametrize("error", [0.02, nan])
def test_a_wrong_result_fails_however_fast_and_whatever_the_product(error):
    told = measurement(value=900e12, error=error, error_limit=0.01)
    assert status_of(told) == "FAIL"
    assert status_of(told, {0: None}) == "FAIL"


def test_a_value_that_is_not_there_fails_with_its_reason():
    (row,) = make_card([measurement(value=None, reason="OutOfMemoryError: 2 GiB")], BOTH).rows
    assert (row.status, row.reason) == ("FAIL", "OutOfMemoryError: 2 GiB")


def test_a_process_that_died_is_a_failure_beside_what_it_had_measured():
    probe = Probe(family="nccl", gpus=(0, 1), uuids=(), options={}, limit_s=1.0)
    outcome = Outcome(
        probe=probe,
        measurements=(),
        about=(),
        failure="it was ended at its limit of 1 s",
        stderr="first\nNCCL WARN last",
        took_s=1.0,
    )
    card = make_card(card_of(0), BOTH, [outcome])
    assert card.rows[-1].name == "nccl"
    assert card.rows[-1].where == "GPU 0-1"
    assert card.rows[-1].reason == "it was ended at its limit of 1 s: NCCL WARN last"
    assert (card.verdict, card.exit_code) == ("FAIL", 1)


def test_what_was_left_out_says_why_and_is_no_failure():
    card = make_card(card_of(0), BOTH, (), {"p2p": "needs two GPUs"})
    assert (card.rows[-1].status, card.rows[-1].reason) == ("NOT RUN", "needs two GPUs")
    assert card.verdict == "PASS"
    assert card.rows[-1] not in card.short()


def test_each_card_is_judged_by_itself():
    card = make_card([*card_of(0), *card_of(1, scale=0.5)], BOTH)
    failed = {row.where for row in card.rows if row.status == "FAIL"}
    assert failed == {"GPU 1"}


def test_the_cards_values_stand_side_by_side():
    rows = make_card([*card_of(0), *card_of(1)], BOTH).rows
    assert [row.where for row in rows] == ["GPU 0", "GPU 1"] * 5


def test_a_kernels_share_is_of_its_own_cards_measured_roofline():
    memory_bound = measurement(
        "kernels.rms_norm", unit="B/s", value=2.15e12, time_s=1.0, flops=1.0e12, moved_bytes=2.15e12
    )
    compute_bound = measurement(
        "kernels.flash_prefill", value=395e12, time_s=1.0, flops=395e12, moved_bytes=1e9
    )
    rows = make_card([*card_of(0), *card_of(1, 0.5), memory_bound, compute_bound], BOTH).rows
    assert [row.ceiling_frac for row in rows[-2:]] == pytest.approx([0.5, 0.5])
    assert rows[-2].intensity_flop_per_byte == pytest.approx(1 / 2.15)


def test_the_l2_cache_is_no_roof_of_the_memory():
    read = measurement("memory.read", value=4.5e12, unit="B/s")
    l2 = measurement("memory.l2_read", value=11e12, unit="B/s")
    assert Ceilings([read, l2]).memory_bytes_per_s(0) == 4.5e12


def test_without_a_measured_ceiling_there_is_no_share_of_it():
    told = measurement("kernels.rms_norm", time_s=1.0, flops=1e12, moved_bytes=1e12)
    assert make_card([told], BOTH).rows[0].ceiling_frac is None


@given(st.lists(st.sampled_from(["PASS", "WARN", "FAIL", "NOT RUN", "MEASURED"])))
def test_the_verdict_is_the_worst_that_was_judged(statuses):
    worst = next((s for s in ("FAIL", "WARN", "PASS") if s in statuses), "NO VERDICT")
    assert verdict(statuses) == worst


@given(st.floats(1e12, 1e15), st.floats(1e12, 1e15))
def test_a_faster_card_is_never_judged_worse(one, other):
    order = ["FAIL", "WARN", "PASS"]
    slow, fast = (order.index(status_of(measurement(value=v))) for v in sorted((one, other)))
    assert slow <= fast


def test_a_row_reads_in_display_units():
    (row,) = make_card([measurement(value=790.4e12, time_s=0.00139)], BOTH).rows
    shown = dict(zip(TITLES, cells(row), strict=True))
    assert shown["value"] == "790 TFLOP/s"
    assert shown["% of peak"] == "79.9"
    assert shown["time µs"] == "1,390"
    assert shown["limit"] == "≥ 68.0 % (fail 60.0 %)"


def test_the_highest_is_that_of_the_search_or_of_what_was_measured_before_it():
    found = measurement("gemm.bf16.max", value=700e12, detail={"m": 5, "shapes_tried": 9})
    squares = [measurement(value=600e12, detail={"m": 1}), measurement(value=None, reason="died")]
    best = highest(found, squares)
    assert (best.value, best.detail["m"]) == (700e12, 5)
    best = highest(found, [*squares, measurement(value=760e12, detail={"m": 2})])
    assert (best.name, best.value) == ("gemm.bf16.max", 760e12)
    assert best.detail == {"m": 2, "shapes_tried": 9, "searched": 700e12}


def test_a_wrong_result_is_never_the_highest_and_a_wrong_search_stays_wrong():
    wrong = {"error": 0.5, "error_limit": 0.01}
    found = measurement("gemm.bf16.max", value=700e12)
    assert highest(found, [measurement(value=900e12, **wrong)]) == found
    broken = measurement("gemm.bf16.max", value=700e12, **wrong)
    assert highest(broken, [measurement(value=900e12)]) == broken
