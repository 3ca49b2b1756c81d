"""Every column of a table: its name, its meaning, and how it is shown to people.

`table.parquet` and `table.csv` hold them in base units with the unit in the name, one row a run.
`table.md` shows those with a title, or those that a sweep's `columns` name, as far as they are not
empty, one row a point. What a point is to others (`RELATIONS`) is there alone.
"""

from dataclasses import dataclass, replace

from harness.units import (
    Format,
    cores,
    display_of,
    gibibytes,
    milliseconds,
    percent,
    rate,
    whole,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. `title` is its heading in table.md; without one it is shown only where a sweep
    asks for it, in the unit that its name tells."""

    name: str
    meaning: str
    title: str | None = None
    shown: Format | None = None

    def for_people(self) -> "Column":
        """The column with a title and a format, whatever it has of its own."""
        title, shown = metric(self.name)
        return replace(self, title=title, shown=shown)


def _(name: str, meaning: str, title: str | None = None, shown: Format | None = None) -> Column:
    return Column(name=name, meaning=meaning, title=title, shown=shown)


IDENTITY = (
    _("sweep", "name of the sweep"),
    _("run", "id of the run: point-launch-repeat"),
    _("point", "id of the point: a hash of everything it depends on"),
    _("launch", "folder of the launch, below launches/"),
    _("setting", "id of the engine setting, the same in all its launches"),
    _("load", "id of the load, the same for every engine setting"),
    _("load_kind", "id of the load apart from its concurrency or rate"),
    _("case", "which of the sweep's cases"),
    _("launch_repeat", "which launch of the engine setting, from 1"),
    _("run_repeat", "which run of the point within its launch, from 1"),
    _("engine", "vllm, sim or external"),
    _("simulated", "true: simulated, no hardware was measured"),
    _("model", "name of the model"),
    _("vllm_version", "version of the server"),
    _("gpus", "GPUs that served, or that were simulated"),
    _("num_gpus", "number of GPUs that served, or that were simulated", shown=whole),
    _("status", "ok or failed"),
    _("failure", "kind of failure, if any"),
    _("stopped", "why the run was ended early, if it was"),
)

SETTINGS = (
    _("max_num_seqs", "maximum requests per step", "max_num_seqs", whole),
    _("max_num_batched_tokens", "maximum tokens per step", "max_num_batched_tokens", whole),
    _("tensor_parallel_size", "GPUs that each layer is split across", shown=whole),
    _("arrival", "arrival process: closed, constant, poisson, gamma, ramp or trace"),
    _("data_parallel_size", "engines behind one API, each with the whole model"),
    _("replicas", "servers sharing the load; numbers cover all of them together"),
    _("concurrency", "closed loop: requests kept in flight", "concurrency", whole),
    _("rate_rps", "open loop: offered requests per second", "rate req/s", rate),
    _("rate_frac", "open loop: offered rate as a share of the capacity found by closed loops"),
)

RELATIONS = (
    _(
        "gain_frac",
        "output_tok_per_s over the previous row's, minus 1; along the case's last axis",
        "gain %",
        percent,
    ),
    _("speedup", "output_tok_per_s over that of the first engine setting at the same load"),
    _("gpu_efficiency_frac", "output_tok_per_s per GPU over that of the first engine setting"),
    _(
        "concurrency_efficiency_frac",
        "output_tok_per_s per stream over that at the lowest concurrency",
    ),
    _("online_frac", "output_tok_per_s over vLLM's own throughput without a server"),
    _(
        "knee",
        "true at the lowest concurrency, or else axis value, with 90 % of the best",
    ),
)

MEASURES = (
    _("output_tok_per_s", "output tokens per second in the window", "output tok/s", whole),
    _("drift_frac", "output tokens in the window's second half over its first, minus 1"),
    _("chunks_per_s", "content chunks per second in the window"),
    _("total_tok_per_s", "input and output tokens per second in the window"),
    _("output_tok_per_s_run", "output tokens per second over the whole run, warm-up included"),
    _("requests_per_s", "requests completed per second in the window"),
    _("ttft_mean_s", "time to first token, mean: from request write to first content chunk"),
    _("ttft_p50_s", "time to first token, median", "TTFT p50 ms", milliseconds),
    _("ttft_p90_s", "time to first token, 90th percentile"),
    _("ttft_p99_s", "time to first token, 99th percentile", "TTFT p99 ms", milliseconds),
    _("ttft_sched_p50_s", "first content chunk minus scheduled time (what a user waits), median"),
    _("ttft_sched_p99_s", "first content chunk minus scheduled time, 99th percentile"),
    _("tpot_mean_s", "time per output token, mean: (last - first content chunk) / (tokens - 1)"),
    _("tpot_p50_s", "time per output token, median", "TPOT p50 ms", milliseconds),
    _("tpot_p90_s", "time per output token, 90th percentile"),
    _("tpot_p99_s", "time per output token, 99th percentile", "TPOT p99 ms", milliseconds),
    _("itl_p50_s", "inter-token latency, median: gaps between content chunks, pooled"),
    _("itl_p99_s", "inter-token latency, 99th percentile"),
    _("e2e_p50_s", "end-to-end latency, median: from request write to last content chunk"),
    _("e2e_p99_s", "end-to-end latency, 99th percentile"),
    _("tokens_per_chunk", "output tokens per content chunk; above 1 the server bundles tokens"),
    _("kv_cache_usage_peak_frac", "share of the KV cache in use, peak", "KV peak %", percent),
    _("kv_cache_usage_mean_frac", "share of the KV cache in use, mean"),
    _("kv_cache_tokens", "KV cache size in tokens"),
    _(
        "kv_cache_expected_tokens",
        "expected KV cache size: memory that the weights leave, or the blocks set if fewer",
    ),
    _(
        "kv_demand_frac",
        "tokens the load keeps in flight over the KV cache's size; above 1, requests wait",
    ),
    _("preemptions", "requests preempted for lack of KV blocks", "preemptions", whole),
    _("prefix_cache_hit_frac", "share of prompt tokens found in the prefix cache"),
    _("requests_running_mean", "requests running in the engine, mean of the server's gauge"),
    _("requests_waiting_mean", "requests waiting in the server, mean of its gauge"),
    _("requests_waiting_frac", "share of samples with a request waiting in the server"),
    _(
        "server_steps_per_s",
        "engine steps per second that produced tokens, as the server counts them",
    ),
    _("server_ttft_mean_s", "the server's own TTFT, mean"),
    _(
        "server_ttft_p50_s",
        "the server's own TTFT, median, interpolated within a bucket",
    ),
    _(
        "server_ttft_p99_s",
        "the server's own TTFT, 99th percentile, interpolated within a bucket",
    ),
    _("server_queue_mean_s", "time in the server's queue before the first step, mean"),
    _("server_prefill_mean_s", "time in the server from first step to first token, mean"),
    _("server_decode_mean_s", "time in the server from first to last token, mean"),
    _("goodput_rps", "requests per second that met all limits of slo"),
    _("slo_met_frac", "share of requests that met all limits of slo; failed ones count as missed"),
    _("slo_verdict", "search: whether this run met the limits, missed them, or is unresolved"),
    _("slo_met_low_frac", "slo_met_frac, lower end of its 90 % interval"),
    _(
        "slo_met_high_frac",
        "slo_met_frac, upper end; wider if requests miss limits together",
    ),
    _("backlog_rps", "search: growth of the requests in flight per second, if they grew"),
    _("at_capacity", "search: whether this run is the one at the capacity found"),
    _(
        "capacity_rps",
        "search: highest rate that met the limits of slo",
        "capacity req/s",
        rate,
    ),
    _(
        "capacity_concurrency",
        "search: highest concurrency that met the limits of slo",
        "capacity",
        whole,
    ),
    _(
        "capacity_low",
        "search: highest rate or concurrency that clearly met the limits",
        "clearly kept",
        rate,
    ),
    _(
        "capacity_high",
        "search: lowest rate or concurrency that clearly missed the limits",
        "clearly missed",
        rate,
    ),
    _("capacity_breaks", "search: what breaks first above the capacity", "breaks first"),
    _("capacity_probes", "search: number of runs it took", "probes", whole),
    _("capacity_doubts", "search: codes of our own side at the lowest load above the capacity"),
    _("longest_context_tokens", "check: longest prompt served, including its one token of reply"),
    _("longest_context_s", "check: time it took to serve that prompt"),
    _("longest_context_limit", "check: why nothing longer was served"),
    _("accuracy_reference", "check: case whose answers this row's were compared with"),
    _("accuracy_prompts", "check: held-out prompts answered by both"),
    _("kl_mean_nats", "check: KL divergence of next-token distributions, mean; a lower bound"),
    _("kl_low_nats", "check: KL divergence, lower end of its 95 % interval over prompts"),
    _("kl_high_nats", "check: KL divergence, upper end of its 95 % interval over prompts"),
    _("kl_seen_frac", "check: the reference's probability mass that the divergence covers, mean"),
    _("top1_agreement_frac", "check: share of positions where both rank the same token first"),
    _(
        "top1_agreement_low_frac",
        "check: top-1 agreement, lower end of its 95 % interval over prompts",
    ),
    _(
        "top1_agreement_high_frac",
        "check: top-1 agreement, upper end of its 95 % interval over prompts",
    ),
    _("perplexity", "check: perplexity of the held-out prompts"),
    _("perplexity_delta", "check: perplexity minus the reference's"),
    _(
        "perplexity_delta_low",
        "check: perplexity difference, lower end of its 95 % interval over prompts",
    ),
    _(
        "perplexity_delta_high",
        "check: perplexity difference, upper end of its 95 % interval over prompts",
    ),
    _("exact_match_frac", "check: share of greedy continuations identical to the last token"),
    _(
        "exact_match_low_frac",
        "check: exact matches, lower end of their 95 % interval over prompts",
    ),
    _(
        "exact_match_high_frac",
        "check: exact matches, upper end of their 95 % interval over prompts",
    ),
    _("common_prefix_tokens", "check: tokens until greedy continuations diverge, mean"),
    _(
        "common_prefix_low_tokens",
        "check: common prefix, lower end of its 95 % interval over prompts",
    ),
    _(
        "common_prefix_high_tokens",
        "check: common prefix, upper end of its 95 % interval over prompts",
    ),
    _("task_accuracy_frac", "check: share of correct answers in lm_eval tasks, mean over tasks"),
    _(
        "task_accuracy_stderr_frac",
        "check: standard error of task_accuracy_frac, from lm_eval's for each task",
    ),
    _(
        "task_accuracy_tasks",
        "check: each task's share, standard error, metric and number of questions",
    ),
    _("offline_output_tok_per_s", "check: vLLM's own throughput without a server"),
    _("gpu_util_frac", "share of time with a kernel resident, mean (NVML)", "GPU util %", percent),
    _("sm_activity_frac", "share of multiprocessors with work, mean over time and GPUs (GPM)"),
    _(
        "tensor_activity_frac",
        "share of time with tensor cores active, mean over time and GPUs (GPM)",
    ),
    _("dram_bandwidth_frac", "share of memory bandwidth used, mean over time and GPUs (GPM)"),
    _("nvlink_rx_bytes_per_s", "received over NVLink per GPU, mean over time and GPUs (GPM)"),
    _("nvlink_tx_bytes_per_s", "sent over NVLink per GPU, mean over time and GPUs (GPM)"),
    _("mfu_frac", "model FLOPs utilisation: FLOPs that the tokens need over the GPUs' peak"),
    _(
        "mbu_frac",
        "model bandwidth utilisation: bytes that the steps must read over the GPUs' peak",
    ),
    _(
        "ceiling",
        "peaks used for mfu_frac and mbu_frac: datasheet, or a validation of these GPUs",
    ),
    _("gpu_memory_used_bytes", "memory in use on the fullest GPU, peak", "GPU mem GiB", gibibytes),
    _("gpu_power_w", "mean power, summed over GPUs", "power W", whole),
    _("gpu_energy_j", "energy in the window, summed over GPUs, by their counters"),
    _("j_per_output_token", "energy in the window per output token"),
    _("sm_clock_mean_hz", "SM clock, mean"),
    _("sm_clock_min_hz", "SM clock, minimum"),
    _("temperature_max_c", "GPU temperature, maximum"),
    _("throttled_frac", "share of samples in which a GPU was throttled"),
    _("throttle_reasons", "reasons NVML gave for the clock, each with its share of samples"),
    _(
        "api_server_cpu_frac",
        "CPU use of the busiest API server process, in cores",
        "API CPU",
        cores,
    ),
    _("engine_core_cpu_frac", "CPU use of the busiest engine core process, in cores"),
    _("worker_cpu_frac", "CPU use of the busiest worker process, in cores; ranks busy-wait"),
    _(
        "server_cpu_max_frac",
        "CPU use of the busiest server process, in cores; 1.0 where ranks busy-wait",
    ),
    _("server_cpu_max_role", "role of the busiest server process"),
    _("server_rss_bytes", "resident memory of all server processes together, peak"),
    _("client_transport", "how requests were sent: direct or aiohttp"),
    _("client_workers", "number of load generator processes", shown=whole),
    _("client_cpu_frac", "CPU use of the busiest load generator process, in cores"),
    _("client_loop_lag_p99_s", "how late the load generator's own timers were, 99th percentile"),
    _("client_error_p50_s", "calibration: by how much the client overstates TTFT, median"),
    _("client_error_p99_s", "calibration: by how much the client overstates TTFT, 99th percentile"),
    _(
        "client_clean_chunks_per_s",
        "calibration: highest chunk rate with client_error_p99_s below 5 ms",
    ),
    _("monitor_gap_max_s", "longest time without a GPU or server sample"),
    _("monitor_jitter_p99_s", "how late samples were begun, 99th percentile, of the latest source"),
    _("monitor_missed", "samples that were due but are missing, all sources together", shown=whole),
    _("sim_lag_frac", "how far the simulator fell behind its own clock, as a share of the run"),
)

COUNTS = (
    _("requests_ok", "requests completed in the sample", "requests", whole),
    _("requests_failed", "requests failed in the whole run", "failures", whole),
    _("failure_kinds", "number of failed requests by kind"),
    _("requests_cut", "requests still in flight when the run ended", shown=whole),
    _("failed_frac", "share of failed requests among failed and completed ones, in the sample"),
    _("window_s", "length of the measurement window"),
    _("warmup_s", "time under load before the window opened"),
    _("send_lag_p99_s", "how late requests were written, 99th percentile"),
    _("input_tokens_mean", "prompt tokens as the server counts them, mean"),
    _("output_tokens_mean", "output tokens as the server counts them, mean"),
    _("lengths_off_frac", "share of requests whose token counts differ from what was asked for"),
    _("cached_tokens_frac", "share of prompt tokens that the server reports as cached"),
    _(
        "startup_s",
        "from process start to first token; for an external server, its first token alone",
    ),
    _("validity", "reasons not to believe the row: python -m harness --help validity", "validity"),
)

COLUMNS = (*IDENTITY, *SETTINGS, MEASURES[0], *RELATIONS, *MEASURES[1:], *COUNTS)
_BY_NAME = {column.name: column for column in COLUMNS}


def metric(name: str) -> tuple[str, Format]:
    """What people call a metric, with its display unit, and how its values are shown in that: the
    same in tables, plots, comparisons and answers. Of what has none of its own its name tells.
    """
    title, shown = display_of(name)
    column = _BY_NAME.get(name)
    return (title, shown) if column is None else (column.title or title, column.shown or shown)
