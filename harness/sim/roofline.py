"""How long a step takes: a roofline of the GPU, and what the CPU adds.

    gpu_s  = max(flops / (tp · peak · COMPUTE_EFFICIENCY), bytes / (bandwidth · MEMORY_EFFICIENCY))
             + layers · kernel floor + 2 · layers · all-reduce
    cpu_s  = CPU_STEP_S + sequences · CPU_SEQUENCE_S
    step_s = max(gpu_s, cpu_s)   with asynchronous scheduling: the next step is planned meanwhile
             gpu_s + cpu_s       without

    flops = 2 · tokens · layer parameters + 2 · sequences · head parameters
            + 4 · attention pairs · query heads · head dimension · layers
    bytes (of one GPU) = weights / tp, once a step, + keys and values of all tokens in context
    all-reduce = latency · log2(tp) + 2 · (tp − 1) / tp · tokens · hidden size · value / link

After the step the API server turns its tokens into chunks, one after another, at API_CHUNK_S each
(divided by the number of API servers). It runs beside the engine: its backlog delays chunks, not
steps. Below capacity that is nothing; above, it is where requests wait.

The constants were fitted by hand to vLLM 0.25.1 on 2× H200, Qwen2.5-1.5B, 512 tokens in and 128
out, closed loop, one or two runs each; `tests/harness/sim/test_calibration.py` prints what is
simulated. Measured / simulated:

    streams  API servers  output tok/s             TPOT p50, ms     TTFT p50, s
          1            1     425        /    453     2.2     / 2.2        -      / 0.003
         32            1   9 097        / 12 320     2.7     / 2.6        -      / 0.006
        256            1  13 505        / 14 711    14.2     / 11         -      / 0.90
       1024            1  13 356-15 087 / 14 962   27-29     / 41    3.7-5.2     / 3.2
       1024            4  27 939-31 615 / 32 762   27-31     / 31    0.26-0.46   / 0.06
    KV cache: 9 410 704 / 9 411 088 tokens

So throughput is 5 to 35 % too high, and time to first token far too short while the API server is
not saturated: vLLM's way of a request to the engine and back is modelled as next to nothing. With
one API server at 1024 streams the sum of both waits is right, their division is not. Other models,
other GPUs, eager mode, synchronous scheduling and FP8 were not calibrated at all.
"""

import math
from dataclasses import dataclass

from harness.sim.decoder import Decoder
from harness.sim.gpus import GIB, Gpu

COMPUTE_EFFICIENCY = 0.5
MEMORY_EFFICIENCY = 0.8
KERNEL_FLOOR_S = 52e-6  # one layer's kernels, replayed from a CUDA graph, when they have no work
EAGER_KERNEL_FLOOR_S = 200e-6  # and launched one by one (not calibrated: no measurement yet)
CPU_STEP_S = 0.5e-3
CPU_SEQUENCE_S = 30e-6
API_CHUNK_S = 52e-6
API_REQUEST_S = 2e-3

# CUDA context, NCCL, activations and graphs: what vLLM leaves of gpu_memory_utilization beside
# weights and cache. From vLLM 0.25.1 on 2× H200: 0.92 · 150.75 GB − 1.54 GB − 134.91 GB.
RESERVE_BYTES = int(2.08 * GIB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one step computes."""

    tokens: int
    sequences: int
    context_tokens: int
    """Sum over sequences: tokens whose keys and values are read."""
    attention_pairs: int
    """Sum over new tokens: tokens that each one looks at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    decoder: Decoder
    gpu: Gpu
    tensor_parallel_size: int
    weight_value_bytes: int
    kv_value_bytes: int
    eager: bool
    async_scheduling: bool
    api_server_count: int

    @property
    def weight_bytes(self) -> int:
        """Of one GPU."""
        return self.decoder.parameters * self.weight_value_bytes // self.tensor_parallel_size

    @property
    def kv_bytes_per_token(self) -> int:
        """Of one GPU."""
        return self.decoder.kv_bytes_per_token(self.tensor_parallel_size, self.kv_value_bytes)

    def kv_cache_bytes(self, gpu_memory_utilization: float) -> int:
        """Of one GPU; below zero when the weights do not fit."""
        memory = int(self.gpu.memory_bytes * gpu_memory_utilization)
        return memory - self.weight_bytes - RESERVE_BYTES

    def step_s(self, work: Work) -> float:
        gpu_s = max(self._compute_s(work), self._memory_s(work)) + self._floor_s(work)
        cpu_s = CPU_STEP_S + work.sequences * CPU_SEQUENCE_S
        return max(gpu_s, cpu_s) if self.async_scheduling else gpu_s + cpu_s

    def api_s(self, *, chunks: int = 0, requests: int = 0) -> float:
        """Time of the API servers for these chunks and new requests."""
        return (chunks * API_CHUNK_S + requests * API_REQUEST_S) / self.api_server_count

    def _compute_s(self, work: Work) -> float:
        model = self.decoder
        pair_width = model.num_attention_heads * model.head_dim * model.num_hidden_layers
        flops = (
            2 * work.tokens * model.layer_parameters
            + 2 * work.sequences * model.head_parameters
            + 4 * work.attention_pairs * pair_width
        )
        return flops / (self.tensor_parallel_size * self.gpu.flops_per_s * COMPUTE_EFFICIENCY)

    def _memory_s(self, work: Work) -> float:
        parameters = self.decoder.layer_parameters + self.decoder.head_parameters
        weights = parameters * self.weight_value_bytes / self.tensor_parallel_size
        cache = work.context_tokens * self.kv_bytes_per_token
        return (weights + cache) / (self.gpu.memory_bytes_per_s * MEMORY_EFFICIENCY)

    def _floor_s(self, work: Work) -> float:
        layers = self.decoder.num_hidden_layers
        kernels_s = EAGER_KERNEL_FLOOR_S if self.eager else KERNEL_FLOOR_S
        ranks = self.tensor_parallel_size
        if ranks == 1:
            return layers * kernels_s
        message_bytes = work.tokens * self.decoder.hidden_size * self.weight_value_bytes
        all_reduce_s = (
            self.gpu.link_latency_s * math.log2(ranks)
            + 2 * (ranks - 1) / ranks * message_bytes / self.gpu.link_bytes_per_s
        )
        return layers * (kernels_s + 2 * all_reduce_s)
