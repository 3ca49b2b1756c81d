import os
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen import calibration
from loadgen.calibration import (
    Probe,
    calibrate,
    compare_tpot,
    compare_ttft,
    load_for,
    more_workers,
    most_workers,
    probe_of,
    searched_rates,
)
from loadgen.config import Client
from loadgen.null_server import ServerLog
from loadgen.records import ClientHealth, Result


def log_of(*rows, written_at_s=(), late_s=()):
    """A log of rows (request, arrived, first, last, tokens)."""
    columns = np.array(rows, float).reshape(-1, 5).T
    return ServerLog(
        request=columns[0].astype(int),
        arrived_at_s=columns[1],
        first_at_s=columns[2],
        last_at_s=columns[3],
        num_tokens=columns[4].astype(int),
        written_at_s=np.array(written_at_s, float),
        late_s=np.array(late_s, float),
    )


def probe(**overrides):
    fields = {
        "workers": 1, "streams": 8, "chunks_per_s": 1000.0,
        "ttft_error_p50_s": 0.0001, "ttft_error_p99_s": 0.001,
        "tpot_error_p50_s": 0.0, "tpot_error_p99_s": 0.0,
        "send_lag_p99_s": 0.0001, "cpu_frac": 0.2, "server_late_p99_s": 0.0001,
    }  # fmt: skip
    return Probe(**fields | overrides)


def test_an_error_is_what_the_client_says_less_what_the_server_logged(tables, window):
    requests, _ = tables(
        ({"sent_at_s": 11.0}, [11.06, 11.08, 11.10]),
        ({"sent_at_s": 12.0}, [12.09, 12.11, 12.15]),
    )
    log = log_of(  # in another order than the client's
        (1, 12.01, 12.07, 12.11, 3),
        (0, 11.002, 11.052, 11.092, 3),
    )
    ttft = compare_ttft(requests, log, window())
    assert ttft.said_s == pytest.approx([0.06, 0.09])
    assert ttft.error_s == pytest.approx([0.010, 0.030])
    tpot = compare_tpot(requests, log, window())
    assert tpot.true_s == pytest.approx([0.02, 0.02])
    assert tpot.error_s == pytest.approx([0.0, 0.01])


def test_requests_that_only_one_side_knows_are_left_out(tables, window):
    requests, _ = tables(({}, [11.0, 11.1]), ({}, [12.0, 12.1]))
    log = log_of((1, 11.9, 12.0, 12.1, 2), (7, 11.9, 12.0, 12.1, 2), (-1, 11.9, 12.0, 12.1, 2))
    assert len(compare_ttft(requests, log, window()).error_s) == 1
    assert len(compare_tpot(requests, log, window()).error_s) == 1


def test_a_ttft_counts_where_it_ended_and_so_does_a_tpot(tables, window):
    requests, _ = tables(
        ({}, [9.0, 9.9]),  # before the window, which is from 10 to 20
        ({}, [9.5, 10.5]),
        ({}, [19.5, 20.5]),
        ({"status": "cut"}, [19.9]),
        ({"status": "failed"}, [15.0, 15.1]),
        ({"status": "cut"}, []),
    )
    log = log_of(*((number, 8.0, 9.0, 10.0, 2) for number in range(6)))
    assert len(compare_ttft(requests, log, window()).said_s) == 2
    assert len(compare_tpot(requests, log, window()).said_s) == 1


def test_a_reply_of_one_token_has_no_tpot(tables, window):
    requests, _ = tables(({}, [11.0]))
    assert len(compare_tpot(requests, log_of((0, 10.9, 11.0, 11.0, 1)), window()).said_s) == 0


def result(tables, window, *requests):
    rows, chunks = tables(*requests)
    health = ClientHealth(
        transport="direct", workers=2, cpu_frac=0.5, loop_lag_p99_s=0.0, loop_lag_max_s=0.0
    )
    load, _ = load_for(4, 100.0)
    return Result(load=load, window=window(), requests=rows, chunks=chunks, client=health)


def test_a_probe_counts_what_was_in_the_window(tables, window):
    requests = (
        ({"due_at_s": 10.9, "sent_at_s": 11.0}, [11.06, 11.08, 11.10]),
        ({"due_at_s": 9.0, "sent_at_s": 9.9}, [9.95, 19.0]),
    )
    log = log_of(
        (0, 11.0, 11.05, 11.09, 3),
        (1, 9.9, 9.95, 19.0, 2),
        written_at_s=[9.95, 11.05, 19.0, 25.0],
        late_s=[7.0, 0.002, 0.002, 7.0],
    )
    made = probe_of(result(tables, window, *requests), log)
    assert made.workers == 2
    assert made.streams == 4
    assert made.cpu_frac == 0.5
    assert made.chunks_per_s == pytest.approx(0.4)  # 4 of 5 chunks in 10 s
    assert made.ttft_error_p99_s == pytest.approx(0.01)
    assert made.tpot_error_p50_s == pytest.approx(0.0)
    assert made.send_lag_p99_s == pytest.approx(0.1)
    assert made.server_late_p99_s == pytest.approx(0.002)
    assert not made.is_clean


def test_a_probe_without_a_sample_is_not_clean(tables, window):
    made = probe_of(result(tables, window), log_of())
    assert isnan(made.ttft_error_p99_s)
    assert made.chunks_per_s == 0
    assert not made.is_clean


@pytest.mark.parametrize(
    ("at_load", "most", "more"),
    [
        (probe(), 8, None),
        (probe(ttft_error_p99_s=0.005), 8, 2),
        (probe(ttft_error_p99_s=nan), 8, 2),
        (probe(cpu_frac=0.8), 8, 2),
        (probe(cpu_frac=0.9, workers=4), 8, 8),
        (probe(cpu_frac=0.9, workers=4), 6, 6),
        (probe(cpu_frac=0.9, workers=4), 4, None),
        (probe(ttft_error_p99_s=1.0), 1, None),
    ],
)
def test_workers_are_doubled_until_the_load_is_clean_or_there_may_be_no_more(at_load, most, more):
    assert more_workers(at_load, most) == more


def test_a_set_number_of_workers_is_the_most():
    assert most_workers(Client(workers=3), 8, 64) == 3
    assert most_workers(Client(), 8, 64) == 8
    assert most_workers(Client(), 0, 64) == 16
    assert most_workers(Client(), 0, 2) == 1


def test_the_search_rises_from_a_clean_load_and_falls_from_another():
    rising = searched_rates(probe(), 20_000)
    assert rising == sorted(rising)
    assert rising[0] == 40_000
    assert searched_rates(probe(), 10)[0] == calibration.SEARCH_FROM_CHUNKS_PER_S
    falling = searched_rates(probe(ttft_error_p99_s=1.0, streams=100), 20_000)
    assert falling == [10_000, 5000, 2500]  # slower still, its chunks would be too far apart


@given(streams=st.integers(1, 4096), rate=st.floats(1, 1e6))
def test_a_probe_has_the_rate_asked_where_that_can_be(streams, rate):
    load, each_s = load_for(streams, rate)
    shortest_s, longest_s = calibration.EACH_S
    assert load.concurrency >= streams
    assert shortest_s * 0.999 <= each_s <= longest_s
    if each_s < longest_s:
        assert load.concurrency / each_s == pytest.approx(rate, rel=0.01)
    else:
        assert load.concurrency / each_s >= rate * 0.999
    reply_s = each_s * load.output_tokens
    assert reply_s <= 1.0


def test_a_calibration_says_what_the_client_is_good_for(monkeypatch):
    monkeypatch.setattr(calibration, "SEARCH_PROBES", 1)
    monkeypatch.setattr(calibration, "CLEAN_S", 60.0)  # so that no starved machine is in doubt
    made = calibrate(Client(workers=1), streams=4, chunks_per_s=400)
    assert made.transport == "direct"
    assert made.workers == 1
    assert made.probes[0] == made.at_load
    assert len(made.probes) == 2
    assert made.at_load.streams == 4
    assert made.at_load.chunks_per_s > 0
    assert made.at_load.ttft_error_p50_s > 0
    assert made.at_load.server_late_p99_s > 0
    assert made.clean_chunks_per_s == max(probe.chunks_per_s for probe in made.probes)


def test_a_client_that_is_never_clean_gets_all_workers_and_no_rate(monkeypatch):
    monkeypatch.setattr(calibration, "SEARCH_PROBES", 0)
    monkeypatch.setattr(calibration, "CLEAN_S", -60.0)
    core = min(os.sched_getaffinity(0))
    made = calibrate(Client(), streams=4, chunks_per_s=400, cores=[core, core])
    assert [probe.workers for probe in made.probes] == [1, 2]
    assert made.workers == 2
    assert made.clean_chunks_per_s == 0
