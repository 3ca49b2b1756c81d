"""An engine in virtual time, and loops of clients that drive it: closed, or Poisson arrivals."""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

from harness.sim.decoder import Decoder
from harness.sim.engine import Engine
from harness.sim.fault import Fault
from harness.sim.gpus import GPUS
from harness.sim.metrics import Metrics
from harness.sim.roofline import Roofline, captured_tokens
from harness.sim.scheduler import Scheduler
from tests.harness.models import QWEN

QWEN_DECODER = Decoder.of(asdict(QWEN.shape))


def roofline(**overrides) -> Roofline:
    values = {
        "decoder": QWEN_DECODER,
        "gpu": GPUS["h200"],
        "tensor_parallel_size": 2,
        "weight_value_bytes": 2,
        "kv_value_bytes": 2,
        "graph_tokens": 512,
        "async_scheduling": True,
        "api_server_count": 1,
    }
    return Roofline(**(values | overrides))


class VirtualTime:
    """A clock that stands still until the engine's timer, or a client's, is due."""

    def __init__(
        self,
        *,
        max_num_seqs: int = 1024,
        max_num_batched_tokens: int = 8192,
        num_blocks: int = 588_169,
        prefix_caching: bool = False,
        chunked_prefill: bool = True,
        **roofline_overrides,
    ) -> None:
        self.now_s = 0.0
        self.due_at_s: float | None = None
        self.calls: list[tuple[float, int, Callable[[], None]]] = []
        graphs = {"graph_tokens": captured_tokens(max_num_seqs)}
        self.engine = Engine(
            scheduler=Scheduler(
                num_blocks=num_blocks,
                block_size=16,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens,
                prefix_caching=prefix_caching,
                chunked_prefill=chunked_prefill,
            ),
            roofline=roofline(**(graphs | roofline_overrides)),
            metrics=Metrics("m"),
            fault=Fault(),
            clock=lambda: self.now_s,
        )
        self.engine.start(self)

    def set(self, at_s: float) -> None:
        self.due_at_s = at_s

    def call_at(self, at_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self.calls, (at_s, len(self.calls), call))

    def run_until(self, end_at_s: float, *, late_s: float = 0.0) -> None:
        while True:
            call_at_s = self.calls[0][0] if self.calls else float("inf")
            wake_at_s = self.due_at_s + late_s if self.due_at_s is not None else float("inf")
            if min(call_at_s, wake_at_s) > end_at_s:
                break
            self.now_s = max(self.now_s, min(call_at_s, wake_at_s))
            if wake_at_s <= call_at_s:
                self.due_at_s = None
                self.engine.wake()
            else:
                heapq.heappop(self.calls)[2]()
        self.now_s = end_at_s


@dataclass(slots=True, eq=False, kw_only=True)
class Clients:
    """Streams of `input_tokens` in and `output_tokens` out (drawn uniformly between the two).

    Set `concurrency` for a closed loop that starts over one second (each client sends when its
    reply has ended), or `rate_rps` for Poisson arrivals. What ends in the window counts; tokens
    count when they arrive in it. The first `shared_frac` of each prompt is that of one of `groups`.
    """

    time: VirtualTime
    warmup_s: float
    window_s: float
    concurrency: int | None = None
    rate_rps: float | None = None
    input_tokens: int = 512
    output_tokens: tuple[int, int] = (64, 192)
    stream_interval: int = 1
    groups: int = 1
    shared_frac: float | None = None
    num_sent: int = 0
    num_tokens: int = 0
    ttfts_s: list[float] = field(default_factory=list)
    tpots_s: list[float] = field(default_factory=list)
    draws: random.Random = field(default_factory=lambda: random.Random(0))

    def run(self) -> "Clients":
        for index in range(self.concurrency or 0):
            self.time.call_at(index / self.concurrency, self._send)
        if self.rate_rps:
            self.time.call_at(0.0, self._arrive)
        self.time.run_until(self.warmup_s + self.window_s)
        return self

    @property
    def output_tok_per_s(self) -> float:
        return self.num_tokens / self.window_s

    @property
    def ttft_s(self) -> float:
        return median(self.ttfts_s)

    @property
    def tpot_s(self) -> float:
        return median(self.tpots_s)

    def _arrive(self) -> None:
        self._send()
        self.time.call_at(self.time.now_s + self.draws.expovariate(self.rate_rps), self._arrive)

    def _send(self) -> None:
        sent_at_s = self.time.now_s
        first_at_s: list[float] = []
        num_output = self.draws.randint(*self.output_tokens)

        def on_tokens(num_tokens: int, last: bool) -> None:
            now_s = self.time.now_s
            first_at_s.append(now_s)
            if now_s >= self.warmup_s:
                self.num_tokens += num_tokens
            if last:
                if now_s >= self.warmup_s:
                    self.ttfts_s.append(first_at_s[0] - sent_at_s)
                    self.tpots_s.append((now_s - first_at_s[0]) / max(1, num_output - 1))
                if self.concurrency:
                    self._send()

        self.time.engine.submit(
            self._prompt(), num_output, on_tokens, stream_interval=self.stream_interval
        )

    def _prompt(self) -> Sequence[int]:
        """What it says matters to the prefix cache alone."""
        if self.shared_frac is None:
            return range(self.input_tokens)
        self.num_sent += 1
        num_shared = round(self.shared_frac * self.input_tokens)
        shared = [-1 - self.draws.randrange(self.groups)] * num_shared
        return shared + [self.num_sent] * (self.input_tokens - num_shared)
