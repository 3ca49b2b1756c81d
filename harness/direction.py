"""Which direction of a column is better. Pure."""

from typing import Literal

Direction = Literal["high", "low"]
HIGH = (
    *("output_tok_per_s", "total_tok_per_s", "offline_output_tok_", "requests_per_s"),
    *("goodput_", "slo_met_", "capacity_rps", "capacity_concurrency", "capacity_low"),
    *("mfu_", "mbu_", "prefix_cache_hit_", "longest_context_tokens"),
    *("top1_", "exact_match_", "common_prefix_", "task_accuracy_frac"),
)
LOW = (
    *("ttft_", "tpot_", "itl_", "e2e_", "startup_", "preemptions"),
    *("server_ttft_", "server_queue_", "server_prefill_", "server_decode_"),
    *("j_per_", "usd_per_", "requests_failed", "failed_"),
    *("kl_mean_", "kl_low_", "kl_high_", "perplexity"),
)


def better(column: str) -> Direction | None:
    """Whether a column is better high or low; None if it is neither, like a share of busy time."""
    if column.startswith(HIGH):
        return "high"
    return "low" if column.startswith(LOW) else None
