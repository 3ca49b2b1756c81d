"""How many tokens the KV cache should hold, and how many a load asks it to hold: arithmetic.

    capacity = (memory · gpu_memory_utilization − weights) / bytes of a token, on one GPU

It is an upper bound: activations, CUDA graphs and the CUDA context need memory too, which vLLM
measures at start-up. If `num_gpu_blocks_override` asks for fewer, those are all there is. A closed
loop keeps `concurrency` requests in flight, each with its prompt and, on average, half of its
reply:

    demand = concurrency · (input + output / 2) / capacity

Above 1 some of them must wait or be preempted.
"""

from collections.abc import Mapping
from typing import Any

from harness.sim.decoder import Decoder
from harness.utilisation import formats_of

DEFAULT_UTILIZATION = 0.92  # vLLM 0.25.1: vllm/config/cache.py, gpu_memory_utilization
DEFAULT_BLOCK_TOKENS = 16  # the same file, DEFAULT_BLOCK_SIZE


def expected_tokens(
    decoder: Decoder | None,
    engine: Mapping[str, Any],
    ranks: int,
    memory_bytes: int | None,
) -> int | None:
    """Tokens that should fit, over all replicas; None if shape, types or memory are unknown.

    `ranks` is the number of GPUs that share each layer, `memory_bytes` the memory of one GPU.
    """
    formats = formats_of(engine, decoder) if decoder else None
    if decoder is None or formats is None or memory_bytes is None:
        return None
    embeddings = 1 if decoder.tie_word_embeddings else 2
    weights = (
        decoder.layer_parameters * formats.layer_bytes
        + embeddings * decoder.head_parameters * formats.head_bytes
    ) / ranks
    utilization = engine.get("gpu_memory_utilization") or DEFAULT_UTILIZATION
    left = memory_bytes * utilization - weights
    each = decoder.kv_bytes_per_token(ranks, 1) * formats.kv_bytes
    replicas = (engine.get("data_parallel_size") or 1) * (engine.get("replicas") or 1)
    fitting = max(0, int(left / each))
    blocks = (engine.get("extra") or {}).get("num_gpu_blocks_override")
    if blocks is not None:
        fitting = min(fitting, blocks * (engine.get("block_size") or DEFAULT_BLOCK_TOKENS))
    return fitting * replicas


def demand_frac(row: Mapping[str, Any]) -> float | None:
    """The share of the KV cache that a closed loop wants at once, by the lengths measured."""
    concurrency, capacity = row.get("concurrency"), row.get("kv_cache_tokens")
    prompt, reply = row.get("input_tokens_mean"), row.get("output_tokens_mean")
    if not concurrency or not capacity or prompt is None or reply is None:
        return None
    return float(concurrency * (prompt + reply / 2) / capacity)
