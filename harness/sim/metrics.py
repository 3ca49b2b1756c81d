"""The /metrics page: vLLM's names, labels and buckets, plus two series of the simulator's own."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from monitors.vllm_metrics import TTFT_BUCKETS_S

LABELS = ("engine", "model_name")

# vLLM's own buckets, as its /metrics page shows them.
# fmt: off
ITL_BUCKETS_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)
LATENCY_BUCKETS_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)
# fmt: on
LENGTH_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
STEP_BUCKETS = (1.0, *(2.0**power for power in range(3, 15)))


class Metrics:
    def __init__(self, model_name: str) -> None:
        self._registry = CollectorRegistry()
        self._values = {"engine": "0", "model_name": model_name}
        self._running = self._gauge("num_requests_running", "Requests in the running batch.")
        self._waiting = self._gauge("num_requests_waiting", "Requests waiting to be processed.")
        self._kv_usage = self._gauge("kv_cache_usage_perc", "KV-cache usage, 1 is all of it.")
        self._preemptions = self._counter("num_preemptions", "Preemptions so far.")
        self._prompt_tokens = self._counter("prompt_tokens", "Prefill tokens processed.")
        self._generation_tokens = self._counter("generation_tokens", "Generated tokens.")
        self._queries = self._counter("prefix_cache_queries", "Tokens looked up.")
        self._hits = self._counter("prefix_cache_hits", "Tokens found.")
        self._ttft = self._histogram("time_to_first_token_seconds", TTFT_BUCKETS_S)
        self._itl = self._histogram("inter_token_latency_seconds", ITL_BUCKETS_S)
        self._tpot = self._histogram("request_time_per_output_token_seconds", ITL_BUCKETS_S)
        self._e2e = self._histogram("e2e_request_latency_seconds", LATENCY_BUCKETS_S)
        self._queue = self._histogram("request_queue_time_seconds", LATENCY_BUCKETS_S)
        self._inference = self._histogram("request_inference_time_seconds", LATENCY_BUCKETS_S)
        self._prefill = self._histogram("request_prefill_time_seconds", LATENCY_BUCKETS_S)
        self._decode = self._histogram("request_decode_time_seconds", LATENCY_BUCKETS_S)
        self._prompt_lengths = self._histogram("request_prompt_tokens", LENGTH_BUCKETS)
        self._output_lengths = self._histogram("request_generation_tokens", LENGTH_BUCKETS)
        self._step_tokens = self._histogram("iteration_tokens_total", STEP_BUCKETS)
        self._steps = self._counter("steps", "Engine steps.", prefix="sim")
        self._lag = self._counter(
            "step_lag_seconds",
            "By how much steps ended later than the roofline says: this CPU was too slow.",
            prefix="sim",
        )
        success = Counter(
            "vllm:request_success",
            "Finished requests.",
            (*LABELS, "finished_reason"),
            registry=self._registry,
        )
        self._finished = {
            reason: success.labels(**self._values, finished_reason=reason)
            for reason in ("stop", "length", "abort", "error")
        }

    def cache_config(self, **config: object) -> None:
        labels = {"engine": "0", **{name: str(value) for name, value in config.items()}}
        gauge = Gauge(
            "vllm:cache_config_info", "The KV cache.", tuple(labels), registry=self._registry
        )
        gauge.labels(**labels).set(1)

    def page(self, *, running: int, waiting: int, kv_cache_usage_frac: float) -> bytes:
        self._running.set(running)
        self._waiting.set(waiting)
        self._kv_usage.set(kv_cache_usage_frac)
        return generate_latest(self._registry)

    def scheduled(self, *, preemptions: int, prefix_queries: int, prefix_hits: int) -> None:
        self._preemptions.inc(preemptions)
        self._queries.inc(prefix_queries)
        self._hits.inc(prefix_hits)

    def stepped(self, num_tokens: int, lag_s: float) -> None:
        self._steps.inc()
        self._step_tokens.observe(num_tokens)
        self._lag.inc(lag_s)

    def first_token(self, prompt_tokens: int, ttft_s: float) -> None:
        self._prompt_tokens.inc(prompt_tokens)
        self._ttft.observe(ttft_s)

    def tokens(self, num_tokens: int, *, gap_s: float | None = None) -> None:
        self._generation_tokens.inc(num_tokens)
        if gap_s is not None:
            self._itl.observe(gap_s)

    def completed(
        self,
        *,
        prompt_tokens: int,
        generation_tokens: int,
        e2e_s: float,
        queue_s: float,
        prefill_s: float,
        decode_s: float,
    ) -> None:
        self._finished["length"].inc()
        self._e2e.observe(e2e_s)
        self._queue.observe(queue_s)
        self._prefill.observe(prefill_s)
        self._decode.observe(decode_s)
        self._inference.observe(prefill_s + decode_s)
        self._tpot.observe(decode_s / max(1, generation_tokens - 1))
        self._lengths(prompt_tokens, generation_tokens)

    def aborted(self, prompt_tokens: int, generation_tokens: int) -> None:
        self._finished["abort"].inc()
        self._lengths(prompt_tokens, generation_tokens)

    def _lengths(self, prompt_tokens: int, generation_tokens: int) -> None:
        self._prompt_lengths.observe(prompt_tokens)
        self._output_lengths.observe(generation_tokens)

    def _gauge(self, name: str, text: str) -> Gauge:
        gauge = Gauge(f"vllm:{name}", text, LABELS, registry=self._registry)
        return gauge.labels(**self._values)

    def _counter(self, name: str, text: str, *, prefix: str = "vllm") -> Counter:
        counter = Counter(f"{prefix}:{name}", text, LABELS, registry=self._registry)
        return counter.labels(**self._values)

    def _histogram(self, name: str, buckets: tuple[float, ...]) -> Histogram:
        text = f"Histogram of {name}."
        histogram = Histogram(
            f"vllm:{name}", text, LABELS, registry=self._registry, buckets=buckets
        )
        return histogram.labels(**self._values)
