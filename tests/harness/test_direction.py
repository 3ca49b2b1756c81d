"""Which direction of a column is better."""

from harness.columns import COLUMNS
from harness.direction import HIGH, LOW, better

DERIVED = ("usd_per_",)  # a tuning computes the price


def test_every_direction_is_of_a_column() -> None:
    names = [column.name for column in COLUMNS]
    for prefix in (*HIGH, *LOW):
        assert prefix in DERIVED or any(name.startswith(prefix) for name in names), prefix


def test_no_column_has_two_directions_and_a_share_of_busy_time_has_none() -> None:
    for column in COLUMNS:
        assert not (column.name.startswith(HIGH) and column.name.startswith(LOW)), column.name
    assert better("output_tok_per_s_per_user") == better("mfu_frac") == "high"
    assert better("server_ttft_p99_s") == better("startup_s") == "low"
    for name in ("sm_activity_frac", "output_tokens_mean", "capacity_probes", "capacity_breaks"):
        assert better(name) is None
