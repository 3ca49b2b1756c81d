"""vLLM V1's scheduling rules: what each step computes. No clock, no I/O.

Each step has a token budget. Running requests take from it first, in the order in which they were
admitted: one token each when decoding, and what is left of the prompt (or of the budget) when
prefilling. Then waiting requests are admitted first come, first served, as long as there is budget,
a free slot (`max_num_seqs`), and room in the KV cache for all their known tokens. When a running
request finds no free block, the request admitted last is preempted: it loses its blocks and goes to
the front of the queue, to be computed again. A step with a preemption admits no request.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.sim.blocks import BlockPool
from harness.sim.roofline import Work


@dataclass(slots=True, eq=False, kw_only=True)
class Request:
    prompt: Sequence[int]
    max_tokens: int
    serial: int = 0  # its number among the scheduler's requests
    computed: int = 0  # tokens whose keys and values are in the cache
    generated: int = 0
    cached: int | None = None  # prompt tokens found in the prefix cache at first admission
    finished: bool = False
    blocks: list[int] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + self.generated

    def hash_chain(self, num_blocks: int, block_size: int) -> list[int]:
        """Hashes of the first full blocks, each over its own tokens and all before it.

        Generated tokens are noise, so a block that contains some matches no other request's. It
        gets a unique hash, by which the request finds it again after a preemption.
        """
        while len(self.hashes) < num_blocks:
            first = len(self.hashes) * block_size
            last = first + block_size
            inside = last <= len(self.prompt)
            tokens = tuple(self.prompt[first:last]) if inside else (self.serial, first)
            parent = self.hashes[-1] if self.hashes else 0
            self.hashes.append(hash((parent, inside, tokens)))
        return self.hashes[:num_blocks]


@dataclass(slots=True, kw_only=True)
class Step:
    """How many tokens each request computes, and how much work that is for the GPU."""

    shares: list[tuple[Request, int]] = field(default_factory=list)
    tokens: int = 0
    context_tokens: int = 0
    attention_pairs: int = 0

    def add(self, request: Request, num_new: int) -> None:
        self.shares.append((request, num_new))
        self.tokens += num_new
        self.context_tokens += request.computed + num_new
        self.attention_pairs += num_new * request.computed + num_new * (num_new + 1) // 2

    @property
    def work(self) -> Work:
        return Work(
            tokens=self.tokens,
            sequences=len(self.shares),
            context_tokens=self.context_tokens,
            attention_pairs=self.attention_pairs,
        )


class Scheduler:
    def __init__(
        self,
        *,
        num_blocks: int,
        block_size: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        prefix_caching: bool,
        chunked_prefill: bool,
    ) -> None:
        self.pool = BlockPool(num_blocks)
        self.block_size = block_size
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.prefix_caching = prefix_caching
        self.chunked_prefill = chunked_prefill
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self._num_requests = 0

    def add(self, request: Request) -> None:
        self._num_requests += 1
        request.serial = self._num_requests
        self.waiting.append(request)

    def abort(self, request: Request) -> None:
        """Drop a request; its share of a step in progress is computed in vain."""
        if request.finished:
            return
        if request in self.running:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
        self._end(request)

    def schedule(self) -> Step:
        """The next step; empty if there is nothing to compute."""
        step = Step()
        if self._continue_running(step):
            self._admit_waiting(step)
        return step

    def complete(self, step: Step) -> list[Request]:
        """Account for a computed step; returns the requests that got a token from it, in order.

        A request whose known tokens are all computed gets one new token; that is also how prefill
        ends.
        """
        got_token = []
        for request, num_new in step.shares:
            if request.finished:  # aborted meanwhile
                continue
            request.computed += num_new
            if request.computed == request.num_tokens:
                request.generated += 1
                got_token.append(request)
                if request.generated == request.max_tokens:
                    self._end(request)
        self.running = [request for request in self.running if not request.finished]
        return got_token

    def _continue_running(self, step: Step) -> bool:
        """Schedule the running requests; False if one was preempted."""
        preempted = False
        index = 0
        while index < len(self.running) and step.tokens < self.max_num_batched_tokens:
            request = self.running[index]
            budget = self.max_num_batched_tokens - step.tokens
            num_new = min(request.num_tokens - request.computed, budget)
            while not self.pool.fits(self._num_blocks_wanted(request, num_new)):
                victim = self.running.pop()
                self._preempt(victim)
                preempted = True
                if victim is request:
                    return False
            self._schedule(step, request, num_new)
            index += 1
        return not preempted

    def _admit_waiting(self, step: Step) -> None:
        while (
            self.waiting
            and len(self.running) < self.max_num_seqs
            and step.tokens < self.max_num_batched_tokens
        ):
            request = self.waiting[0]
            shared = self._cached_blocks(request)
            cached = len(shared) * self.block_size
            budget = self.max_num_batched_tokens - step.tokens
            num_new = request.num_tokens - cached
            if num_new > budget and not self.chunked_prefill:
                return
            num_all = -(-request.num_tokens // self.block_size)
            if not self.pool.fits(num_all - len(shared), shared):
                return
            self.waiting.popleft()
            self.running.append(request)
            self.pool.share(shared)
            request.blocks = shared
            request.computed = cached
            if request.cached is None:  # a preempted request finding its own blocks is no hit
                request.cached = cached
                self.prefix_queries += request.num_tokens if self.prefix_caching else 0
                self.prefix_hits += cached
            self._schedule(step, request, min(num_new, budget))

    def _cached_blocks(self, request: Request) -> list[int]:
        """Cached blocks of a request's prefix, without its last token: its logits are needed."""
        if not self.prefix_caching:
            return []
        num_full = (request.num_tokens - 1) // self.block_size
        return self.pool.find(request.hash_chain(num_full, self.block_size))

    def _num_blocks_wanted(self, request: Request, num_new: int) -> int:
        return -(-(request.computed + num_new) // self.block_size) - len(request.blocks)

    def _schedule(self, step: Step, request: Request, num_new: int) -> None:
        request.blocks += self.pool.take(self._num_blocks_wanted(request, num_new))
        if self.prefix_caching:
            first = request.computed // self.block_size
            last = (request.computed + num_new) // self.block_size
            if last > first:
                chain = request.hash_chain(last, self.block_size)
                for index in range(first, last):
                    self.pool.publish(request.blocks[index], chain[index])
        step.add(request, num_new)

    def _preempt(self, request: Request) -> None:
        self.pool.release(request.blocks)
        request.blocks = []
        request.computed = 0
        self.preemptions += 1
        self.waiting.appendleft(request)

    def _end(self, request: Request) -> None:
        request.finished = True
        self.pool.release(request.blocks)
        request.blocks = []
