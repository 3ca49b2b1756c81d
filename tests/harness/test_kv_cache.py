from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.kv_cache import demand_frac, expected_tokens
from harness.sim.decoder import Decoder
from tests.harness.models import LLAMA

GIB = 2**30


def expected(ranks: int = 1, memory_bytes: int | None = 80 * GIB, **engine: Any) -> Any:
    return expected_tokens(Decoder.of(asdict(LLAMA.shape)), engine, ranks, memory_bytes)


def test_what_the_weights_leave_is_divided_by_the_bytes_of_a_token() -> None:
    """Llama-3.1-8B by hand: 8.03e9 weights of 2 bytes, 2·8·128·32 values of 2 bytes a token."""
    parameters = 32 * (80 * 128 * 4096 + 3 * 4096 * 14336) + 2 * 128256 * 4096
    assert parameters == pytest.approx(8.03e9, rel=1e-3)
    left = 80 * GIB * 0.9 - parameters * 2
    assert expected(gpu_memory_utilization=0.9) == int(left / 131072)


def test_vllms_own_share_of_the_memory_is_taken_where_none_is_set() -> None:
    assert expected() == expected(gpu_memory_utilization=0.92)


def test_two_ranks_hold_more_than_twice_as_much() -> None:
    assert expected(ranks=2) > 2 * expected(), "each holds half of the weights, and of a token"


def test_fp8_keys_and_values_are_half_as_large() -> None:
    assert expected(kv_cache_dtype="fp8") == pytest.approx(2 * expected(), abs=1)


def test_fp8_weights_leave_more() -> None:
    assert expected(quantization="fp8") > expected()


def test_replicas_add_up() -> None:
    assert expected(data_parallel_size=2) == 2 * expected()


def test_fewer_blocks_that_are_asked_for_are_all_there_is() -> None:
    assert expected(extra={"num_gpu_blocks_override": 100}) == 1600
    assert expected(extra={"num_gpu_blocks_override": 100}, block_size=32) == 3200
    assert expected(extra={"num_gpu_blocks_override": 100}, data_parallel_size=2) == 3200
    assert expected(extra={"num_gpu_blocks_override": 10**9}) == expected()


def test_weights_that_do_not_fit_leave_nothing() -> None:
    assert expected(memory_bytes=10 * GIB) == 0


def test_what_is_not_known_is_none() -> None:
    assert expected(memory_bytes=None) is None
    assert expected(quantization="awq") is None
    assert expected_tokens(None, {}, 1, 80 * GIB) is None


def row(**changes: Any) -> dict[str, Any]:
    lengths = {"input_tokens_mean": 512.0, "output_tokens_mean": 128.0}
    return {"concurrency": 64, "kv_cache_tokens": 262_144} | lengths | changes


def test_a_closed_loop_asks_for_prompts_and_half_of_the_replies() -> None:
    assert demand_frac(row()) == 64 * (512 + 64) / 262_144


@given(st.integers(1, 10_000), st.integers(1, 10))
def test_demand_grows_with_concurrency(concurrency: int, times: int) -> None:
    one, more = (demand_frac(row(concurrency=n)) for n in (concurrency, concurrency * times))
    assert more == pytest.approx(one * times)


@pytest.mark.parametrize("name", ["concurrency", "kv_cache_tokens", "input_tokens_mean"])
def test_demand_is_not_told_where_something_is_missing(name: str) -> None:
    assert demand_frac(row(**{name: None})) is None
