from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ceilings import CEILINGS
from harness.sim.decoder import Decoder
from harness.utilisation import (
    Traffic,
    bytes_per_s,
    decoder_of,
    flops_per_s,
    formats_of,
    joules_per_output_token,
    utilisation,
)
from tests.harness.models import QWEN

MODEL = asdict(QWEN)
SHAPE = MODEL["shape"]


def decoder(**changes: Any) -> Decoder:
    found = decoder_of(MODEL | {"shape": SHAPE | changes})
    assert found is not None
    return found


def traffic(**changes: Any) -> Traffic:
    told = {
        "prompt_tok_per_s": 40_000.0,
        "output_tok_per_s": 10_000.0,
        "input_tokens_mean": 512.0,
        "output_tokens_mean": 128.0,
        "steps_per_s": 100.0,
    }
    return Traffic(**(told | changes))


def row(**changes: Any) -> dict[str, Any]:
    """A row of the table."""
    return {
        "gpus": "2x NVIDIA H200",
        "simulated": False,
        "tensor_parallel_size": 2,
        "output_tok_per_s": 10_000.0,
        "total_tok_per_s": 50_000.0,
        "input_tokens_mean": 512.0,
        "output_tokens_mean": 128.0,
        "prefix_cache_hit_frac": 0.0,
        "server_steps_per_s": 100.0,
    } | changes


def shares(engine: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return utilisation(row(**changes), engine or {}, decoder())


def test_flops_by_hand() -> None:
    layers = 28 * (1536 * 128 * (12 + 12 + 2 + 2) + 3 * 1536 * 8960)
    head = 151936 * 1536
    width = 4 * 28 * 12 * 128
    prompt = 2 * layers + width * 256
    output = 2 * layers + 2 * head + width * (512 + 64)
    assert flops_per_s(decoder(), traffic()) == pytest.approx(40_000 * prompt + 10_000 * output)


def test_bytes_by_hand_are_weights_once_a_step_and_the_cache_for_every_output_token() -> None:
    model = decoder()
    formats = formats_of({}, model)
    assert formats is not None
    weights = 2 * (model.layer_parameters + model.head_parameters)
    cache = 2 * 2 * 128 * 28 * 2 * (512 + 64)  # keys and values, 2 KV heads, 2 bytes
    read = bytes_per_s(model, traffic(), formats, tensor_parallel_size=2)
    assert read == pytest.approx(100 * weights + 10_000 * cache)


def test_a_kv_head_is_read_twice_when_there_are_more_ranks_than_heads() -> None:
    model = decoder()
    formats = formats_of({}, model)
    assert formats is not None
    only_cache = traffic(steps_per_s=0.0)
    two, four = (bytes_per_s(model, only_cache, formats, tp) for tp in (2, 4))
    assert two is not None
    assert four == pytest.approx(2 * two)


def test_mfu_and_mbu_are_shares_of_all_gpus_datasheet_peaks() -> None:
    found = shares()
    formats = formats_of({}, decoder())
    assert formats is not None
    read = bytes_per_s(decoder(), traffic(), formats, 2)
    assert read is not None
    assert found["ceiling"] == "datasheet"
    assert found["mfu_frac"] == pytest.approx(flops_per_s(decoder(), traffic()) / (2 * 989.5e12))
    assert found["mbu_frac"] == pytest.approx(read / (2 * 4.8e12))


@given(
    output=st.floats(1, 1e5), prompt=st.floats(1, 1e5), share=st.floats(0, 1), num=st.integers(1, 8)
)
def test_mfu_is_linear_in_the_rate_and_falls_with_gpus_and_cached_prompts(
    output: float, prompt: float, share: float, num: int
) -> None:
    def mfu(factor: float, cached: float, gpus: int) -> float:
        found = shares(
            gpus=f"{gpus}x NVIDIA H200",
            output_tok_per_s=factor * output,
            total_tok_per_s=factor * (output + prompt),
            prefix_cache_hit_frac=cached,
        )["mfu_frac"]
        assert isinstance(found, float)
        return found

    assert mfu(2, share, 1) == pytest.approx(2 * mfu(1, share, 1))
    assert mfu(1, share, num) == pytest.approx(mfu(1, share, 1) / num)
    assert mfu(1, share, 1) <= mfu(1, 0.0, 1) * (1 + 1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"simulated": True},
        {"gpus": "2x h200 (simulated)"},
        {"gpus": "unknown"},
        {"gpus": "CPU"},
        {"gpus": None},
        {"gpus": "2x NVIDIA H200 NVL"},
        {"gpus": "1x NVIDIA H200, 1x NVIDIA H100 80GB HBM3"},
        {"output_tok_per_s": None},
        {"input_tokens_mean": None},
    ],
)
def test_what_is_not_known_has_no_share(changes: dict[str, Any]) -> None:
    assert set(shares(**changes).values()) == {None}


def test_without_a_count_of_steps_there_is_mfu_but_no_mbu() -> None:
    found = shares(server_steps_per_s=None)
    assert found["mfu_frac"] is not None
    assert found["mbu_frac"] is None
    for setting in ("api_server_count", "data_parallel_size"):  # that many API servers count
        several = shares({setting: 4})
        assert several["mfu_frac"] is not None
        assert several["mbu_frac"] is None
    assert shares({"data_parallel_size": 2, "api_server_count": 1})["mbu_frac"] is not None


def test_fp8_weights_have_twice_the_peak_and_half_the_bytes() -> None:
    plain, fp8 = shares(), shares({"quantization": "fp8"})
    assert fp8["mfu_frac"] == pytest.approx(plain["mfu_frac"] / 2)
    assert fp8["mbu_frac"] < plain["mbu_frac"]
    assert shares({"kv_cache_dtype": "fp8"})["mbu_frac"] < plain["mbu_frac"]


@pytest.mark.parametrize(
    "engine", [{"quantization": "awq"}, {"dtype": "float32"}, {"kv_cache_dtype": "turbo3"}]
)
def test_types_without_a_peak_have_no_share(engine: dict[str, Any]) -> None:
    assert set(shares(engine).values()) == {None}


def test_fp8_on_a_card_without_it_has_no_share() -> None:
    found = shares({"quantization": "fp8"}, gpus="1x NVIDIA A100-SXM4-80GB")
    assert set(found.values()) == {None}


@pytest.mark.parametrize(
    "key",
    [
        {"num_experts": 64},
        {"kv_lora_rank": 512},
        {"quantization_config": {"bits": 4}},
        {"layer_types": ["full_attention", "sliding_attention"]},
    ],
)
def test_a_model_that_the_formulas_do_not_hold_for_is_not_counted(key: dict[str, Any]) -> None:
    assert decoder_of(MODEL | {"shape": SHAPE | key}) is None


def test_a_model_that_is_not_here_is_not_counted() -> None:
    absent = {"name": "m", "path": "/nowhere/model", "revision": None, "shape": None}
    assert decoder_of(absent) is None
    assert decoder_of({"name": "m"}) is None
    assert set(utilisation(row(), {}, None).values()) == {None}


def test_joules_are_shared_by_the_windows_output_tokens() -> None:
    told = {"gpu_energy_j": 5000.0, "output_tok_per_s": 100.0, "window_s": 10.0}
    assert joules_per_output_token(told) == 5.0
    assert joules_per_output_token(told | {"gpu_energy_j": None}) is None
    assert joules_per_output_token(told | {"output_tok_per_s": 0.0}) is None


MEASURED = replace(
    CEILINGS["NVIDIA H200"], flops_per_s={"bfloat16": 790e12}, source="validation real"
)


def test_what_was_not_measured_is_left_to_the_data_sheet() -> None:
    measured = utilisation(row(), {}, decoder(), MEASURED)
    assert measured["ceiling"] == "validation real"
    fp8 = utilisation(row(), {"quantization": "fp8"}, decoder(), MEASURED)
    assert fp8["ceiling"] == "datasheet"


def test_shares_are_of_the_measured_ceiling_but_never_of_a_simulation() -> None:
    by_sheet, by_validation = shares(), utilisation(row(), {}, decoder(), MEASURED)
    assert by_validation["mfu_frac"] == pytest.approx(by_sheet["mfu_frac"] * 989.5 / 790)
    assert utilisation(row(simulated=True), {}, decoder(), MEASURED)["ceiling"] is None
    mixed = row(gpus="1x NVIDIA H200, 1x NVIDIA H100 80GB HBM3")
    assert utilisation(mixed, {}, decoder(), MEASURED)["ceiling"] is None
