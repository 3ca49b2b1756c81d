"""How much context fits, where the cache saturates, and what of it is used again. Pure."""

from collections.abc import Iterator

import pandas as pd

from harness.conclusions.rows import Row, concluded, good, is_known, of_case
from harness.units import milliseconds, number, percent, whole


def kv_cache_conclusion(points: pd.DataFrame) -> Iterator[str]:
    """Capacity, saturation, reuse: as far as each was measured."""
    yield from concluded(_told(points), points, good(points))


def _told(points: pd.DataFrame) -> Iterator[str]:
    yield from _capacity(good(points, "kv_cache_tokens"))
    yield from _longest(good(points, "longest_context_tokens"))
    saturation = of_case(good(points, "kv_demand_frac", "preemptions"), "saturation")
    yield from _saturation(sorted(saturation, key=lambda row: row["kv_demand_frac"]))
    reuse = of_case(good(points, "hit_frac", "prefix_cache_hit_frac", "ttft_p50_s"), "reuse")
    yield from _reuse(sorted(reuse, key=lambda row: row["hit_frac"]))


def _capacity(rows: list[Row]) -> Iterator[str]:
    if not rows:
        return
    largest = max(rows, key=lambda row: row["kv_cache_tokens"])
    told = f"At most {whole(largest['kv_cache_tokens'])} tokens fit ({_setting(largest)})"
    if is_known(largest, "kv_cache_expected_tokens"):
        share = largest["kv_cache_tokens"] / largest["kv_cache_expected_tokens"]
        told += f", {percent(share)} % of what weights leave of the memory by arithmetic"
    yield f"{told}."


def _longest(rows: list[Row]) -> Iterator[str]:
    if not rows:
        return
    longest = max(rows, key=lambda row: row["longest_context_tokens"])
    name = "longest_context_limit"
    why = longest[name] if is_known(longest, name) else None
    yield (
        f"The longest context that was served has {whole(longest['longest_context_tokens'])}"
        f" tokens ({_setting(longest)}{f'; {why}' if why else ''})."
    )


def _saturation(rows: list[Row]) -> Iterator[str]:
    """`rows` by rising demand."""
    if not rows:
        yield "Nothing that was measured tells where it saturates."
        return
    tight = [row for row in rows if row["preemptions"] > 0]
    if not tight:
        yield (
            f"No request was preempted, up to a demand of {_demand(rows[-1])} of the cache:"
            " its limit was not reached."
        )
        return
    calm = [row for row in rows if row["kv_demand_frac"] < tight[0]["kv_demand_frac"]]
    told = f", none up to {_demand(calm[-1])}" if calm else ""
    yield (
        f"Preemption begins at a demand of {_demand(tight[0])} of the cache"
        f" ({whole(tight[0]['preemptions'])} requests){told}."
    )
    if all(is_known(row, "goodput_rps") for row in rows):
        best = max(rows, key=lambda row: row["goodput_rps"])
        yield (
            f"Goodput is highest at a demand of {_demand(best)} ({number(1)(best['goodput_rps'])}"
            f" req/s) and {number(1)(rows[-1]['goodput_rps'])} req/s at {_demand(rows[-1])}."
        )


def _reuse(rows: list[Row]) -> Iterator[str]:
    """`rows` by rising share of the prompts that is shared."""
    if len(rows) < 2:
        yield "Nothing that was measured tells what is used again."
        return
    none, most = rows[0], rows[-1]
    yield (
        f"Where {percent(most['hit_frac'])} % of each prompt is shared,"
        f" {percent(most['prefix_cache_hit_frac'])} % of its tokens are found in the cache, and"
        f" TTFT p50 is {milliseconds(most['ttft_p50_s'])} ms against"
        f" {milliseconds(none['ttft_p50_s'])} ms at {percent(none['hit_frac'])} %."
    )


def _demand(row: Row) -> str:
    return number(2)(row["kv_demand_frac"])


def _setting(row: Row) -> str:
    """What of the engine decides it, as far as it was swept."""
    names = ("gpu_memory_utilization", "kv_cache_dtype")
    told = [f"{name}={row[name]}" for name in names if is_known(row, name)]
    case = [f"case {row['case']}"] if is_known(row, "case") else []
    return ", ".join([*case, *told]) or "the only setting"
