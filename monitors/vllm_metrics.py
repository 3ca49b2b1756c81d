"""A vLLM server's own numbers, scraped from its Prometheus page."""

from collections.abc import Iterator
from math import nan
from time import perf_counter
from urllib.request import ProxyHandler, build_opener

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 5.0  # a saturated API server answers late, and that is worth waiting for
PAGE_MAX_BYTES = 16 * 2**20

METRICS = {
    "requests_running": "vllm:num_requests_running",
    "requests_waiting": "vllm:num_requests_waiting",
    "kv_cache_usage_frac": "vllm:kv_cache_usage_perc",  # a fraction, whatever its name says
    "preemptions_total": "vllm:num_preemptions_total",
    "prompt_tokens_total": "vllm:prompt_tokens_total",
    "generation_tokens_total": "vllm:generation_tokens_total",
    "prefix_cache_queries_total": "vllm:prefix_cache_queries_total",
    "prefix_cache_hits_total": "vllm:prefix_cache_hits_total",
}


class VllmMetrics:
    """Source `server`. Stamped when the page has arrived, before it is parsed."""

    columns: tuple[str, ...] = ("at_s", *METRICS)

    def __init__(self, url: str, interval_s: float) -> None:
        self.interval_s = interval_s
        self.notes: list[str] = []
        self._url = url

    def sample(self, *, edge: bool) -> Iterator[tuple[float, ...]]:  # noqa: ARG002
        # no proxy: the environment's is for the way out, and would break 127.0.0.1
        with build_opener(ProxyHandler({})).open(self._url, timeout=TIMEOUT_S) as response:
            page = response.read(PAGE_MAX_BYTES)
        at_s = perf_counter()
        values = parse(page.decode(errors="replace"))
        yield (at_s, *(values[column] for column in METRICS))


def parse(page: str) -> dict[str, float]:
    """Column -> value: the sum over engines, but the fullest engine's KV cache usage.

    A metric that the page lacks is NaN; ValueError when it lacks all of them.
    """
    names = set(METRICS.values())
    # only the lines that are read get parsed: the page has hundreds, and parsing all of them takes
    # 25 times as long, in a process that samples GPUs at the same time
    lines = [line for line in page.splitlines() if line.partition("{")[0].split(" ")[0] in names]
    found: dict[str, list[float]] = {name: [] for name in names}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            found[sample.name].append(sample.value)
    if not any(found.values()):
        raise ValueError("the page has none of vLLM's metrics")
    values = {column: sum(found[name]) if found[name] else nan for column, name in METRICS.items()}
    usage = found[METRICS["kv_cache_usage_frac"]]
    return values | {"kv_cache_usage_frac": max(usage, default=nan)}
