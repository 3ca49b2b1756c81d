import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.config import Load, Trace
from loadgen.metrics import summarise
from loadgen.vllm_bench import vllm_bench_json

# What vLLM 0.33 writes with --save-detailed --percentile-metrics ttft,tpot,itl,e2el
# --metric-percentiles 50,90,99, against a server without speculative decoding.
LISTS = {
    "input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times",
    "generated_texts", "errors",
}  # fmt: skip
ALWAYS = LISTS | {
    "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts",
    "request_rate", "burstiness", "max_concurrency", "completed", "failed", "total_input_tokens",
    "total_output_tokens", "request_goodput", "rtfx",
}  # fmt: skip
RATES = {"duration", "request_throughput", "output_throughput", "total_token_throughput"}
PEAKS = {"max_output_tokens_per_s", "max_concurrent_requests"}
LATENCIES = {
    f"{aggregate}_{metric}_ms"
    for aggregate in ("mean", "median", "std", "p50", "p90", "p99")
    for metric in ("ttft", "tpot", "itl", "e2el")
}


@pytest.fixture(scope="session")
def bench(tables, window, closed, poisson):
    """vLLM's file for requests given as (row overrides, chunk times), window 10 .. 20 s."""

    def build(*requests, arrival="closed", over=None, **more):
        load = more.pop("load", None) or (closed() if arrival == "closed" else poisson())
        made = vllm_bench_json(
            *tables(*requests), window=window(**over or {}), load=load, model="m", **more
        )
        return json.loads(json.dumps(made, allow_nan=False))

    return build


def sent(at_s, **overrides):
    return {"due_at_s": at_s, "sent_at_s": at_s, **overrides}


def test_the_keys_are_those_of_vllm(bench):
    made = bench((sent(9.0), [11.0, 12.0]))
    assert set(made) == ALWAYS | RATES | PEAKS | LATENCIES
    assert all(isinstance(made[key], float) for key in made if key.endswith("ms"))


def test_a_small_table_by_hand(bench):
    """Window 10 to 20 s, closed loop of two streams.

    request 0: ended at 9: not in the sample
    request 1: due 6.5, sent 7, chunks 8 10 12 14: ttft 1, gaps 2 2 2, latency 7
    request 2: sent 10, chunks 11 15, four tokens in them: ttft 1, gap 4, latency 5
    request 3: failed at 13, after a chunk
    request 4: ended at 21: not in the sample
    request 5: cut: not in the sample
    """
    made = bench(
        (sent(0.0), [7.0, 9.0]),
        (sent(7.0, due_at_s=6.5), [8.0, 10.0, 12.0, 14.0]),
        (sent(10.0, output_tokens=4.0), [11.0, 15.0]),
        (sent(12.0, status="failed", failure="truncated", detail="no end"), [13.0]),
        (sent(18.0), [19.0, 21.0]),
        (sent(15.0, status="cut", ended_at_s=20.0), [16.0, 17.0]),
    )
    assert (made["num_prompts"], made["completed"], made["failed"]) == (3, 2, 1)
    assert made["errors"] == ["", "", "truncated: no end"]
    assert made["input_lens"] == [20, 20, 20]
    assert made["output_lens"] == [4, 4, 0]
    assert made["ttfts"] == [1.0, 1.0, 0.0]
    assert made["itls"] == [[2.0, 2.0, 2.0], [4.0], []]
    assert made["latencies"] == [7.0, 5.0, 0.0]
    assert made["start_times"] == [7.0, 10.0, 12.0]
    assert made["queue_times"] == [0.5, 0.0, 0.0]
    assert made["generated_texts"] == ["", "", ""]
    assert made["duration"] == 10.0
    assert (made["total_input_tokens"], made["total_output_tokens"]) == (40, 8)
    assert made["request_throughput"] == 0.2
    assert made["output_throughput"] == 0.8
    assert made["total_token_throughput"] == 4.8
    assert made["mean_ttft_ms"] == made["p99_ttft_ms"] == 1000.0
    assert made["std_ttft_ms"] == 0.0
    assert made["mean_tpot_ms"] == pytest.approx((2000 + 4000 / 3) / 2)
    assert (made["mean_itl_ms"], made["median_itl_ms"]) == (2500.0, 2000.0)
    assert made["std_itl_ms"] == pytest.approx(math.sqrt(3 / 4) * 1000)
    assert made["p50_e2el_ms"] == made["median_e2el_ms"] == 6000.0
    assert made["p90_e2el_ms"] == pytest.approx(6800.0)
    assert (made["model_id"], made["tokenizer_id"]) == ("m", None)
    # Seconds counted from 7.0: no chunk shares its second; both requests are there at 10.
    assert made["max_output_tokens_per_s"] == 1.0
    assert made["max_concurrent_requests"] == 2


def test_latencies_are_those_of_the_table_and_throughput_is_not(tables, window, closed):
    requests, chunks = tables(
        (sent(8.0), [9.0, 11.5]), (sent(11.0), [14.0, 15.0, 19.0]), (sent(18.0), [19.0, 25.0])
    )
    over = {"window": window(), "load": closed()}
    table = summarise(requests, chunks, **over)
    made = vllm_bench_json(requests, chunks, **over, model="m")
    for metric, ours in (("ttft", "ttft"), ("tpot", "tpot"), ("itl", "itl"), ("e2el", "e2e")):
        for p in (50, 99):
            value_s = getattr(table, f"{ours}_p{p}_s")
            assert made[f"p{p}_{metric}_ms"] == pytest.approx(value_s * 1e3)
    assert made["request_throughput"] == table.requests_per_s
    assert made["output_throughput"] == 0.5, "five tokens of the two that ended inside"
    assert table.output_tok_per_s == 0.5, "one of the first, three, and one of the third"
    assert made["total_token_throughput"] == 4.5, "two prompts"
    assert table.total_tok_per_s == 4.5, "two first tokens"


def test_an_open_loop_counts_what_was_due_and_what_it_cut_has_failed(bench):
    made = bench(
        (sent(9.0), [11.0]),
        (sent(12.5, due_at_s=12.0), [13.0, 24.0]),
        (sent(15.0, status="cut", ended_at_s=25.0), [16.0]),
        arrival="poisson",
    )
    assert (made["completed"], made["failed"]) == (1, 1)
    assert made["errors"] == ["", "cut: the run was over"]
    assert made["output_lens"] == [2, 0]
    assert made["p99_tpot_ms"] == 11000.0
    assert made["queue_times"] == [0.5, 0.0]


def test_what_no_request_defines_is_left_out(bench):
    empty = bench((sent(1.0), [2.0]))
    assert set(empty) == ALWAYS | RATES
    assert (empty["completed"], empty["failed"], empty["num_prompts"]) == (0, 0, 0)
    failed = bench((sent(12.0, status="failed", failure="timeout", ended_at_s=13.0), []))
    assert set(failed) == ALWAYS | RATES
    assert (failed["completed"], failed["failed"], failed["num_prompts"]) == (0, 1, 1)
    assert failed["errors"] == ["timeout: "]
    assert failed["output_throughput"] == 0.0, "ten seconds without a token"


def test_a_window_that_was_never_reached_has_no_rates(bench):
    made = bench((sent(1.0), [2.0]), over={"opened_at_s": math.nan, "closed_at_s": math.nan})
    assert set(made) == ALWAYS
    assert made["num_prompts"] == 0


def test_a_reply_of_one_token_has_neither_tpot_nor_gaps(bench):
    made = bench((sent(11.0), [12.0]))
    assert made["itls"] == [[]]
    assert set(made) == ALWAYS | RATES | PEAKS | {
        k for k in LATENCIES if "ttft" in k or "e2el" in k
    }


def test_replies_that_were_not_streamed_have_a_latency_alone(bench):
    made = bench((sent(11.0, num_chunks=0, last_at_s=13.0, ended_at_s=13.0, output_tokens=9.0), []))
    assert (made["latencies"], made["ttfts"], made["itls"]) == ([2.0], [None], [[]])
    assert {key for key in LATENCIES if key in made} == {key for key in LATENCIES if "e2el" in key}
    assert made["max_concurrent_requests"] == 1
    assert "max_output_tokens_per_s" not in made


def test_what_a_request_does_not_define_is_null_in_the_lists(bench):
    silent = sent(11.0, num_chunks=0, ended_at_s=12.0, output_tokens=3.0)
    unsent = sent(math.nan, due_at_s=11.0, status="failed", failure="connect", ended_at_s=12.0)
    made = bench((silent, []), (unsent | {"input_tokens_asked": math.nan}, []))
    assert made["ttfts"] == made["latencies"] == [None, 0.0]
    assert made["output_lens"] == [3, 0]
    assert made["input_lens"] == [20, None]
    assert made["start_times"] == [11.0, None]
    assert made["queue_times"] == [0.0, None]


@given(st.lists(st.lists(st.floats(0, 5), min_size=1, max_size=5), min_size=1, max_size=8))
def test_lists_are_as_long_as_the_sample_and_their_parts_add_up(bench, gaps):
    requests = [(sent(10.0), list(10.0 + np.cumsum(some))) for some in gaps]
    made = bench(*requests, over={"closed_at_s": 100.0})
    assert {len(made[name]) for name in LISTS} == {made["num_prompts"]} == {len(gaps)}
    for ttft, itl, latency in zip(made["ttfts"], made["itls"], made["latencies"], strict=True):
        assert ttft + sum(itl) == pytest.approx(latency, abs=1e-6)
    assert made["max_concurrent_requests"] == len(gaps)


@pytest.mark.parametrize(
    ("load", "rate", "burstiness", "concurrency"),
    [
        ({"arrival": "closed", "concurrency": 3}, "inf", 1.0, 3),
        ({"arrival": "constant", "rate_rps": 2.0}, 2.0, "inf", None),
        ({"arrival": "poisson", "rate_rps": 2.0}, 2.0, 1.0, None),
        ({"arrival": "gamma", "rate_rps": 2.0, "burstiness": 0.5}, 2.0, 0.5, None),
        ({"arrival": "ramp", "rate_rps": 2.0, "rate_end_rps": 4.0}, "inf", 1.0, None),
        ({"arrival": "trace", "trace": Trace(path="t")}, "inf", 1.0, None),
    ],
)
def test_the_load_is_named_by_flags_of_vllm(bench, load, rate, burstiness, concurrency):
    made = bench((sent(11.0), [12.0]), load=Load(**load))
    assert made["request_rate"] == rate
    assert made["burstiness"] == burstiness
    assert made["max_concurrency"] == concurrency
    ramp = {key: value for key, value in made.items() if key.startswith("ramp_up")}
    expected = {
        "ramp_up_strategy": "linear", "ramp_up_start_rps": 2.0, "ramp_up_end_rps": 4.0,
    }  # fmt: skip
    assert ramp == (expected if load["arrival"] == "ramp" else {})


def test_chat_is_the_backend_of_that_name(bench, closed):
    made = bench((sent(11.0), [12.0]), load=closed(endpoint="chat"))
    assert made["backend"] == made["endpoint_type"] == "openai-chat"


def test_metadata_lies_flat_beside_the_rest_and_replaces_no_number(bench):
    made = bench((sent(11.0), [12.0]), metadata={"max_num_seqs": 64, "completed": 5})
    assert (made["max_num_seqs"], made["completed"]) == (64, 1)


def test_the_date_is_utc(bench):
    made = bench(over={"clock_utc_ns": 1_700_000_000 * 10**9})
    assert made["date"] == "20231114-221320"
