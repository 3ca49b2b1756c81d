"""Where a probe runs, how a call is timed, and how far a result is from its reference.

Times are from CUDA events before and after the call, on the card's own clock. With `flush`, the L2
is filled with other data before each repeat. That takes long enough for the call to be launched
before the card gets to it, so the CPU's launch time is not included.
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch

from .options import Options

FLUSH_BYTES = 2**29  # several times any L2, and 0.1 ms on the fastest memory
WAKE_S = 0.5
WARMUP_CALLS = 3
BUDGET_S = 0.15  # for all repeats of one call
REPEATS = (10, 100)
REHEARSAL_REPEATS = 3

Call = Callable[[], object]


class Bench:
    """One card, or the CPU in a rehearsal."""

    def __init__(self, options: Options, place: int = 0) -> None:
        """`place`: the card's index among those that CUDA shows to this process."""
        self.is_cuda = not options.rehearsal
        self.options = options
        self.gpus = options.gpus[place : place + 1]
        self.device = torch.device("cuda", place) if self.is_cuda else torch.device("cpu")
        if self.is_cuda:
            torch.cuda.set_device(self.device)
        self.random = torch.Generator(self.device).manual_seed(place)
        self._scratch = torch.empty(
            FLUSH_BYTES if self.is_cuda else 1, dtype=torch.int8, device=self.device
        )
        if self.is_cuda:
            self._wake()

    def _wake(self) -> None:
        """Do some work until an idle card has raised its clocks."""
        a = self.normal(4096, 4096, dtype=torch.bfloat16)
        began_at_s = perf_counter()
        while perf_counter() - began_at_s < WAKE_S:
            torch.mm(a, a)
            self.sync()

    def size(self, measured: int, rehearsed: int) -> int:
        """A size, or the one to rehearse with on the CPU."""
        return measured if self.is_cuda else rehearsed

    def normal(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        """Random values: a card multiplies zeros faster, because it needs less power."""
        return torch.randn(*shape, generator=self.random, device=self.device, dtype=dtype)

    def sync(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def times_s(self, call: Call, *, flush: bool = True, budget_s: float = BUDGET_S) -> list[float]:
        """The time of each repeat, after a warm-up."""
        for _ in range(WARMUP_CALLS):
            call()
        if not self.is_cuda:
            return [_wall_s(call) for _ in range(REHEARSAL_REPEATS)]
        once_s = median(self._event_times_s(call, 3, flush=flush))
        least, most = REPEATS
        repeats = int(min(most, max(least, budget_s / max(once_s, 1e-6))))
        return self._event_times_s(call, repeats, flush=flush)

    def _event_times_s(self, call: Call, repeats: int, *, flush: bool) -> list[float]:
        pairs = [
            (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            for _ in range(repeats)
        ]
        for before, after in pairs:
            if flush:
                self._scratch.zero_()
            before.record()
            call()
            after.record()
        self.sync()
        return [before.elapsed_time(after) * 1e-3 for before, after in pairs]


def _wall_s(call: Call) -> float:
    began_at_s = perf_counter()
    call()
    return perf_counter() - began_at_s


def relative_error(result: torch.Tensor, reference: torch.Tensor) -> float:
    """‖result − reference‖ / ‖reference‖ in float64."""
    told, true = result.double(), reference.double().to(result.device)
    norm = torch.linalg.vector_norm(true)
    return float(torch.linalg.vector_norm(told - true) / norm)
