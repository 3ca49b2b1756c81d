"""How long a step takes: rooflines of the GPU, and what the CPU adds.

    gpu_s     = matrices: max(flops / (tp · peak · COMPUTE_EFFICIENCY),
                              weight bytes / (bandwidth · MEMORY_EFFICIENCY))
                + attention: the same of its flops, and of the keys and values of all in context
                + layers · KERNEL_FLOOR_S + 2 · layers · all-reduce
    prepare_s = CPU_STEP_S + slowdown · sequences · CPU_SEQUENCE_S
    launch_s  = slowdown · layers · LAUNCH_LAYER_S   when tokens exceed the largest CUDA graph,
                slowdown · layers · PIECE_LAYER_S    when a prompt is in the step, else 0
    step_s    = max(gpu_s, prepare_s + launch_s)   with asynchronous scheduling
                prepare_s + max(gpu_s, launch_s)   without, and for a step after an idle engine

    flops = 2 · tokens · layer parameters + 2 · sequences · head parameters       (matrices)
            4 · attention pairs · query heads · head dimension · layers           (attention)
    all-reduce = latency · log2(tp) + 2 · (tp − 1) / tp · tokens · hidden size · value / link

Before and after the engine comes the API server (`api_server.py`): API_REQUEST_S a request,
API_CHUNK_S a chunk and API_SLICE_S a slice of a step's outputs, all times the slowdown.

What the constants rest on: vLLM 0.25.1 on 2× H200, Qwen2.5-1.5B's shape, TP 2 unless it says
otherwise, 512 tokens in, uniform 64 to 192 out (`results/reference/2xh200`).

- The GPU's: `validation`, and busy times of rank 0 in two nsys traces (`batching_traced`, 16 and
  256 sequences): decode steps 1.8 ms (16 sequences) and 3.3 (255), mixed steps 3.5 (527 tokens)
  and 6.7 (1,277).
- The engine's CPU: step times of the same traces (decode 2.0 and 4.9 ms; mixed 12.2 and 13.7, the
  profiler's own cost included), times between tokens of `baseline` up to 64 streams, and the step
  time of 1,000 sequences (`frontend`, four API servers). Inside a graph a step with prompts still
  launches its attention layer by layer: the case `graphs` of `perf_story`, one of two with graphs.
- The API server's: least squares of its CPU share over steps, chunks and requests a second, where
  it is not saturated (`baseline`, `stream_interval_8`, 16 sequences), which leaves 10 % at most.
  Its way of taking turns, API_LATENCY_S and the slowdown were chosen among some 40 variants by the
  errors on the points that `benchmarks/simulator_error.py` marks with a star.
- The slowdown is the host's: the same configuration lies up to 79 % apart between studies. 1 is a
  host without other work. 1.35 is what fits `parallel` (one server), `graphs` and
  `regression/eager`, on hosts whose other cards were at work: their API servers needed 1.2 to 1.7
  times the CPU for the same chunks and requests, and a step of 64 without graphs took 12.4 ms
  where the constants say 10.7. With one stream those hosts were as fast, hence not CPU_STEP_S.

|Error| against the measured points, each played as it was run, the busy hosts at 1.35; and how far
several studies' measurements of one configuration and load lie apart:

    points                    output tok/s         TTFT p50             TPOT p50
                              median, worst        median, worst        median, worst
    32 used for the fit           4 %, 25 %             9 %, 130 %           5 %, 74 %
    51 others                    11 %, 30 %            18 %, 148 %          11 %, 35 %
    51 others, slowdown 1        11 %, 54 %            31 %, 71 %           10 %, 37 %
    measured, 26 pairs            5 %, 25 %            17 %, 79 %            3 %, 19 %

So a slower CPU halves the error in TTFT and in the worst throughput, and changes little else. What
is left:

- A saturated API server: past what one can carry the studies measured 7 to 45 ms of TPOT where the
  simulator says 11 to 16. The real one carries less, the longer it is overloaded (TP 1 at 1,024
  streams, 4,096 streams, an open loop above its capacity, 2,048 streams in steps of 2,048 tokens:
  16 to 30 % too fast here), its CPU share says that a chunk or a request then costs up to 1.4 times
  as much, and the reason was not found.
- 128 and 256 streams on one server, where it is just about saturated: TTFT is up to 2.5 times what
  was measured, and 20 to 30 % more output with steps of one or two prompts, or without chunked
  prefill. 64 streams of 512 tokens give up to 18 % too little, of shared prefixes 22 % too much.
- A model of 7 B on one card is 19 % too slow: COMPUTE_EFFICIENCY is that of small matrices.

Other GPUs and FP8 weights were not compared, nor data parallelism, which it does not imitate.
"""

import math
from dataclasses import dataclass

from harness.sim.decoder import Decoder
from harness.sim.gpus import GIB, Gpu

COMPUTE_EFFICIENCY = 0.5  # GPU time of mixed steps in the traces: 2.9 µs a token
MEMORY_EFFICIENCY = 0.9  # validation: 94 % read, 91 % triad
KERNEL_FLOOR_S = 38e-6  # GPU time of one layer's kernels without work, all-reduces apart; traces
LAUNCH_LAYER_S = 285e-6  # CPU time to launch one layer's kernels outside CUDA graphs
PIECE_LAYER_S = 125e-6  # the same where a graph ends at every attention: steps with prompts in them
CPU_STEP_S = 1.9e-3  # to plan and prepare a step
CPU_SEQUENCE_S = 12.2e-6
API_SLICE_S = 0.33e-3
API_CHUNK_S = 22.7e-6
API_REQUEST_S = 2.08e-3
API_LATENCY_S = 1.5e-3  # of a request from the API server to the engine; costs no CPU

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
    graph_tokens: int
    """Steps of more tokens are launched kernel by kernel; 0 when there are no CUDA graphs."""
    async_scheduling: bool
    api_server_count: int
    cpu_slowdown: float = 1.0
    """How much longer the host's CPU takes than the quiet one that the constants are of."""

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

    def step_s(self, work: Work, *, idle_before: bool = False) -> float:
        """With asynchronous scheduling the CPU prepares a step while the GPU computes another."""
        prepare_s = CPU_STEP_S + self.cpu_slowdown * work.sequences * CPU_SEQUENCE_S
        launch_s = self.cpu_slowdown * self.decoder.num_hidden_layers * self._launch_layer_s(work)
        gpu_s = self.gpu_s(work)
        if self.async_scheduling and not idle_before:
            return max(prepare_s + launch_s, gpu_s)
        return prepare_s + max(launch_s, gpu_s)

    def _launch_layer_s(self, work: Work) -> float:
        if work.tokens > self.graph_tokens:
            return LAUNCH_LAYER_S
        return PIECE_LAYER_S if work.tokens > work.sequences else 0.0

    def gpu_s(self, work: Work) -> float:
        return self._matrices_s(work) + self._attention_s(work) + self._floor_s(work)

    @property
    def api_slice_s(self) -> float:
        return API_SLICE_S * self.cpu_slowdown

    @property
    def api_chunk_s(self) -> float:
        """Of one API server, as the next."""
        return API_CHUNK_S * self.cpu_slowdown

    @property
    def api_request_s(self) -> float:
        return API_REQUEST_S * self.cpu_slowdown

    def _matrices_s(self, work: Work) -> float:
        """Weights are read once a step."""
        model = self.decoder
        parameters = model.layer_parameters + model.head_parameters
        return self._bounded_s(
            flops=2 * work.tokens * model.layer_parameters
            + 2 * work.sequences * model.head_parameters,
            bytes_read=parameters * self.weight_value_bytes / self.tensor_parallel_size,
        )

    def _attention_s(self, work: Work) -> float:
        model = self.decoder
        width = model.num_attention_heads * model.head_dim * model.num_hidden_layers
        return self._bounded_s(
            flops=4 * work.attention_pairs * width,
            bytes_read=work.context_tokens * self.kv_bytes_per_token,
        )

    def _bounded_s(self, *, flops: float, bytes_read: float) -> float:
        """`flops` of all GPUs, `bytes_read` of each one."""
        ranks_flops_per_s = self.tensor_parallel_size * self.gpu.flops_per_s
        return max(
            flops / (ranks_flops_per_s * COMPUTE_EFFICIENCY),
            bytes_read / (self.gpu.memory_bytes_per_s * MEMORY_EFFICIENCY),
        )

    def _floor_s(self, work: Work) -> float:
        layers = self.decoder.num_hidden_layers
        ranks = self.tensor_parallel_size
        if ranks == 1:
            return layers * KERNEL_FLOOR_S
        message_bytes = work.tokens * self.decoder.hidden_size * self.weight_value_bytes
        all_reduce_s = (
            self.gpu.link_latency_s * math.log2(ranks)
            + 2 * (ranks - 1) / ranks * message_bytes / self.gpu.link_bytes_per_s
        )
        return layers * (KERNEL_FLOOR_S + 2 * all_reduce_s)


def captured_tokens(max_num_seqs: int) -> int:
    """The most tokens for which vLLM captures a CUDA graph, by its default."""
    return min(2 * max_num_seqs, 512)
