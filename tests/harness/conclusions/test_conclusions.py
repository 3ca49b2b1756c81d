"""Sentences that must be told by the rows alone."""

from dataclasses import replace
from math import inf, nan
from typing import Any

import pandas as pd
import pytest

from harness.conclusions.batch import batch_conclusion, limit_conclusion
from harness.conclusions.box import box_conclusion, cards_conclusion
from harness.conclusions.gpus import (
    communication_conclusion,
    links_conclusion,
    parallel_conclusion,
)
from harness.conclusions.kv_cache import kv_cache_conclusion
from harness.conclusions.precision import precision_conclusion
from harness.conclusions.rows import NO_ANSWER, answer, caveats, good
from harness.hardware.card import Card, Row
from harness.hardware.drift import Difference, Grade
from harness.tables import SIMULATED
from profiles.findings import from_json
from tests.harness.report.studies import FINDINGS_OF_A_RUN

NOTHING = pd.DataFrame()


VOID = {"validity": "few_samples client_busy"}


def points(*rows: dict[str, Any]) -> pd.DataFrame:
    plain = {
        "status": "ok",
        "simulated": False,
        "validity": "",
        "runs_all": 3,
        "setting": "s",
        "load_kind": "k",
        "arrival": "closed",
        "case": None,
        "knee": False,
        "output_tok_per_s": 100.0,
    }
    return pd.DataFrame([plain | row for row in rows])


def closed(concurrency: int, rate: float, ttft_s: float, tpot_s: float, **more: Any) -> Any:
    return {
        "concurrency": concurrency,
        "output_tok_per_s": rate,
        "ttft_p50_s": ttft_s,
        "ttft_p99_s": 2 * ttft_s,
        "ttft_sched_p99_s": 2 * ttft_s,
        "tpot_p50_s": tpot_s,
        "tpot_p99_s": 2 * tpot_s,
    } | more


def card_row(name: str, **values: Any) -> Row:
    nothing = dict.fromkeys(Row.__dataclass_fields__)
    plain = {"where": "GPU 0-1", "status": "MEASURED", "unit": "B/s", "limit": "", "reason": ""}
    return Row(**(nothing | plain | {"name": name} | values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "told",
    [
        batch_conclusion(NOTHING, ttft_p99_s=1, tpot_p99_s=1),
        limit_conclusion(NOTHING),
        precision_conclusion(NOTHING),
        parallel_conclusion(NOTHING),
        links_conclusion([]),
    ],
)
def test_nothing_measured_is_answered_by_no_number(told: Any) -> None:
    assert answer(told) == NO_ANSWER


def test_good_rows_have_not_failed_are_not_void_and_every_number_is_finite() -> None:
    bad = [{"x": 2.0, "status": "failed"}, {"x": 3.0} | VOID]
    table = points({"x": 1.0, "validity": "(died)"}, {"x": nan}, {"x": inf}, {"x": None}, *bad)
    assert [row["x"] for row in good(table, "x")] == [1.0]
    assert good(table, "not a column") == []


def test_caveats_name_the_simulator_codes_and_single_runs() -> None:
    table = points({"simulated": True, "validity": "few_samples", "runs_all": 1}, {"runs_all": 1})
    simulated, once, codes = caveats(table, good(table))
    assert simulated == SIMULATED
    assert "measured once" in once
    assert codes == "Codes of 1 point of 2: few_samples (--help validity)."


def test_repeated_points_without_codes_have_no_caveats() -> None:
    table = points({}, {})
    assert not [*caveats(table, good(table))]


def test_caveats_count_the_void_points_that_were_left_out_and_say_why() -> None:
    table = points({"validity": "few_samples"}, VOID, {"status": "failed", "validity": "died"})
    left_out, codes = caveats(table, good(table))
    assert left_out == "Left out as void: 2 points of 3, by client_busy, died (--help validity)."
    assert codes == "Codes of 1 point of 1: few_samples (--help validity)."


@pytest.mark.parametrize(
    "concluded",
    [
        lambda table: batch_conclusion(table, ttft_p99_s=1, tpot_p99_s=1),
        limit_conclusion,
        precision_conclusion,
        parallel_conclusion,
    ],
)
def test_of_void_points_alone_nothing_is_concluded_and_it_is_said_why(concluded: Any) -> None:
    way = {"speedup": 1.0, "gpu_efficiency_frac": 1.0, "num_gpus": 2, "knee": True}
    table = points(*(closed(n, 100, 0.1, 0.1, max_num_seqs=n, **way, **VOID) for n in (1, 2, 4)))
    assert answer(concluded(table)).splitlines() == [
        NO_ANSWER,
        "Left out as void: 3 points of 3, by client_busy (--help validity).",
    ]


def test_a_void_point_takes_no_part_in_a_conclusion() -> None:
    table = points(
        *(closed(n, 100 * n, 0.01, 0.002, max_num_seqs=n, case="max_num_seqs") for n in (1, 2)),
        closed(4, 900, 0.01, 0.002, max_num_seqs=4, case="max_num_seqs", **VOID),
    )
    told = answer(batch_conclusion(table, ttft_p99_s=1, tpot_p99_s=1))
    assert "the most is 200 output tok/s, at concurrency 2." in told
    told = answer(limit_conclusion(table))
    assert told.startswith("max_num_seqs=2 is the smallest within 10.0 % of the best: 200")
    assert "Left out as void: 1 point of 3" in told


def test_two_gpus_whose_points_are_void_are_not_said_to_be_unused() -> None:
    one = {"concurrency": 1, "num_gpus": 1, "speedup": 1.0, "gpu_efficiency_frac": 1.0}
    told = answer(parallel_conclusion(points(one, one | VOID | {"num_gpus": 2})))
    assert told.splitlines()[0] == NO_ANSWER


def test_the_knee_is_told_against_one_stream_and_against_the_best() -> None:
    table = points(
        closed(1, 100, 0.01, 0.002),
        closed(8, 950, 0.02, 0.004, knee=True),
        closed(64, 1000, 0.2, 0.01),
    )
    knee, beyond, *_ = batch_conclusion(table, ttft_p99_s=1, tpot_p99_s=1)
    assert "The knee is concurrency 8: 950 output tok/s" in knee
    assert "2.00 and 2.00 times those of concurrency 1" in knee
    assert "1.05-fold and TTFT p50 10.00-fold" in beyond


def test_the_most_within_limits_is_told_and_an_open_loop_waits_from_when_it_was_due() -> None:
    late = {"arrival": "poisson", "concurrency": nan, "rate_rps": 5.0, "ttft_sched_p99_s": 9.0}
    table = points(
        closed(1, 100, 0.01, 0.002),
        closed(8, 900, 0.02, 0.004),
        closed(9, 990, 5.0, 0.004),
        closed(0, 300, 0.01, 0.002) | late,
    )
    told = answer(batch_conclusion(table, ttft_p99_s=0.1, tpot_p99_s=0.05))
    assert "(closed) the most is 900 output tok/s, at concurrency 8." in told
    assert "(poisson) there is no point." in told


def test_the_smallest_batch_limit_near_the_best_is_told() -> None:
    table = points(
        *(
            closed(2048, rate, 1, tpot_s, max_num_seqs=limit, case="max_num_seqs")
            for limit, rate, tpot_s in ((16, 100, 0.001), (64, 950, 0.002), (256, 1000, 0.005))
        ),
        closed(2048, 2000, 1, 0.001, max_num_seqs=8, case="eager"),
    )
    told = answer(limit_conclusion(table))
    assert told.startswith("max_num_seqs=64 is the smallest within 10.0 % of the best: 950")
    assert "256, the best, gives 1,000 output tok/s at TPOT p99 10.0 ms" in told


ACCURACY = {
    "kl_mean_nats": 1e-4,
    "top1_agreement_frac": 0.99,
    "exact_match_frac": 0.5,
    "perplexity_delta": 0.0,
    "perplexity_delta_low": -0.1,
    "perplexity_delta_high": 0.1,
    "accuracy_reference": "float32",
}


def test_the_fastest_format_is_of_those_whose_perplexity_holds_the_references() -> None:
    worse = ACCURACY | {"perplexity_delta_low": 0.05}
    table = points(
        {"case": "float32", "concurrency": 8, "output_tok_per_s": 100.0, **ACCURACY},
        {"case": "bfloat16", "concurrency": 8, "output_tok_per_s": 150.0, "speedup": 1.5}
        | ACCURACY,
        {"case": "fp8", "concurrency": 8, "output_tok_per_s": 200.0, "speedup": 2.0} | worse,
        {"case": "fp8", "concurrency": 1, "output_tok_per_s": 900.0} | worse,
    )
    told = answer(precision_conclusion(table))
    assert "bfloat16: 150 output tok/s, 1.50 × float32; KL 0.0001 nats, top-1 99.0 %" in told
    assert "The fastest of the 2 whose perplexity cannot be told" in told
    assert told.endswith("is bfloat16.")
    assert "900" not in told


def test_accuracy_of_random_weights_is_no_number() -> None:
    row = {"case": "bfloat16", "concurrency": 8, "accuracy_reference": "random weights"}
    told = answer(precision_conclusion(points(row)))
    assert "accuracy: random weights." in told
    assert "Nothing is known of their accuracy." in told


def test_capacity_saturation_and_reuse_are_told_as_far_as_they_were_measured() -> None:
    table = points(
        {"case": "capacity", "kv_cache_tokens": 900, "kv_cache_expected_tokens": 1000}
        | {"longest_context_tokens": 800, "longest_context_limit": "max_model_len=800"},
        *(
            {"case": "saturation", "kv_demand_frac": demand, "preemptions": put_back}
            | {"goodput_rps": goodput}
            for demand, put_back, goodput in ((2.0, 40, 3.0), (0.5, 0, 8.0), (1.1, 7, 9.0))
        ),
        *(
            {"case": "reuse", "hit_frac": share, "prefix_cache_hit_frac": share, "ttft_p50_s": s}
            for share, s in ((0.0, 0.2), (0.9, 0.05))
        ),
    )
    told = [*kv_cache_conclusion(table)]
    assert told == [
        "At most 900 tokens fit (case capacity), 90.0 % of what weights leave of the memory by"
        " arithmetic.",
        "The longest context that was served has 800 tokens (case capacity; max_model_len=800).",
        "Preemption begins at a demand of 1.10 of the cache (7 requests), none up to 0.50.",
        "Goodput is highest at a demand of 1.10 (9.0 req/s) and 3.0 req/s at 2.00.",
        "Where 90.0 % of each prompt is shared, 90.0 % of its tokens are found in the cache, and"
        " TTFT p50 is 50.0 ms against 200 ms at 0.0 %.",
    ]


def test_of_a_cache_whose_points_are_void_nothing_is_told_but_that() -> None:
    table = points({"case": "saturation", "kv_demand_frac": 2.0, "preemptions": 4} | VOID)
    assert [*kv_cache_conclusion(table)] == [
        "Nothing that was measured tells where it saturates.",
        "Nothing that was measured tells what is used again.",
        "Left out as void: 1 point of 1, by client_busy (--help validity).",
    ]


def test_a_cache_that_was_never_full_has_no_limit_found() -> None:
    table = points({"case": "saturation", "kv_demand_frac": 0.2, "preemptions": 0})
    assert "its limit was not reached" in answer(kv_cache_conclusion(table))


def test_the_fastest_way_to_use_two_gpus_is_told_at_each_concurrency() -> None:
    table = points(
        *(
            {"case": case, "concurrency": 64, "num_gpus": gpus, "speedup": speedup}
            | {"gpu_efficiency_frac": speedup / gpus}
            for case, gpus, speedup in (("tp1", 1, 1.0), ("tp2", 2, 1.3), ("dp2", 2, 1.9))
        )
    )
    assert answer(parallel_conclusion(table)) == (
        "Concurrency 64: dp2 gives 1.90 × one GPU with 2 GPUs, 95.0 % by GPU (tp2 1.30 ×)."
    )


def test_one_gpu_alone_is_said_to_be_one() -> None:
    row = {"case": "tp1", "concurrency": 1, "num_gpus": 1, "speedup": 1.0}
    told = answer(parallel_conclusion(points(row | {"gpu_efficiency_frac": 1.0})))
    assert told == "No point used more than one GPU."


def test_links_are_told_by_their_probes() -> None:
    card = [
        card_row("nccl.all_reduce.1073741824", value=300e9, peak_frac=0.6, time_s=4e-3),
        card_row("nccl.all_reduce.1024", value=6e7, time_s=17e-6),
        card_row("scaling.gemm.2.efficiency", value=0.9, unit="share"),
        card_row("p2p.both_ways", value=None),
    ]
    assert [*links_conclusion(card)] == [
        "GPU 0-1, each at its own gemm: 90.0 % of what one alone does.",
        "An all-reduce over GPU 0-1 reaches 300 GB/s, 60.0 % of the peak with 1,024 MiB; one of"
        " 1 KiB takes 17.0 µs.",
    ]


def test_a_trace_of_one_card_has_no_communication_to_tell() -> None:
    findings = from_json(FINDINGS_OF_A_RUN.read_text())
    alone = [replace(device, communication=None) for device in findings.devices]
    assert not [*communication_conclusion(replace(findings, devices=tuple(alone)))]


def test_the_box_is_told_by_its_verdict_doubts_and_drift() -> None:
    rows = (
        card_row("gemm.bf16.8192", status="PASS", value=7e14, unit="FLOP/s"),
        card_row("p2p.one_way", status="WARN", value=1e11),
        card_row("steady.power", where="GPU 0", value=690.0, unit="W"),
    )
    moved = Difference(name="driver_version", before="1", now="2", grade=Grade.COULD_MATTER)
    commit = Difference(name="git_commit", before="a", now="b", grade=Grade.HARMLESS)
    assert [*box_conclusion(Card(rows=rows, verdict="WARN"), [moved, commit])] == [
        "WARN: of 2 values with a limit 1 PASS, 1 WARN, 0 FAIL.",
        "WARN: p2p.one_way.",
        "In steady state: 690 W (GPU 0).",
        "Against the reference: could matter, by driver_version.",
    ]


def test_a_study_of_other_cards_is_not_certified_by_this_box() -> None:
    mine, other, none = ({"gpus": [{"uuid": u} for u in ids]} for ids in (("a", "b"), ("c",), ()))
    assert cards_conclusion(mine, {"one": mine}) == "All 1 studies were measured on these cards."
    told = cards_conclusion(mine, {"one": mine, "two": other, "cpu": none})
    assert told.startswith("1 of 3 studies were measured on these very cards; of two, cpu")
