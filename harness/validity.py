"""Reasons, by code, why a number must not be believed, or not without a second look."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from loadgen.metrics import MIN_REPLIES

MIN_P99 = 662  # samples for a p99 at 99 % confidence (MLPerf's early-stopping rule)
MAX_DRIFT_FRAC = 0.1
MAX_GAP_S = 2.0  # between two samples: what went on in it is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """One reason. A fatal one makes every number of the row worthless for a comparison."""

    meaning: str
    fatal: bool = False


CODES = {
    "simulated": Code(meaning="no hardware was measured: a model of a GPU was simulated"),
    "failures": Code(
        meaning="requests failed; latencies cover only those that did not", fatal=True
    ),
    "no_samples": Code(meaning="no request completed in the sample", fatal=True),
    "few_samples": Code(meaning=f"p99 from fewer than {MIN_P99} requests"),
    "not_steady": Code(
        meaning="the window opened before every stream had completed a request (TTFT still includes"
        " the start), or throughput changed by over 10 % from its first half to its second, more"
        " than streams in step explain"
    ),
    "short_window": Code(
        meaning="a request took longer than the window, which then shows only part of a wave where"
        f" streams run in step: set a longer load.duration_s; {MIN_REPLIES} requests are enough"
    ),
    "cut": Code(meaning="requests due in the window were unfinished when the run ended"),
    "lengths_off": Code(meaning="token counts differ from what was asked for", fatal=True),
    "token_bundles": Code(
        meaning="more than 1.05 tokens per chunk, or most chunks arrived in one read with the one"
        " before: ITL is not per token, and TPOT is not the time the server took"
    ),
    "prefix_hits": Code(meaning="prompts hit the prefix cache, although none share a prefix"),
    "preempted": Code(meaning="the KV cache was full: requests were preempted and recomputed"),
    "throttled": Code(meaning="a GPU was throttled (power, heat or hardware)"),
    "clock_moved": Code(meaning="the SM clock fell more than 5 % below its mean"),
    "foreign_gpu_process": Code(meaning="a process other than ours was using the GPU", fatal=True),
    "monitor_gap": Code(meaning="more than two seconds without a sample"),
    "not_monitored": Code(meaning="a monitor could not run"),
    "client_late": Code(meaning="requests were written more than 10 ms late (p99)", fatal=True),
    "client_busy": Code(
        meaning="our load generator used over 80 % of its core, or its timers were over 20 ms late"
        " (p99): TTFT may include its own queue; client.workers=N gives it more processes",
        fatal=True,
    ),
    "client_limit": Code(
        meaning="more chunks per second than our load generator was calibrated for: it may report"
        " TTFT over 5 ms too high; client.workers=N gives it more processes"
    ),
    "not_calibrated": Code(meaning="the load generator's own error was not measured"),
    "sim_late": Code(meaning="the simulator fell behind its own clock by over 2 %", fatal=True),
    "instrument_bound": Code(
        meaning="a search whose lowest load that missed the limits is in doubt: our load generator"
        " or simulator was too slow there (client_late, client_busy, sim_late), so the capacity may"
        " be larger",
        fatal=True,
    ),
    "stopped": Code(
        meaning="the run was ended early because its answer was already clear", fatal=True
    ),
    "died": Code(meaning="the server died or hung in this run, or did not start", fatal=True),
    "not_possible": Code(
        meaning="this machine lacks what the setting needs: nothing was started", fatal=True
    ),
    "harness_fault": Code(meaning="the harness itself failed in this run", fatal=True),
}
FATAL = tuple(code for code, told in CODES.items() if told.fatal)


def fatal_codes(told: str | None) -> tuple[str, ...]:
    """Of the codes that stand in a row's `validity`, those that void it."""
    return tuple(code for code in (told or "").split() if code in FATAL)


def codes(row: Mapping[str, Any]) -> list[str]:
    """The codes that apply to a row of a table, in the order of `CODES`."""
    if row["status"] != "ok":
        named = {"harness": "harness_fault", "not_possible": "not_possible"}
        applies = {named.get(row["failure"], "died"): True}
    elif row.get("stopped"):
        applies = {"stopped": True} | _of_instrument(row)
    else:
        applies = _of_whole(row) | _of_instrument(row)
    applies["simulated"] = row["simulated"]
    return [code for code in CODES if applies.get(code)]


def instrument_codes(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The codes that apply because our side was too slow to tell how slow the server is."""
    return tuple(code for code, holds in _of_instrument(row).items() if holds)


def _of_instrument(row: Mapping[str, Any]) -> dict[str, bool]:
    return {
        "client_late": _over(row, "send_lag_p99_s", 0.010),
        "client_busy": _over(row, "client_cpu_frac", 0.8)
        or _over(row, "client_loop_lag_p99_s", 0.020),
        "sim_late": _over(row, "sim_lag_frac", 0.02),
    }


def _of_whole(row: Mapping[str, Any]) -> dict[str, bool]:
    """For each other code of a run that was made in full, whether it applies."""
    is_closed = row["arrival"] == "closed"
    return {
        "failures": _over(row, "requests_failed", 0),
        "no_samples": row["requests_ok"] == 0,
        "few_samples": 0 < row["requests_ok"] < MIN_P99,
        "not_steady": row["first_generation_done"] is False or (is_closed and _drifted(row)),
        "short_window": is_closed and _over(row, "e2e_p50_s", row["window_s"]),
        "cut": not is_closed and _over(row, "requests_cut", 0),
        "lengths_off": _over(row, "lengths_off_frac", 0.01),
        "token_bundles": _over(row, "tokens_per_chunk", 1.05) or row["itl_p50_s"] == 0,
        "prefix_hits": not row["shares_prompts"] and _over(row, "prefix_cache_hit_frac", 0.01),
        "preempted": _over(row, "preemptions", 0),
        "throttled": _over(row, "throttled_frac", 0.01),
        "clock_moved": _fell(row, "sm_clock_min_hz", "sm_clock_mean_hz", 0.95),
        "foreign_gpu_process": bool(row["foreign_processes"]),
        "monitor_gap": _over(row, "monitor_gap_max_s", MAX_GAP_S),
        "not_monitored": bool(row["not_monitored"]),
        "client_limit": _over(row, "chunks_per_s", row["client_clean_chunks_per_s"]),
        "not_calibrated": row["client_clean_chunks_per_s"] is None,
        "instrument_bound": bool(row.get("at_capacity") and row.get("capacity_doubts")),
    }


def longer_window(row: Mapping[str, Any], reply_s: float | None) -> str | None:
    """What a closed loop should be given so that its window holds its replies, with the numbers;
    None where that is not what is wrong. `reply_s`: the median of the run, warm-up included.
    """
    if row["arrival"] != "closed" or row["status"] != "ok":
        return None
    window_s, warmup_s = row["window_s"], row["warmup_s"]
    is_short = bool({"no_samples", "short_window"} & set(codes(row))) or _drifted(row)
    if reply_s is None:
        told = f"no reply ended in {warmup_s + window_s:.0f} s"
        longer = "make load.warmup_max_s and load.duration_s longer"
        return f"{told}: {longer}" if is_short and not row["requests_failed"] else None
    words = []
    if is_short and (long_s := MIN_REPLIES * reply_s) > window_s:
        words.append(f"load.duration_s={ceil(long_s)}")
    # the first replies are slower: they share the server with everybody's prompt
    if not row["first_generation_done"] and (long_s := 2 * reply_s) > warmup_s:
        words.append(f"load.warmup_max_s={ceil(long_s)}")
    told = f"replies took {reply_s:.3g} s, the window {window_s:.3g} s"
    return f"{told}: {' '.join(words)}" if words else None


def _over(row: Mapping[str, Any], name: str, limit: float | None) -> bool:
    value = row.get(name)
    return value is not None and limit is not None and bool(value > limit)


def _drifted(row: Mapping[str, Any]) -> bool:
    """Whether throughput changed from the first half of the window to the second.

    Streams that go in step make waves, one a reply: less than one in half a window is no drift, as
    long as the window is not too short for them.
    """
    drift_frac, reply_s, window_s = row["drift_frac"], row["e2e_p50_s"], row["window_s"]
    if drift_frac is None or reply_s is None:
        return False
    allowed_frac = reply_s / (window_s / 2) if window_s >= MIN_REPLIES * reply_s else 0.0
    return bool(abs(drift_frac) > max(MAX_DRIFT_FRAC, allowed_frac))


def _fell(row: Mapping[str, Any], low: str, mean: str, share: float) -> bool:
    return row.get(low) is not None and row[low] < share * row[mean]
