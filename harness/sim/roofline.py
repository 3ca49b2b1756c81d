"""How long a step takes: the GPU's rooflines, and what the CPU adds.

    gpu_s     = matrices: max(flops / (tp · peak · COMPUTE_EFFICIENCY),
                              weight bytes / (bandwidth · MEMORY_EFFICIENCY))
                + attention: the same with its flops, and the bytes of all keys and values read
                + layers · KERNEL_FLOOR_S + 2 · layers · all-reduce
    prepare_s = CPU_STEP_S + slowdown · sequences · CPU_SEQUENCE_S
    launch_s  = slowdown · layers · LAUNCH_LAYER_S   when tokens exceed the largest CUDA graph,
                slowdown · layers · PIECE_LAYER_S    when a prompt is in the step, else 0
    step_s    = max(gpu_s, prepare_s + launch_s)   with asynchronous scheduling
                prepare_s + max(gpu_s, launch_s)   without, and for a step after an idle engine

    flops = 2 · tokens · layer parameters + 2 · sequences · head parameters       (matrices)
            4 · attention pairs · query heads · head dimension · layers           (attention)
    all-reduce = latency · log2(tp) + 2 · (tp − 1) / tp · tokens · hidden size · value / link

Before and after the engine comes the API server (`api_server.py`). It takes API_REQUEST_S per
request, API_CHUNK_S per chunk and API_SLICE_S per slice of a step's outputs, each multiplied by the
slowdown.

The constants come from vLLM 0.25.1 on 2× H200 with Qwen2.5-1.5B's shape, TP 2 unless noted, 512
tokens in and uniformly 64 to 192 out (`results/reference/2xh200`).

- GPU: from `validation`, and from busy times of rank 0 in two nsys traces (`batching_traced`, 16
  and 256 sequences): decode steps of 1.8 ms (16 sequences) and 3.3 ms (255), mixed steps of 3.5 ms
  (527 tokens) and 6.7 ms (1,277).
- Engine's CPU: from step times in the same traces (decode 2.0 and 4.9 ms; mixed 12.2 and 13.7 ms,
  including the profiler's own cost), the times between tokens in `baseline` up to 64 streams, and
  the step time of 1,000 sequences (`frontend`, four API servers). Even within CUDA graphs, a step
  with prompts launches its attention layer by layer: from the case `graphs` of `perf_story`, one of
  two with graphs.
- API server: a least squares fit of its CPU share to steps, chunks and requests per second, where
  it is not saturated (`baseline`, `stream_interval_8`, 16 sequences); residuals are at most 10 %.
  How it takes turns, API_LATENCY_S and the slowdown were chosen among some 40 variants, by their
  errors on the points that `benchmarks/simulator_error.py` marks with a star.
- Slowdown: a property of the host. Between studies the same configuration differs by up to 79 %. A
  host without other work has 1. A slowdown of 1.35 fits `parallel` (one server), `graphs` and
  `regression/eager`, from hosts whose other cards were in use: their API servers needed 1.2 to 1.7
  times the CPU for the same chunks and requests, and a step of 64 without graphs took 12.4 ms where
  the constants give 10.7. With one stream those hosts were as fast as others, so the slowdown does
  not apply to CPU_STEP_S.

The table has the |error| against the measured points, each simulated as it was run, with 1.35 for
the busy hosts. Its last row is how far measurements of one configuration and load lie apart between
studies:

    points                    output tok/s         TTFT p50             TPOT p50
                              median, worst        median, worst        median, worst
    32 used for the fit           4 %, 25 %             9 %, 130 %           5 %, 74 %
    51 others                    11 %, 30 %            18 %, 148 %          11 %, 35 %
    51 others, slowdown 1        11 %, 54 %            31 %, 71 %           10 %, 37 %
    measured, 26 pairs            5 %, 25 %            17 %, 79 %            3 %, 19 %

So the slowdown almost halves the median error in TTFT and the worst in throughput, but doubles the
worst in TTFT; it changes little else. What is left:

- A saturated API server. Beyond what one can carry, the studies measured a TPOT of 7 to 45 ms where
  the simulator says 11 to 16. The real one carries less the longer it is overloaded; here it is 16
  to 30 % too fast (TP 1 at 1,024 streams, 4,096 streams, an open loop above its capacity, 2,048
  streams in steps of 2,048 tokens). By its CPU share, a chunk or a request then costs up to 1.4
  times as much; the reason was not found.
- 128 and 256 streams on one server, where it is just about saturated. TTFT is up to 2.5 times the
  measured one, and output 20 to 30 % too high with steps of one or two prompts, or without chunked
  prefill. With 64 streams, output is up to 18 % too low for 512 tokens, and 22 % too high for
  shared prefixes.
- A 7 B model on one card is 19 % too slow: COMPUTE_EFFICIENCY is that of small matrices.

Other GPUs and FP8 weights were not compared, nor was data parallelism, which is not simulated.
"""

import math
from dataclasses import dataclass

from harness.sim.decoder import Decoder
from harness.sim.gpus import GIB, Gpu

COMPUTE_EFFICIENCY = 0.5  # GPU time of mixed steps in the traces: 2.9 µs per token
MEMORY_EFFICIENCY = 0.9  # validation: 94 % read, 91 % triad
KERNEL_FLOOR_S = 38e-6  # least GPU time of one layer's kernels, without all-reduces; traces
LAUNCH_LAYER_S = 285e-6  # CPU time to launch one layer's kernels outside CUDA graphs
PIECE_LAYER_S = 125e-6  # the same in steps with prompts, whose graphs end at each attention
CPU_STEP_S = 1.9e-3  # CPU time to plan and prepare a step
CPU_SEQUENCE_S = 12.2e-6
API_SLICE_S = 0.33e-3
API_CHUNK_S = 22.7e-6
API_REQUEST_S = 2.08e-3
API_LATENCY_S = 1.5e-3  # for a request from the API server to the engine; takes no CPU

# For CUDA context, NCCL, activations and graphs: what weights and cache leave of the memory that
# gpu_memory_utilization allows. vLLM 0.25.1 on 2× H200: 0.92 · 150.75 GB − 1.54 GB − 134.91 GB.
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
        """Per GPU."""
        return self.decoder.parameters * self.weight_value_bytes // self.tensor_parallel_size

    @property
    def kv_bytes_per_token(self) -> int:
        """Per GPU."""
        return self.decoder.kv_bytes_per_token(self.tensor_parallel_size, self.kv_value_bytes)

    def kv_cache_bytes(self, gpu_memory_utilization: float) -> int:
        """Per GPU; below zero if the weights do not fit."""
        memory = int(self.gpu.memory_bytes * gpu_memory_utilization)
        return memory - self.weight_bytes - RESERVE_BYTES

    def step_s(self, work: Work, *, idle_before: bool = False) -> float:
        """How long a step takes.

        With asynchronous scheduling, the CPU prepares a step while the GPU computes the last one.
        """
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
        """For a single API server, like `api_request_s`."""
        return API_CHUNK_S * self.cpu_slowdown

    @property
    def api_request_s(self) -> float:
        return API_REQUEST_S * self.cpu_slowdown

    def _matrices_s(self, work: Work) -> float:
        """Time of the matrix products; weights are read once per step."""
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
        """The roofline: `flops` are of all GPUs together, `bytes_read` of each."""
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
    """The most tokens for which vLLM captures a CUDA graph by default."""
    return min(2 * max_num_seqs, 512)
