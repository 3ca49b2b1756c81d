import math

import pytest

from harness.columns import COLUMNS, metric
from harness.units import (
    between,
    display_of,
    milliseconds,
    named_values,
    plural,
    quantity,
    scale_of,
    span,
    value_text,
    whole,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0022, "2.20"), (0.0142, "14.2"), (5.21, "5,210"), (0.171, "171"), (0.0, "0.00")],
)
def test_milliseconds_keep_three_digits(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (790e12, "FLOP/s", "790 TFLOP/s"),
        (5.6e9, "FLOP/s", "5.60 GFLOP/s"),
        (4e9, "B/s", "4.00 GB/s"),
    ],
)
def test_a_measured_quantity_keeps_three_digits(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "default"),
        (math.nan, "default"),
        (True, "true"),
        (False, "false"),
        (0.95, "0.95"),
        (1 / 3, "0.333333"),
        (256.0, "256"),
        (1048576, "1048576"),
        (1048576.0, "1048576"),
        ("fp8", "fp8"),
    ],
)
def test_a_settings_value_is_told_whole(value: object, text: str) -> None:
    assert value_text(value) == text


def test_values_are_told_with_their_names() -> None:
    assert named_values({"a": 1, "b": None}) == "a=1, b=default"
    assert named_values({"a": True, "b": "c"}, separator=" ") == "a=true b=c"
    assert named_values({}) == ""


def test_a_range_that_is_none_is_one_span() -> None:
    assert between(60, 100) == "60 s to 2 min"
    assert between(95, 125) == "2 min"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45, "45 s"), (89, "89 s"), (95, "2 min"), (4900, "82 min"), (6000, "1 h 40 min")],
)
def test_spans_are_told_in_the_unit_that_suits(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_large_numbers_have_separators() -> None:
    assert whole(15087.4) == "15,087"


@pytest.mark.parametrize(
    ("count", "word", "text"),
    [(1, "launch", "1 launch"), (2, "launch", "2 launches"), (1200, "run", "1,200 runs")],
)
def test_counted_words_are_in_their_number(count: int, word: str, text: str) -> None:
    assert plural(count, word) == text


@pytest.mark.parametrize(
    ("name", "value", "title", "text"),
    [
        ("ttft_p50_s", 0.0123, "TTFT p50 ms", "12.3"),
        ("output_tok_per_s", 15087.4, "output tok/s", "15,087"),
        ("offline_output_tok_per_s", 9.6, "offline output tok/s", "10"),
        ("nvlink_rx_bytes_per_s", 2.5e9, "nvlink rx GB/s", "2.50"),
        ("requests_per_s", 12.34, "requests per s", "12.3"),
        ("api_server_cpu_frac", 0.984, "API server CPU", "0.98"),
        ("goodput_rps", 3.14159, "goodput req/s", "3.14"),
        ("online_frac", 0.875, "online %", "87.5"),
        ("gpu_memory_used_bytes", 2**31, "GPU memory used GiB", "2.0"),
        ("longest_context_tokens", 1040384.0, "longest context tokens", "1,040,384"),
        ("sm_clock_mean_hz", 1.98e9, "SM clock mean MHz", "1,980"),
        ("gpu_power_w", 629.4, "GPU power W", "629"),
        ("kl_mean_nats", 1.45e-5, "KL mean nats", "1.5e-05"),
        ("j_per_output_token", 0.0312, "J per output token", "0.03"),
        ("speedup", 1.9234, "speedup", "1.92"),
        ("output_tok_per_s_per_gpu", 1025.3, "output tok/s per GPU", "1,025"),
        ("usd_per_mtok_output", 0.4321, "USD per Mtok output", "0.43"),
    ],
)
def test_a_columns_name_tells_how_people_are_shown_it(
    name: str, value: float, title: str, text: str
) -> None:
    told, shown = display_of(name)
    assert (told, shown(value)) == (title, text)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [("tpot_p50_s", 0.002, 2.0), ("rate_frac", 0.5, 50.0), ("concurrency", 64, 64.0)],
)
def test_a_plots_scale_is_that_of_the_axis_title(name: str, value: float, shown: float) -> None:
    assert value * scale_of(name) == pytest.approx(shown)


def test_every_column_can_be_shown() -> None:
    for column in COLUMNS:
        asked = column.for_people()
        assert asked.title
        assert asked.shown is not None
        assert asked.shown(1.0)


def test_a_title_of_its_own_does_not_change_a_columns_unit() -> None:
    for column in COLUMNS:
        if column.shown is not None:
            text = column.shown(5000 / scale_of(column.name))
            assert float(text.replace(",", "")) == 5000, column.name


def test_what_is_no_column_is_shown_by_its_name() -> None:
    title, shown = metric("longest_wait_s")
    assert (title, shown(0.25)) == ("longest wait ms", "250")


def test_whole_numbers_are_shown_whole() -> None:
    shown = {column.name: column.for_people().shown for column in COLUMNS}
    for name in ("num_gpus", "client_workers", "tensor_parallel_size", "requests_ok"):
        assert shown[name](2.0) == "2", name
