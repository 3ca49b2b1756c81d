"""A vLLM server's own numbers, scraped from its Prometheus page, or from those of its replicas."""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan, nan
from time import perf_counter
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 5.0  # a saturated API server answers late, and that answer is worth the wait
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
    # histograms: the number of observations, and their sum
    "steps_total": "vllm:iteration_tokens_total_count",
    "ttft_total": "vllm:time_to_first_token_seconds_count",
    "ttft_sum_s": "vllm:time_to_first_token_seconds_sum",
    "queue_total": "vllm:request_queue_time_seconds_count",
    "queue_sum_s": "vllm:request_queue_time_seconds_sum",
    "prefill_total": "vllm:request_prefill_time_seconds_count",
    "prefill_sum_s": "vllm:request_prefill_time_seconds_sum",
    "decode_total": "vllm:request_decode_time_seconds_count",
    "decode_sum_s": "vllm:request_decode_time_seconds_sum",
}
# Upper bounds of TTFT buckets, as in vLLM 0.25. With a server that has other buckets, some columns
# are NaN, and interpolation between the rest is coarser.
TTFT_BUCKETS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
TTFT_BUCKETS = {bound_s: f"ttft_le_{bound_s:g}_total" for bound_s in TTFT_BUCKETS_S}
TTFT_BUCKET = "vllm:time_to_first_token_seconds_bucket"
NAMES = frozenset([*METRICS.values(), TTFT_BUCKET])


class VllmMetrics:
    """Source `server`: one row, stamped when the last page has arrived, before parsing.

    The numbers of replicas are combined like those of data parallel engines in one server. If the
    page of one cannot be read, there is no row.
    """

    columns: tuple[str, ...] = ("at_s", *METRICS, *TTFT_BUCKETS.values())

    def __init__(
        self, urls: Sequence[str], interval_s: float, headers: Mapping[str, str] | None = None
    ) -> None:
        self.interval_s = interval_s
        self.notes: list[str] = []
        self._requests = [Request(url) for url in urls]
        for request in self._requests:
            for name, value in (headers or {}).items():
                # a key is not for the server that this one may redirect to
                request.add_unredirected_header(name, value)
        self._opener: OpenerDirector | None = None

    def sample(self, *, edge: bool) -> Iterator[tuple[float, ...]]:  # noqa: ARG002
        if self._opener is None:
            # no proxy: one set in the environment is meant for the outside, not for 127.0.0.1
            self._opener = build_opener(ProxyHandler({}))
        pages = [self._page(self._opener, request) for request in self._requests]
        at_s = perf_counter()
        values = together([parse(page) for page in pages])
        yield (at_s, *(values[column] for column in self.columns[1:]))

    def _page(self, opener: OpenerDirector, request: Request) -> str:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            page: bytes = response.read(PAGE_MAX_BYTES)
        return page.decode(errors="replace")


def parse(page: str) -> dict[str, float]:
    """Column -> value: the sum over engines; for KV cache usage, that of the fullest engine.

    A metric that the page lacks is NaN. Raises ValueError if it lacks all of them.
    """
    # Only the lines needed are parsed. The page has hundreds, and parsing all of them takes ten
    # times as long, in a process that samples GPUs at the same time.
    lines = [line for line in page.splitlines() if line.partition("{")[0].split(" ")[0] in NAMES]
    found: dict[str, list[float]] = {name: [] for name in METRICS.values()}
    values = dict.fromkeys(TTFT_BUCKETS.values(), nan)
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.name != TTFT_BUCKET:
                found[sample.name].append(sample.value)
            elif column := TTFT_BUCKETS.get(float(sample.labels["le"])):
                before = values[column]
                values[column] = sample.value + (0.0 if isnan(before) else before)
    if not any(found.values()):
        raise ValueError("the page has none of vLLM's metrics")
    for column, name in METRICS.items():
        values[column] = sum(found[name]) if found[name] else nan
    usage = found[METRICS["kv_cache_usage_frac"]]
    return values | {"kv_cache_usage_frac": max(usage, default=nan)}


def together(pages: Sequence[dict[str, float]]) -> dict[str, float]:
    """The numbers of several pages as if one page had all engines; NaN if any page lacks one."""
    if len(pages) == 1:
        return pages[0]
    values = {column: sum(page[column] for page in pages) for column in pages[0]}
    usage = [page["kv_cache_usage_frac"] for page in pages]
    return values | {"kv_cache_usage_frac": nan if any(map(isnan, usage)) else max(usage)}
