from typing import Any

import pytest

from harness.checks.columns import NOTHING, columns_of

LOAD: dict[str, Any] = {
    "arrival": "closed",
    "concurrency": 4,
    "input_tokens": 64,
    "output_tokens": {"dist": "uniform", "min": 1, "max": 8},
    "prompts": {"kind": "unique"},
    "conversation": None,
    "ignore_eos": True,
}
CONTEXT = {"status": "ok", "tokens": 2048, "took_s": 0.5, "limit": "max_model_len=2048"}
OFFLINE = {"status": "ok", "output_tok_per_s": 900.0, "load": LOAD}
FAILED = {"status": "failed", "failure": {"kind": "hangs"}}


def test_what_was_found_stands_in_every_row_of_the_engine_setting() -> None:
    row = columns_of({"longest_context": CONTEXT, "offline": OFFLINE}, LOAD)
    assert row["longest_context_tokens"] == 2048
    assert row["longest_context_s"] == 0.5
    assert row["longest_context_limit"] == "max_model_len=2048"
    assert row["offline_output_tok_per_s"] == 900.0


@pytest.mark.parametrize("found", [{}, {"offline": None}, {"offline": FAILED}, {"other": CONTEXT}])
def test_what_was_not_found_is_none(found: dict[str, Any]) -> None:
    assert columns_of(found, LOAD) == NOTHING


@pytest.mark.parametrize("change", [{"concurrency": 9}, {"arrival": "poisson", "rate_frac": 0.5}])
def test_throughput_without_a_server_is_told_at_every_intensity(change: dict[str, Any]) -> None:
    assert columns_of({"offline": OFFLINE}, LOAD | change)["offline_output_tok_per_s"] == 900.0


@pytest.mark.parametrize(
    "change",
    [
        {"input_tokens": 65},
        {"output_tokens": 8},
        {"prompts": {"kind": "shared_prefix", "groups": 2, "hit_frac": 0.5}},
        {"conversation": {"turns": 2, "think_s": 0}},
        {"arrival": "trace"},
    ],
)
def test_throughput_without_a_server_is_not_told_of_other_requests(change: dict[str, Any]) -> None:
    assert columns_of({"offline": OFFLINE}, LOAD | change)["offline_output_tok_per_s"] is None
