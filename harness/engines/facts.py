"""What a server says about itself, in its log and on its pages. Pure functions of their text.

Written for the logs and pages of vLLM 0.25 (CUDA, tensor parallel) and 0.32 (CPU).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# The pages that are read; /server_info needs VLLM_SERVER_DEV_MODE=1.
METRICS = "/metrics"
MODELS = "/v1/models"
VERSION = "/version"
SERVER_INFO = "/server_info?config_format=json"
PAGES = (METRICS, MODELS, VERSION, SERVER_INFO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """How the server resolved its settings. None: it does not say."""

    vllm_version: str | None = None
    kv_cache_tokens: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    resolved: dict[str, str] = field(default_factory=dict)


# A phase ends with the last line that matches (with several workers, the slowest one's). A phase
# that a server does not have (no graphs on a CPU) logs no line, and takes no time.
_PHASE_ENDS = {
    "imports": re.compile(r"non-default args: "),
    "engine_core": re.compile(r"Initializing a V1 LLM engine"),
    "workers": re.compile(r"Loading model from scratch|Starting to load model"),
    "weights": re.compile(r"Model loading took|Loading weights took|Initializing model took"),
    "compile": re.compile(r"torch\.compile took|Initial profiling/warmup run took"),
    "kv_cache": re.compile(r"KV cache size: "),
    "cuda_graphs": re.compile(r"Graph capturing finished"),
    "warmup": re.compile(r"init engine \(.*\) took"),
    "serving": re.compile(r"Application startup complete"),
}
FIRST_TOKEN = "first_token"

_VERSION = re.compile(r"V1 LLM engine \(v([^)]+)\)")

# Resolved settings in the log; the last line that matches counts.
_RESOLVED = {
    "attention_backend": re.compile(r"Using (\w+) attention backend"),
    "flash_attention": re.compile(r"Using FlashAttention version (\d+)"),
    "all_reduce": re.compile(r"Using \[([^\]]*)\] all-reduce backends"),
    "nccl": re.compile(r"using nccl==([\d.]+)"),
    "dtype": re.compile(r"with config: .*?\bdtype=torch\.(\w+)"),
    "kv_cache_dtype": re.compile(r"with config: .*?\bkv_cache_dtype=([\w.]+)"),
    "quantization": re.compile(r"with config: .*?\bquantization=(\w+)"),
    "tensor_parallel_size": re.compile(r"with config: .*?\btensor_parallel_size=(\d+)"),
    "data_parallel_size": re.compile(r"with config: .*?\bdata_parallel_size=(\d+)"),
    "enforce_eager": re.compile(r"with config: .*?\benforce_eager=(\w+)"),
    "enable_prefix_caching": re.compile(r"with config: .*?\benable_prefix_caching=(\w+)"),
    "enable_chunked_prefill": re.compile(r"with config: .*?\benable_chunked_prefill=(\w+)"),
    "cudagraph_mode": re.compile(r"'cudagraph_mode': <CUDAGraphMode\.(\w+)"),
    "async_scheduling": re.compile(r"Asynchronous scheduling is (\w+)"),
    "simulated": re.compile(r"SIMULATOR imitates (.+)"),
}


def facts_of(log_text: str, pages: Mapping[str, str]) -> Facts:
    """The server's facts; pages win over log lines, being made to be parsed.

    `pages` maps a path to its text, empty if there is none.
    """
    scheduler = _vllm_config(pages).get("scheduler_config", {})
    models = _json(pages.get(MODELS, "")).get("data") or [{}]
    version = _json(pages.get(VERSION, "")).get("version")
    resolved = {name: found for name, at in _RESOLVED.items() if (found := _last(at, log_text))}
    if block_size := _label(pages.get(METRICS, ""), "block_size"):
        resolved["block_size"] = block_size[0]
    return Facts(
        vllm_version=None if "simulated" in resolved else version or _last(_VERSION, log_text),
        kv_cache_tokens=_kv_cache_tokens(log_text, pages.get(METRICS, "")),
        max_num_seqs=scheduler.get("max_num_seqs") or _argument("max_num_seqs", log_text),
        max_num_batched_tokens=scheduler.get("max_num_batched_tokens")
        or _integer(re.compile(r"\bmax_num_batched_tokens=(\d+)"), log_text)
        or _argument("max_num_batched_tokens", log_text),
        max_model_len=models[0].get("max_model_len")
        or _integer(re.compile(r"Using max model len (\d+)"), log_text),
        resolved=resolved,
    )


def phases(
    lines: Iterable[tuple[float, str]], started_at_s: float, up_at_s: float, token_at_s: float
) -> dict[str, float]:
    """Seconds of each phase of a start, in order; they add up to the whole start.

    `lines` are (when, text). `up_at_s` is when /health first said 200, `token_at_s` when the first
    token came.
    """
    ends: dict[str, float] = {}
    for at_s, line in lines:
        for name, pattern in _PHASE_ENDS.items():
            if at_s <= up_at_s and pattern.search(line):
                ends[name] = at_s
    ends["serving"] = up_at_s
    ends[FIRST_TOKEN] = token_at_s
    durations: dict[str, float] = {}
    previous_s = started_at_s
    for name in (*_PHASE_ENDS, FIRST_TOKEN):
        if name in ends:
            end_s = max(previous_s, ends[name])
            durations[name] = end_s - previous_s
            previous_s = end_s
    return durations


def phase_after(line: str) -> str | None:
    """The phase that begins at this log line, which ends the one before; else None."""
    names = [*_PHASE_ENDS, FIRST_TOKEN]
    for index, pattern in enumerate(_PHASE_ENDS.values()):
        if pattern.search(line):
            return names[index + 1]
    return None


def first_phase() -> str:
    """The first phase of a start."""
    return next(iter(_PHASE_ENDS))


def total(metrics_page: str, metric: str) -> float | None:
    """The sum of a metric over its labels; None if the page lacks it."""
    found = re.findall(rf"^{re.escape(metric)}(?:\{{.*\}})? (\S+)$", metrics_page, re.MULTILINE)
    return sum(map(float, found)) if found else None


def _kv_cache_tokens(log_text: str, metrics_page: str) -> int | None:
    """The KV cache of all data parallel engines together; each has its own.

    vLLM's page has one line per engine. On it, `kv_cache_size_tokens` is that engine's, but
    `num_gpu_blocks` is the sum over all (0.25.1, v1/engine/core_client.py, _apply_ready_response).
    """
    if sizes := [int(x) for x in _label(metrics_page, "kv_cache_size_tokens") if x.isdigit()]:
        return sum(sizes)
    blocks = _label(metrics_page, "num_gpu_blocks")
    sizes = [
        int(number) * int(size)
        for number, size in zip(blocks, _label(metrics_page, "block_size"), strict=False)
        if number.isdigit() and size.isdigit()
    ]
    from_log = _integer(re.compile(r"KV cache size: ([\d,]+) tokens"), log_text)
    return max(sizes, default=0) or from_log


def _label(metrics_page: str, label: str) -> list[str]:
    """A label of `vllm:cache_config_info`, one value per engine."""
    lines = re.findall(r"^vllm:cache_config_info\{(.*)\}", metrics_page, re.MULTILINE)
    return [found[1] for line in lines if (found := re.search(rf'\b{label}="([^"]*)"', line))]


def _vllm_config(pages: Mapping[str, str]) -> dict[str, Any]:
    config = _json(pages.get(SERVER_INFO, "")).get("vllm_config", {})
    return config if isinstance(config, dict) else {}


def _argument(name: str, log_text: str) -> int | None:
    """A setting from the log line that lists the arguments given."""
    return _integer(re.compile(rf"non-default args: .*'{name}': (\d+)"), log_text)


def _integer(pattern: re.Pattern[str], log_text: str) -> int | None:
    found = _last(pattern, log_text)
    return int(found.replace(",", "")) if found else None


def _last(pattern: re.Pattern[str], log_text: str) -> str | None:
    found: Sequence[str] = pattern.findall(log_text)
    return found[-1] if found else None


def _json(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
