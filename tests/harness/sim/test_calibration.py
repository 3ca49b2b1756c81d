"""How far the simulator is from what was measured; the table in roofline.py comes from here.

python -m pytest tests/harness/sim/test_calibration.py -s
"""

import pytest

from tests.harness.sim.virtual import ClosedLoop, VirtualTime, roofline


@pytest.mark.parametrize(
    ("concurrency", "api_servers", "measured_tok_per_s", "within"),
    [
        (1, 1, 425, 0.10),
        (32, 1, 9_097, 0.40),
        (256, 1, 13_505, 0.15),
        (1024, 1, 14_200, 0.15),  # 13,356 and 15,087
        (1024, 4, 29_800, 0.15),  # 27,939 and 31,615
    ],
)
def test_throughput_is_near_the_measured_one(concurrency, api_servers, measured_tok_per_s, within):
    time = VirtualTime(api_server_count=api_servers)
    warmup_s = 3.0 if concurrency <= 32 else 12.0
    loop = ClosedLoop(time, concurrency=concurrency, warmup_s=warmup_s, end_s=2 * warmup_s)
    print(
        f"\nconcurrency {concurrency}, API servers {api_servers}: {loop.output_tok_per_s:,.0f} "
        f"tok/s, TTFT p50 {loop.ttft_s:.3g} s, TPOT p50 {loop.tpot_s * 1e3:.2g} ms"
    )
    assert loop.output_tok_per_s == pytest.approx(measured_tok_per_s, rel=within)


def test_kv_cache_is_the_measured_9_410_704_tokens():
    it = roofline()
    assert it.kv_cache_bytes(0.92) / it.kv_bytes_per_token == pytest.approx(9_410_704, rel=1e-3)


def test_more_api_servers_turn_waiting_for_the_first_token_into_throughput():
    loops = [
        ClosedLoop(VirtualTime(api_server_count=n), concurrency=256, warmup_s=4.0, end_s=8.0)
        for n in (1, 4)
    ]
    assert loops[1].output_tok_per_s > 1.3 * loops[0].output_tok_per_s
    assert loops[1].ttft_s < loops[0].ttft_s / 5
