"""That the simulator stays near what was measured on 2× H200.

The bounds are generous: `benchmarks/simulator_error.py` prints the errors of all points.
"""

import pytest

from tests.harness.sim.virtual import Clients, VirtualTime, roofline


def closed(concurrency: int, **settings) -> Clients:
    return Clients(
        time=VirtualTime(**settings),
        concurrency=concurrency,
        warmup_s=1.5 if concurrency <= 64 else 5.0,
        window_s=1.5,
    ).run()


@pytest.mark.parametrize(
    ("concurrency", "settings", "tok_per_s", "ttft_s", "tpot_s"),
    [
        (1, {}, 490, 9.2e-3, 2.0e-3),
        (16, {}, 5_266, 17e-3, 2.9e-3),
        (64, {}, 13_887, 29e-3, 4.4e-3),
        (1024, {}, 25_315, 3.3, 12e-3),
        (1024, {"api_server_count": 4}, 44_494, 99e-3, 22e-3),
    ],
)
def test_it_is_near_the_measured_point(concurrency, settings, tok_per_s, ttft_s, tpot_s):
    clients = closed(concurrency, **settings)
    assert clients.output_tok_per_s == pytest.approx(tok_per_s, rel=0.25)
    assert clients.tpot_s == pytest.approx(tpot_s, rel=0.35)
    assert ttft_s / 2.5 < clients.ttft_s < 2.5 * ttft_s


def test_kv_cache_is_the_measured_9_410_704_tokens():
    it = roofline()
    assert it.kv_cache_bytes(0.92) / it.kv_bytes_per_token == pytest.approx(9_410_704, rel=1e-3)


def test_more_api_servers_turn_waiting_for_the_first_token_into_throughput():
    one, four = (closed(512, api_server_count=n) for n in (1, 4))
    assert four.output_tok_per_s > 1.3 * one.output_tok_per_s
    assert four.ttft_s < one.ttft_s / 5


def test_a_rate_above_the_capacity_makes_requests_wait_and_one_below_does_not():
    below, above = (
        Clients(time=VirtualTime(), rate_rps=rate_rps, warmup_s=2.0, window_s=3.0).run()
        for rate_rps in (50.0, 250.0)
    )
    assert below.ttft_s < 0.05
    assert above.ttft_s > 10 * below.ttft_s
