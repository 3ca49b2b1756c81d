"""An engine in virtual time, and a closed loop of clients that drives it."""

from statistics import median

from harness.sim.decoder import Decoder
from harness.sim.engine import Engine
from harness.sim.fault import Fault
from harness.sim.gpus import GPUS
from harness.sim.metrics import Metrics
from harness.sim.roofline import Roofline
from harness.sim.scheduler import Scheduler

QWEN_1_5B = Decoder(
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    head_dim=128,
    vocab_size=151936,
    max_position_embeddings=32768,
    tie_word_embeddings=True,
    dtype="bfloat16",
)


def roofline(**overrides) -> Roofline:
    values = {
        "decoder": QWEN_1_5B,
        "gpu": GPUS["h200"],
        "tensor_parallel_size": 2,
        "weight_value_bytes": 2,
        "kv_value_bytes": 2,
        "eager": False,
        "async_scheduling": True,
        "api_server_count": 1,
    }
    return Roofline(**(values | overrides))


class VirtualTime:
    """A clock that stands still until the engine's timer is due."""

    def __init__(self, **roofline_overrides) -> None:
        self.now_s = 0.0
        self.due_at_s: float | None = None
        self.engine = Engine(
            scheduler=Scheduler(
                num_blocks=588_169,
                block_size=16,
                max_num_seqs=1024,
                max_num_batched_tokens=8192,
                prefix_caching=False,
                chunked_prefill=True,
            ),
            roofline=roofline(**roofline_overrides),
            metrics=Metrics("m"),
            fault=Fault(),
            clock=lambda: self.now_s,
        )
        self.engine.start(self)

    def set(self, at_s: float) -> None:
        self.due_at_s = at_s

    def run_until(self, end_at_s: float, *, late_s: float = 0.0) -> None:
        while self.due_at_s is not None and self.due_at_s + late_s <= end_at_s:
            self.now_s = max(self.now_s, self.due_at_s + late_s)
            self.due_at_s = None
            self.engine.wake()
        self.now_s = end_at_s


class ClosedLoop:
    """`concurrency` clients that start over one second; each sends when its reply has ended."""

    def __init__(self, time: VirtualTime, *, concurrency: int, warmup_s: float, end_s: float):
        self._time = time
        self._open_s = warmup_s
        self._tokens = 0
        self.ttfts_s: list[float] = []
        self.tpots_s: list[float] = []
        for index in range(concurrency):
            time.run_until(index / concurrency)
            self._send()
        time.run_until(end_s)
        self.output_tok_per_s = self._tokens / (end_s - warmup_s)
        self.ttft_s, self.tpot_s = median(self.ttfts_s), median(self.tpots_s)

    def _send(self) -> None:
        sent_at_s = self._time.now_s
        first_at_s: list[float] = []

        def on_tokens(num_tokens: int, last: bool) -> None:
            now_s = self._time.now_s
            first_at_s.append(now_s)
            if now_s >= self._open_s:
                self._tokens += num_tokens
            if last:
                if now_s >= self._open_s:
                    self.ttfts_s.append(first_at_s[0] - sent_at_s)
                    self.tpots_s.append((now_s - first_at_s[0]) / 127)
                self._send()

        self._time.engine.submit(range(512), 128, on_tokens)
