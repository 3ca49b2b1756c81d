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
    _("point", "id of the point: a hash of everything that it depends on"),
    _("launch", "folder of the launch below launches/"),
    _("setting", "id of the engine setting: the same in all of its launches"),
    _("load", "id of the load: the same at every engine setting"),
    _("load_kind", "the same at every concurrency and rate, too"),
    _("case", "which of the sweep's cases"),
    _("launch_repeat", "which start of this engine setting, from 1"),
    _("run_repeat", "which measurement of the point in its launch, from 1"),
    _("engine", "vllm, sim or external"),
    _("simulated", "true: no hardware was measured"),
    _("model", "name of the model"),
    _("vllm_version", "version of the server"),
    _("gpus", "the GPUs that served, or that were imitated"),
    _("num_gpus", "how many they are", shown=whole),
    _("status", "ok or failed"),
    _("failure", "kind of the failure, if any"),
    _("stopped", "why the run was ended before its window was over, if it was"),
)

SETTINGS = (
    _("max_num_seqs", "requests in one step, at most", "max_num_seqs", whole),
    _("max_num_batched_tokens", "tokens in one step, at most", "max_num_batched_tokens", whole),
    _("tensor_parallel_size", "GPUs that share each layer", shown=whole),
    _("arrival", "how requests come: closed, constant, poisson, gamma, ramp or trace"),
    _("data_parallel_size", "engines behind one API, each with the whole model"),
    _("replicas", "servers that shared the load; numbers are of all together"),
    _("concurrency", "closed loop: requests kept in flight", "concurrency", whole),
    _("rate_rps", "open loop: requests a second asked for", "rate req/s", rate),
    _("rate_frac", "open loop: the same as a share of the capacity that closed loops found"),
)

RELATIONS = (
    _(
        "gain_frac",
        "output_tok_per_s over that of the row before, minus 1; in one case, along its last axis",
        "gain %",
        percent,
    ),
    _("speedup", "output_tok_per_s over that of the first engine setting at the same load"),
    _("gpu_efficiency_frac", "the same for the tokens of one GPU"),
    _("concurrency_efficiency_frac", "tokens of a stream over those at the lowest concurrency"),
    _("online_frac", "output_tok_per_s over vLLM's own without a server"),
    _("knee", "the lowest concurrency that gives 90 % of the best; at one, of an engine's axis"),
)

MEASURES = (
    _("output_tok_per_s", "output tokens a second in the window", "output tok/s", whole),
    _("drift_frac", "output tokens in the second half of the window over the first, minus 1"),
    _("chunks_per_s", "content chunks a second in the window"),
    _("total_tok_per_s", "input and output tokens a second in the window"),
    _("output_tok_per_s_run", "output tokens a second over the whole run, warm-up included"),
    _("requests_per_s", "requests completed a second in the window"),
    _("ttft_mean_s", "time to first token: first content chunk minus write of the request"),
    _("ttft_p50_s", "its median", "TTFT p50 ms", milliseconds),
    _("ttft_p90_s", "its 90th percentile"),
    _("ttft_p99_s", "its 99th percentile", "TTFT p99 ms", milliseconds),
    _("ttft_sched_p50_s", "first content chunk minus scheduled time: what a user waits"),
    _("ttft_sched_p99_s", "its 99th percentile"),
    _("tpot_mean_s", "time per output token: (last - first content chunk) / (tokens - 1)"),
    _("tpot_p50_s", "its median", "TPOT p50 ms", milliseconds),
    _("tpot_p90_s", "its 90th percentile"),
    _("tpot_p99_s", "its 99th percentile", "TPOT p99 ms", milliseconds),
    _("itl_p50_s", "gaps between chunks, pooled: median"),
    _("itl_p99_s", "gaps between chunks, pooled: 99th percentile"),
    _("e2e_p50_s", "last content chunk minus write of the request: median"),
    _("e2e_p99_s", "its 99th percentile"),
    _("tokens_per_chunk", "output tokens over content chunks; above 1 the server bundles tokens"),
    _("kv_cache_usage_peak_frac", "KV cache in use, peak", "KV peak %", percent),
    _("kv_cache_usage_mean_frac", "KV cache in use, mean"),
    _("kv_cache_tokens", "KV cache size in tokens"),
    _(
        "kv_cache_expected_tokens",
        "the same by arithmetic: what weights leave of the memory, or fewer where they are set",
    ),
    _(
        "kv_demand_frac",
        "tokens that the load keeps in flight, over the KV cache: above 1 it waits",
    ),
    _("preemptions", "requests put back for lack of KV blocks", "preemptions", whole),
    _("prefix_cache_hit_frac", "prompt tokens found in the prefix cache"),
    _("requests_running_mean", "requests in a step, mean of the server's own gauge"),
    _("requests_waiting_mean", "requests waiting in the server, mean"),
    _("requests_waiting_frac", "share of samples in which a request waited in the server"),
    _("server_steps_per_s", "engine steps a second that gave tokens, by the server's count"),
    _("server_ttft_mean_s", "time to first token by the server's own clock, mean"),
    _("server_ttft_p50_s", "its median, estimated inside a bucket of the server's histogram"),
    _("server_ttft_p99_s", "its 99th percentile, estimated the same way"),
    _("server_queue_mean_s", "of it and by the server: waiting for a place in a step, mean"),
    _("server_prefill_mean_s", "by the server: from the first step to the first token, mean"),
    _("server_decode_mean_s", "by the server: from the first token to the last, mean"),
    _("goodput_rps", "requests a second that kept the limits of slo"),
    _("slo_met_frac", "share of requests that kept them, failed ones included"),
    _("slo_verdict", "search: whether this run met the limits, missed them, or left it unresolved"),
    _("slo_met_low_frac", "the 90 % interval of slo_met_frac, from"),
    _("slo_met_high_frac", "to; wider where requests break limits together"),
    _("backlog_rps", "search: requests in flight grew by so many a second, where they did"),
    _("at_capacity", "search: this run is the one at the capacity that was found"),
    _(
        "capacity_rps",
        "search: the largest rate that kept the limits of slo",
        "capacity req/s",
        rate,
    ),
    _("capacity_concurrency", "search: the largest concurrency that kept them", "capacity", whole),
    _(
        "capacity_low",
        "the largest rate, or concurrency, that clearly kept them",
        "clearly kept",
        rate,
    ),
    _("capacity_high", "the smallest that clearly missed them", "clearly missed", rate),
    _("capacity_breaks", "what breaks first above the capacity", "breaks first"),
    _("capacity_probes", "runs that the search took", "probes", whole),
    _("longest_context_tokens", "check: the longest prompt with its reply that was served"),
    _("longest_context_s", "check: how long that took to its one token"),
    _("longest_context_limit", "check: why nothing longer was served"),
    _("accuracy_reference", "check: the case whose answers these were compared with"),
    _("accuracy_prompts", "check: held-out prompts that both answered"),
    _("kl_mean_nats", "check: divergence of next-token distributions, mean; a lower bound"),
    _("kl_low_nats", "its 95 % interval over prompts, from"),
    _("kl_high_nats", "to"),
    _("kl_seen_frac", "the reference's probability that this divergence has seen, mean"),
    _("top1_agreement_frac", "check: positions at which both find the same token likeliest"),
    _("top1_agreement_low_frac", "its 95 % interval over prompts, from"),
    _("top1_agreement_high_frac", "to"),
    _("perplexity", "check: of the held-out prompts"),
    _("perplexity_delta", "check: that minus the reference's"),
    _("perplexity_delta_low", "its 95 % interval over prompts, from"),
    _("perplexity_delta_high", "to"),
    _("exact_match_frac", "check: greedy continuations that are alike to the last token"),
    _("exact_match_low_frac", "its 95 % interval over prompts, from"),
    _("exact_match_high_frac", "to"),
    _("common_prefix_tokens", "check: tokens until greedy continuations part, mean"),
    _("common_prefix_low_tokens", "its 95 % interval over prompts, from"),
    _("common_prefix_high_tokens", "to"),
    _("task_accuracy_frac", "check: right answers to the tasks of lm_eval, mean over tasks"),
    _("task_accuracy_stderr_frac", "its standard error, as lm_eval has it for each task"),
    _("task_accuracy_tasks", "check: each task's share, standard error, metric and questions"),
    _("offline_output_tok_per_s", "check: vLLM's own throughput without a server"),
    _("gpu_util_frac", "share of time with a kernel resident (NVML), mean", "GPU util %", percent),
    _("sm_activity_frac", "share of multiprocessors with work, mean over time and GPUs (GPM)"),
    _("tensor_activity_frac", "share of time in which tensor cores computed, mean (GPM)"),
    _("dram_bandwidth_frac", "share of the memory's bandwidth that was used, mean (GPM)"),
    _("nvlink_rx_bytes_per_s", "received over NVLink by one GPU, mean over time and GPUs (GPM)"),
    _("nvlink_tx_bytes_per_s", "sent over NVLink by one GPU, mean over time and GPUs (GPM)"),
    _("mfu_frac", "FLOPs that the tokens need, over what the GPUs can do"),
    _("mbu_frac", "bytes that the steps must read, over what the GPUs can read"),
    _(
        "ceiling",
        "what these two are shares of: the datasheet's peaks, or a validation of these GPUs",
    ),
    _("gpu_memory_used_bytes", "memory used, fullest GPU", "GPU mem GiB", gibibytes),
    _("gpu_power_w", "power, sum over GPUs of the mean", "power W", whole),
    _("gpu_energy_j", "energy in the window, sum over GPUs, by their counters"),
    _("j_per_output_token", "that energy over the output tokens of the window"),
    _("sm_clock_mean_hz", "SM clock, mean"),
    _("sm_clock_min_hz", "SM clock, lowest"),
    _("temperature_max_c", "GPU temperature, highest"),
    _("throttled_frac", "share of samples in which a GPU was slowed down"),
    _("throttle_reasons", "why its clock was what it was: reasons seen, share of samples each"),
    _("api_server_cpu_frac", "CPU of the busiest API server process, cores", "API CPU", cores),
    _("engine_core_cpu_frac", "CPU of the busiest engine core process, cores"),
    _("worker_cpu_frac", "CPU of the busiest worker process, cores; ranks wait by spinning"),
    _("server_cpu_max_frac", "CPU of the busiest server process; ranks wait by spinning, so 1.0"),
    _("server_cpu_max_role", "which process that is"),
    _("server_rss_bytes", "memory of the server's processes, peak"),
    _("client_transport", "how requests were sent: direct or aiohttp"),
    _("client_workers", "processes of our load generator", shown=whole),
    _("client_cpu_frac", "CPU of the busiest of them, cores"),
    _("client_loop_lag_p99_s", "how late the load generator's own timers were, 99th percentile"),
    _("client_error_p50_s", "calibrated before the study: TTFT too high by, median"),
    _("client_error_p99_s", "calibrated before the study: TTFT too high by, 99th percentile"),
    _("client_clean_chunks_per_s", "calibrated: the rate up to which that is below 5 ms"),
    _("monitor_gap_max_s", "longest time without a GPU or server sample"),
    _("monitor_jitter_p99_s", "how late samples were begun, 99th percentile, the latest source"),
    _("monitor_missed", "samples that were due and are not there, all sources", shown=whole),
    _("sim_lag_frac", "share of the run that the simulator was behind its own clock"),
)

COUNTS = (
    _("requests_ok", "requests that completed inside the sample", "requests", whole),
    _("requests_failed", "requests that failed, of the whole run", "failures", whole),
    _("failure_kinds", "how many failed in which way"),
    _("requests_cut", "requests still in flight when the run was over", shown=whole),
    _("failed_frac", "failed over failed and completed requests, of the sample"),
    _("window_s", "length of the measured window"),
    _("warmup_s", "how long the load ran before the window opened"),
    _("send_lag_p99_s", "how late requests were written, 99th percentile"),
    _("input_tokens_mean", "prompt length by the server's count, mean"),
    _("output_tokens_mean", "output length by the server's count, mean"),
    _("lengths_off_frac", "requests whose lengths came back different from those asked"),
    _("cached_tokens_frac", "prompt tokens that the server says it had cached"),
    _("startup_s", "from process start to the first token; of an external server: its first token"),
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
