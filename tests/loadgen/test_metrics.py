import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen import metrics
from loadgen.config import Slo
from loadgen.metrics import (
    Goodput,
    e2e_s,
    goodput,
    itl_s,
    keeps,
    quantile,
    summarise,
    tpot_s,
    ttft_s,
)
from loadgen.records import RequestRow, is_out

FLOATS = st.floats(-1e6, 1e6) | st.just(math.inf)


@pytest.fixture
def summary(tables, window, closed, poisson):
    """Summarise requests given as (row overrides, chunk times), window 10 .. 20 s."""

    def build(*requests, arrival="closed", load=None, over=None):
        load = load or {}
        driven = closed(**load) if arrival == "closed" else poisson(**load)
        return summarise(*tables(*requests), window=window(**over or {}), load=driven)

    return build


@given(st.lists(FLOATS, min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_are_monotone_and_inside_the_values(values, p, q):
    low, high = (quantile(np.array(values), share) for share in sorted((p, q)))
    assert min(values) <= low <= high <= max(values)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 1))
def test_quantiles_of_finite_values_are_those_of_numpy(values, q):
    assert quantile(np.array(values), q) == pytest.approx(np.percentile(values, 100 * q), abs=1e-6)


def test_infinite_values_give_infinite_quantiles_and_never_nan():
    values = np.array([1.0, 2.0, np.inf, np.inf])
    assert quantile(values, 0.0) == 1.0
    assert quantile(values, 1 / 3) == 2.0
    assert quantile(values, 0.5) == np.inf
    assert quantile(values, 1.0) == np.inf


def test_quantiles_leave_out_what_is_undefined_and_are_none_without_values():
    assert quantile(np.array([np.nan, 3.0]), 0.9) == 3.0
    assert quantile(np.array([np.nan]), 0.5) is None
    assert quantile(np.array([]), 0.5) is None


@given(
    first=st.floats(0.001, 10),
    gaps=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    tokens=st.integers(2, 100),
)
def test_ttft_plus_all_tpot_is_e2e(tables, first, gaps, tokens):
    requests, chunks = tables(
        ({"output_tokens": float(tokens)}, list(first + np.cumsum([0, *gaps])))
    )
    whole = ttft_s(requests) + tpot_s(requests) * (tokens - 1)
    assert whole == pytest.approx(e2e_s(requests))
    assert itl_s(requests, chunks, np.array([True])).sum() == pytest.approx(sum(gaps))


def test_gaps_are_those_inside_a_request_and_not_between_requests(tables):
    requests, chunks = tables(({}, [1.0, 2.0, 4.0]), ({}, [1.5, 1.75]), ({}, [3.0, 9.0]))
    shuffled = {name: column[[3, 6, 0, 2, 4, 5, 1]] for name, column in chunks.items()}
    among = np.array([True, True, False])
    assert sorted(itl_s(requests, shuffled, among)) == [0.25, 1.0, 2.0]


@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    block=st.integers(1, 12),
    random=st.randoms(use_true_random=False),
)
def test_no_gap_is_lost_or_made_where_a_block_of_chunks_ends(tables, counts, block, random):
    times = [sorted(random.uniform(0, 9) for _ in range(count)) for count in counts]
    requests, chunks = tables(*(({}, mine) for mine in times))
    among = np.arange(len(counts)) % 2 == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BLOCK", block)
        found = itl_s(requests, chunks, among)
    assert found.tolist() == [gap for mine in times[::2] for gap in np.diff(mine)]


def in_parts(chunks, size):
    """The chunks as they are read from a file: so many at a time."""
    begins = range(0, len(chunks["at_s"]), size)
    return lambda: ({name: c[i : i + size] for name, c in chunks.items()} for i in begins)


@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    size=st.integers(1, 12),
    random=st.randoms(use_true_random=False),
)
def test_a_run_in_parts_has_the_numbers_of_the_whole(tables, window, closed, counts, size, random):
    times = [sorted(random.uniform(5, 25) for _ in range(count)) for count in counts]
    statuses = [random.choice(["ok", "ok", "failed", "cut"]) for _ in counts]
    rows = [{"status": status, "ended_at_s": 15.0} for status in statuses]
    requests, chunks = tables(*zip(rows, times, strict=True))
    whole = summarise(requests, chunks, window=window(), load=closed())
    parts = summarise(requests, in_parts(chunks, size), window=window(), load=closed())
    assert parts == whole


def test_parts_that_are_not_in_order_are_refused(tables):
    requests, chunks = tables(({}, [1.0, 2.0, 4.0]), ({}, [1.5, 1.75]))
    swapped = {name: column[[0, 3, 4, 1, 2]] for name, column in chunks.items()}
    with pytest.raises(ValueError, match="order"):
        itl_s(requests, in_parts(swapped, 3), np.array([True, True]))


def test_tpot_is_undefined_for_one_token(summary):
    one = summary(({}, [12.0]))
    assert one.requests_ok == 1
    assert one.ttft_p50_s == 12.0
    assert one.tpot_mean_s is None
    assert one.tpot_p99_s is None
    assert one.itl_p50_s is None


def test_a_closed_loop_counts_what_ended_inside_the_window(summary):
    """By hand. Window 10 to 20 s.

    request 0: ends at 9, before the window; no chunk inside
    request 1: 8, 10, 12, 14: ends inside; 3 chunks of 4 tokens / 4 chunks = 3 tokens
    request 2: 11 and 15, four tokens: ends inside; 2 chunks of 2 tokens = 4 tokens
    request 3: 19 and 21: ends after the window; 1 chunk of 1 token
    request 4: cut at the end; chunks at 16, 17, 18
    request 5: failed inside, with one chunk at 13
    """
    made = summary(
        ({}, [7.0, 9.0]),
        ({"sent_at_s": 7.0, "due_at_s": 6.5}, [8.0, 10.0, 12.0, 14.0]),
        ({"sent_at_s": 10.0, "due_at_s": 10.0, "output_tokens": 4.0}, [11.0, 15.0]),
        ({"sent_at_s": 18.0, "due_at_s": 18.0}, [19.0, 21.0]),
        ({"status": "cut", "ended_at_s": 20.0}, [16.0, 17.0, 18.0]),
        ({"status": "failed", "failure": "truncated"}, [13.0]),
    )
    assert (made.requests_ok, made.requests_failed, made.requests_cut) == (2, 1, 1)
    assert made.failed_frac == pytest.approx(1 / 3)
    assert made.window_s == made.warmup_s == 10.0
    assert made.requests_per_s == 0.2
    assert made.ttft_p50_s == 1.0
    assert made.ttft_sched_p50_s == pytest.approx(1.25)  # 1.5 and 1.0
    assert made.tpot_mean_s == pytest.approx((2.0 + 4.0 / 3) / 2)
    assert made.itl_p50_s == 2.0  # 2, 2, 2, 4
    assert made.e2e_p50_s == 6.0  # 7 and 5
    assert made.tokens_per_chunk == pytest.approx(8 / 6)
    # Over the run, ok requests hold 12 tokens in 10 chunks: so much in each other chunk.
    inside = 3 + 4 + 1 + 3 * 1.2 + 1.2
    assert made.output_tok_per_s == pytest.approx(inside / 10)
    # First chunks inside: requests 2, 3, 4, 5, of 20 input tokens each.
    assert made.total_tok_per_s == pytest.approx((inside + 80) / 10)
    assert made.output_tok_per_s_run == pytest.approx((12 + 4 * 1.2) / 25)


def test_an_open_loop_counts_what_was_due_inside_the_window(summary):
    """Due at 9 (not counted), 12 (ends after the window), 15 (cut), 19 (failed), 21 (not)."""
    made = summary(
        ({"due_at_s": 9.0, "sent_at_s": 9.0}, [11.0, 12.0]),
        ({"due_at_s": 12.0, "sent_at_s": 12.5}, [13.0, 23.0]),
        ({"due_at_s": 15.0, "sent_at_s": 15.0, "status": "cut", "output_tokens_asked": 9}, [16.0]),
        ({"due_at_s": 19.0, "sent_at_s": 19.0, "status": "failed", "failure": "timeout"}, []),
        ({"due_at_s": 21.0, "sent_at_s": 21.0}, [22.0, 24.0]),
        arrival="poisson",
    )
    assert (made.requests_ok, made.requests_failed, made.requests_cut) == (1, 1, 1)
    assert made.failed_frac == 0.5
    assert made.requests_per_s == 0.1  # the first one ended inside
    assert made.ttft_p50_s == 0.75  # 0.5 and 1.0: the cut one had begun
    assert made.tpot_p50_s == math.inf  # 10 and longer than the run
    assert made.e2e_p99_s == math.inf
    assert made.send_lag_p99_s == pytest.approx(0.5, rel=0.05)
    assert made.first_generation_done is None


def test_a_cut_request_that_had_shown_nothing_makes_ttft_infinite(summary):
    cut = ({"due_at_s": 15.0, "sent_at_s": 15.0, "status": "cut", "output_tokens_asked": 1}, [])
    made = summary(cut, arrival="poisson")
    assert made.ttft_p50_s == made.ttft_mean_s == made.ttft_sched_p99_s == math.inf
    assert made.tpot_p50_s is None  # one token was asked: it would have had none


def test_nothing_at_all_is_none_and_never_zero(summary):
    made = summary()
    assert (made.requests_ok, made.requests_failed, made.requests_cut) == (0, 0, 0)
    undefined = ("ttft_p50_s", "tpot_p99_s", "itl_p50_s", "e2e_p99_s", "failed_frac",
                 "tokens_per_chunk", "send_lag_p99_s", "cached_tokens_frac")  # fmt: skip
    assert all(getattr(made, name) is None for name in undefined)
    assert made.output_tok_per_s == 0.0  # ten seconds without a token: that is a rate


def test_only_failures_are_all_failures(summary):
    made = summary(({"status": "failed", "ended_at_s": 15.0}, []))
    assert (made.requests_failed, made.failed_frac, made.ttft_p50_s) == (1, 1.0, None)


def test_replies_without_text_count_their_tokens_when_they_end(summary):
    made = summary(({"output_tokens": 30.0, "ended_at_s": 15.0}, []))
    assert made.requests_ok == 1
    assert made.output_tok_per_s == 3.0
    assert made.ttft_p50_s is None


def test_first_generation_is_done_when_every_stream_has_had_a_reply(summary):
    early, late = ({"stream": 0}, [5.0]), ({"stream": 1}, [11.0])
    assert not summary(early, late).first_generation_done
    assert summary(early, ({"stream": 1}, [9.0])).first_generation_done
    assert not summary(early, early).first_generation_done


@pytest.mark.parametrize(
    ("row", "load", "off"),
    [
        ({}, {}, 0.0),
        ({"output_tokens": 1.0}, {}, 1.0),
        ({"output_tokens": 1.0}, {"ignore_eos": False}, 0.0),
        ({"output_tokens": 3.0}, {"ignore_eos": False}, 1.0),
        ({"input_tokens": 25.0}, {}, 1.0),
        ({"input_tokens": 25.0}, {"endpoint": "chat"}, 0.0),
    ],
)
def test_lengths_are_off_where_the_load_fixes_them(summary, row, load, off):
    assert summary((row, [12.0, 13.0]), load=load).lengths_off_frac == off


def test_cached_tokens_are_a_share_of_the_prompts_of_which_it_is_known(summary):
    known, unknown = ({"cached_tokens": 5.0}, [12.0]), ({}, [12.0])
    assert summary(known, unknown).cached_tokens_frac == 0.25
    assert summary(unknown).cached_tokens_frac is None


@pytest.fixture(scope="session")
def useful(tables, window, closed, poisson):
    """Goodput of requests given as (row overrides, chunk times), window 10 .. 20 s."""

    def build(*requests, arrival="closed", load=None, **slo):
        driven = (closed if arrival == "closed" else poisson)(**load or {})
        return goodput(tables(*requests)[0], window=window(), load=driven, slo=Slo(**slo))

    return build


def at(start_s, ttft_s, tpot_s, tokens=4, **row):
    """A request that was sent then, and took so long."""
    first_at_s = start_s + ttft_s
    chunks = [first_at_s + k * tpot_s for k in range(tokens)]
    return {"due_at_s": start_s, "sent_at_s": start_s, **row}, chunks


FAST, SLOW_START, SLOW_TOKENS = at(11, 0.5, 0.1), at(11, 2.0, 0.1), at(11, 0.5, 1.0)


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"ttft_s": 1.0}, 2),
        ({"tpot_s": 0.5}, 2),
        ({"ttft_s": 1.0, "tpot_s": 0.5}, 1),
        ({"e2e_s": 3.0}, 2),
        ({"e2e_s": 0.1}, 0),
    ],
)
def test_goodput_counts_the_requests_that_kept_every_limit(useful, limits, kept):
    made = useful(FAST, SLOW_START, SLOW_TOKENS, **limits)
    assert made == Goodput(goodput_rps=kept / 10, slo_met_frac=kept / 3)


@given(
    ttft_s=st.floats(0.01, 3), tpot_s=st.floats(0.01, 1), tokens=st.integers(1, 5),
    limits=st.dictionaries(st.sampled_from(["ttft_s", "tpot_s", "e2e_s"]), st.floats(0.1, 3)),
    status=st.sampled_from(["ok", "failed"]),
)  # fmt: skip
def test_one_request_is_judged_as_many_are(tables, closed, ttft_s, tpot_s, tokens, limits, status):
    requests, _ = tables(at(11, ttft_s, tpot_s, tokens, status=status))
    row = RequestRow(**{name: column[0] for name, column in requests.items()})
    assert is_out(row, Slo(**limits)) == (not keeps(requests, closed(), Slo(**limits))[0])


def test_without_a_limit_there_is_no_goodput(useful):
    assert useful(FAST) == Goodput(goodput_rps=None, slo_met_frac=None)


def test_a_limit_that_is_just_reached_is_kept(useful):
    assert useful(at(11, 0.5, 0.25), ttft_s=0.5, tpot_s=0.25).slo_met_frac == 1.0


def test_a_failed_request_kept_no_limit(useful):
    failed = at(11, 0.1, 0.1, status="failed", failure="truncated")
    made = useful(FAST, failed, e2e_s=5.0)
    assert made == Goodput(goodput_rps=0.1, slo_met_frac=0.5)


def test_a_closed_loop_does_not_hold_the_end_of_the_run_against_a_request(useful):
    cut = at(11, 0.1, 0.1, status="cut")
    assert useful(FAST, cut, e2e_s=5.0).slo_met_frac == 1.0


def test_an_open_loop_holds_what_was_cut_against_the_server(useful):
    cut = at(11, 0.1, 0.1, status="cut", output_tokens_asked=99)
    made = useful(FAST, cut, arrival="poisson", ttft_s=1.0)
    assert made.slo_met_frac == 1.0, "its first token came in time"
    assert useful(FAST, cut, arrival="poisson", tpot_s=1.0).slo_met_frac == 0.5
    assert useful(FAST, cut, arrival="poisson", e2e_s=99.0).slo_met_frac == 0.5


def test_a_time_that_a_reply_does_not_have_limits_nothing(useful):
    assert useful(at(11, 0.5, 0.0, tokens=1), tpot_s=0.01).slo_met_frac == 1.0
    whole = at(11, 5.0, 0.0, tokens=1)
    assert useful(whole, load={"stream": False}, ttft_s=1.0, tpot_s=0.01).slo_met_frac == 1.0
    assert useful(whole, load={"stream": False}, e2e_s=1.0).slo_met_frac == 0.0


def test_no_request_has_no_share(useful):
    assert useful(ttft_s=1.0) == Goodput(goodput_rps=0.0, slo_met_frac=None)


@given(st.lists(st.tuples(st.floats(0.01, 3), st.floats(0, 1)), min_size=1), st.floats(0.01, 4))
def test_a_wider_limit_is_kept_by_no_fewer(useful, times, limit_s):
    requests = [at(11, ttft_s, tpot_s) for ttft_s, tpot_s in times]
    narrow, wide = (useful(*requests, ttft_s=limit) for limit in (limit_s, 2 * limit_s))
    assert 0 <= narrow.slo_met_frac <= wide.slo_met_frac <= 1
