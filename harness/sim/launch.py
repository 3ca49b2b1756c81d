"""From options to an engine: what vLLM computes, logs and refuses when it starts."""

import logging
import time
from dataclasses import dataclass
from typing import NoReturn

from harness.sim.decoder import BYTES_OF, read_decoder
from harness.sim.engine import Engine
from harness.sim.gpus import GIB
from harness.sim.metrics import Metrics
from harness.sim.options import Options, default_max_num_batched_tokens
from harness.sim.roofline import RESERVE_BYTES, Roofline, captured_tokens
from harness.sim.scheduler import Scheduler

log = logging.getLogger(__name__)


class StartError(Exception):
    """The server cannot start; the message is what vLLM's last log lines would say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    engine: Engine
    max_model_len: int
    vocab_size: int


def build(options: Options) -> Launch:
    """The engine for these options. Raises StartError."""
    roofline = _roofline(options)
    decoder = roofline.decoder
    max_model_len = options.max_model_len or decoder.max_position_embeddings
    if max_model_len > decoder.max_position_embeddings:
        _refuse(
            f"User-specified max_model_len ({max_model_len}) is greater than the derived "
            f"max_model_len (max_position_embeddings={decoder.max_position_embeddings})."
        )
    log.info("Using max model len %d", max_model_len)
    max_num_batched_tokens = _max_num_batched_tokens(options, max_model_len)
    num_blocks = _num_blocks(options, roofline, max_model_len)
    metrics = Metrics(options.served_model_name)
    metrics.cache_config(
        block_size=options.block_size,
        cache_dtype=options.kv_cache_dtype,
        enable_prefix_caching=options.enable_prefix_caching,
        gpu_memory_utilization=options.gpu_memory_utilization,
        kv_cache_size_tokens=num_blocks * options.block_size,
        num_gpu_blocks=num_blocks,
    )
    scheduler = Scheduler(
        num_blocks=num_blocks,
        block_size=options.block_size,
        max_num_seqs=min(options.max_num_seqs, max_num_batched_tokens),
        max_num_batched_tokens=max_num_batched_tokens,
        prefix_caching=options.enable_prefix_caching,
        chunked_prefill=options.enable_chunked_prefill,
    )
    engine = Engine(
        scheduler=scheduler,
        roofline=roofline,
        metrics=metrics,
        fault=options.fault,
        clock=time.perf_counter,
    )
    return Launch(engine=engine, max_model_len=max_model_len, vocab_size=decoder.vocab_size)


def _roofline(options: Options) -> Roofline:
    try:
        decoder = read_decoder(options.model)
    except (OSError, ValueError) as error:
        raise StartError(f"{type(error).__name__}: {error}") from None
    ranks = options.tensor_parallel_size
    if decoder.num_attention_heads % ranks:
        _refuse(
            f"Total number of attention heads ({decoder.num_attention_heads}) must be divisible "
            f"by tensor parallel size ({ranks})."
        )
    dtype = decoder.dtype if options.dtype == "auto" else options.dtype
    if dtype not in BYTES_OF:
        _refuse(f"Unknown dtype: {dtype!r}")
    value_bytes = BYTES_OF[dtype]
    return Roofline(
        decoder=decoder,
        gpu=options.gpu,
        tensor_parallel_size=ranks,
        weight_value_bytes=value_bytes,
        kv_value_bytes=1 if options.kv_cache_dtype.startswith("fp8") else value_bytes,
        graph_tokens=0 if options.enforce_eager else captured_tokens(options.max_num_seqs),
        async_scheduling=options.async_scheduling,
        api_server_count=options.api_server_count,
        cpu_slowdown=options.cpu_slowdown,
    )


def _max_num_batched_tokens(options: Options, max_model_len: int) -> int:
    tokens = options.max_num_batched_tokens
    if tokens is None:
        tokens = default_max_num_batched_tokens(options.gpu)
        if not options.enable_chunked_prefill:
            tokens = max(tokens, max_model_len)
        tokens = min(tokens, options.max_num_seqs * max_model_len)
    elif not options.enable_chunked_prefill and tokens < max_model_len:
        _refuse(
            f"max_num_batched_tokens ({tokens}) is smaller than max_model_len ({max_model_len}). "
            "This effectively limits the maximum sequence length to max_num_batched_tokens and "
            "makes vLLM reject longer sequences. Please increase max_num_batched_tokens or "
            "decrease max_model_len."
        )
    if tokens < options.max_num_seqs and "max_num_seqs" in options.non_default:
        _refuse(
            f"max_num_batched_tokens ({tokens}) must be greater than or equal to max_num_seqs "
            f"({options.max_num_seqs})."
        )
    if options.enable_chunked_prefill:
        log.info("Chunked prefill is enabled with max_num_batched_tokens=%d.", tokens)
    if options.async_scheduling:
        log.info("Asynchronous scheduling is enabled.")
    return tokens


def _num_blocks(options: Options, roofline: Roofline, max_model_len: int) -> int:
    weights, memory = roofline.weight_bytes, roofline.gpu.memory_bytes
    if weights + RESERVE_BYTES > memory:
        raise StartError(
            f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {weights / GIB:.2f} "
            f"GiB. GPU 0 has a total capacity of {memory / GIB:.2f} GiB of which "
            f"{(memory - RESERVE_BYTES) / GIB:.2f} GiB is free."
        )
    log.info("Model loading took %.1f GiB and 0.000000 seconds", weights / GIB)
    available = roofline.kv_cache_bytes(options.gpu_memory_utilization)
    log.info("Available KV cache memory: %.2f GiB", available / GIB)
    if available <= 0:
        _refuse(
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` "
            "when initializing the engine."
        )
    block_bytes = options.block_size * roofline.kv_bytes_per_token
    num_blocks = available // block_bytes
    if options.num_gpu_blocks_override is not None:
        log.info(
            "Overriding num_gpu_blocks=%d with num_gpu_blocks_override=%d",
            num_blocks,
            options.num_gpu_blocks_override,
        )
        num_blocks = options.num_gpu_blocks_override
        available = num_blocks * block_bytes
    num_tokens = num_blocks * options.block_size
    needed = -(-max_model_len // options.block_size) * block_bytes
    if needed > available:
        _refuse(
            "To serve at least one request with the models's max seq len "
            f"({max_model_len}), ({needed / GIB:.2f} GiB KV cache is needed, which is larger than "
            f"the available KV cache memory ({available / GIB:.2f} GiB). Based on the available "
            f"memory, the estimated maximum model length is {num_tokens}. Try increasing "
            "`gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine."
        )
    log.info("GPU KV cache size: %s tokens", f"{num_tokens:,}")
    log.info(
        "Maximum concurrency for %s tokens per request: %.2fx",
        f"{max_model_len:,}",
        num_tokens / max_model_len,
    )
    return num_blocks


def _refuse(message: str) -> NoReturn:
    raise StartError(f"ValueError: {message}")
