"""Peer to peer: bandwidth one way and both ways, and latency, for every pair of cards.

One process sees all cards. A copy runs on the source's copy engine: over NVLink if the cards have
it, otherwise over PCIe, and through the host if neither can read the other. Both ways at once need
two streams per card, because PyTorch makes a copy wait for the current streams at both ends. The
latency is half the time of a copy to the other card and back. It includes what PyTorch does to
order the two streams, so it is an upper bound on the link's own.
"""

from collections.abc import Callable
from contextlib import ExitStack
from itertools import combinations, permutations
from statistics import median
from time import perf_counter

import torch

from .options import Options
from .record import Measurement, emit, reported, timing

COPY_BYTES = 2**29
COPIES = 10
REPEATS = 5
PING_PONGS = 100


class Cards:
    """All cards that CUDA shows to this process; in a rehearsal, the CPU for each."""

    def __init__(self, options: Options) -> None:
        self.gpus = options.gpus
        self.is_cuda = not options.rehearsal
        kind = "cuda:{}" if self.is_cuda else "cpu"
        self.devices = [torch.device(kind.format(place)) for place in range(len(self.gpus))]

    def sync(self) -> None:
        if self.is_cuda:
            for device in self.devices:
                torch.cuda.synchronize(device)

    def random(self, place: int, num_bytes: int) -> torch.Tensor:
        shape = (num_bytes // 4,)
        return torch.randint(2**31 - 1, shape, device=self.devices[place], dtype=torch.int32)

    def streams(self, *places: int) -> ExitStack:
        """A context in which each of these cards has a new stream as its current one."""
        stack = ExitStack()
        for place in places if self.is_cuda else ():
            stream = torch.cuda.Stream(self.devices[place])
            stack.enter_context(torch.cuda.stream(stream))
        return stack

    def times_s(self, call: Callable[[], None], calls: int) -> list[float]:
        """The wall time per call, averaged over `calls`, for each repeat."""
        call()
        times_s = []
        for _ in range(REPEATS):
            self.sync()
            began_at_s = perf_counter()
            for _ in range(calls):
                call()
            self.sync()
            times_s.append((perf_counter() - began_at_s) / calls)
        return times_s


def run(options: Options) -> None:
    cards = Cards(options)
    num_bytes = COPY_BYTES if cards.is_cuda else 2**14
    for one, other in permutations(range(len(cards.gpus)), 2):
        gpus = (cards.gpus[one], cards.gpus[other])
        with reported("p2p.one_way", gpus, "B/s"):
            emit(_one_way(cards, one, other, num_bytes))
    for one, other in combinations(range(len(cards.gpus)), 2):
        gpus = (cards.gpus[one], cards.gpus[other])
        with reported("p2p.access", gpus, "1"):
            emit(_access(cards, one, other))
        with reported("p2p.both_ways", gpus, "B/s"):
            emit(_both_ways(cards, one, other, num_bytes))
        with reported("p2p.latency", gpus, "s"):
            emit(_latency(cards, one, other))


def _access(cards: Cards, one: int, other: int) -> Measurement:
    """1 if each card can read the other's memory, else 0."""
    ways = ((one, other), (other, one))
    can = cards.is_cuda and all(
        torch.cuda.can_device_access_peer(*(cards.devices[place] for place in way)) for way in ways
    )
    gpus = (cards.gpus[one], cards.gpus[other])
    return Measurement(name="p2p.access", gpus=gpus, unit="1", value=float(can))


def _one_way(cards: Cards, one: int, other: int, num_bytes: int) -> Measurement:
    source = cards.random(one, num_bytes)
    target = torch.zeros_like(source, device=cards.devices[other])
    with cards.streams(one, other):
        cards.sync()
        times_s = cards.times_s(lambda: _copy(target, source), COPIES)
    return _told(cards, "p2p.one_way", (one, other), times_s, num_bytes, _wrong(source, target))


def _both_ways(cards: Cards, one: int, other: int, num_bytes: int) -> Measurement:
    sources = [cards.random(place, num_bytes) for place in (one, other)]
    targets = [
        torch.zeros_like(sources[0], device=cards.devices[other]),
        torch.zeros_like(sources[1], device=cards.devices[one]),
    ]
    ways = []
    for source, target in zip(sources, targets, strict=True):
        with cards.streams(one, other):  # two streams for this direction, kept for all its copies
            ways.append((source, target, _current(cards, one), _current(cards, other)))

    def call() -> None:
        for source, target, *streams in ways:
            with ExitStack() as stack:
                for stream in streams if cards.is_cuda else ():
                    stack.enter_context(torch.cuda.stream(stream))
                _copy(target, source)

    cards.sync()
    times_s = cards.times_s(call, COPIES)
    wrong = max(_wrong(source, target) for source, target, *_ in ways)
    return _told(cards, "p2p.both_ways", (one, other), times_s, 2 * num_bytes, wrong)


def _current(cards: Cards, place: int) -> "torch.cuda.Stream | None":
    return torch.cuda.current_stream(cards.devices[place]) if cards.is_cuda else None


def _latency(cards: Cards, one: int, other: int) -> Measurement:
    here = cards.random(one, 4)
    there = torch.zeros_like(here, device=cards.devices[other])
    true = here.cpu().clone()

    def call() -> None:
        _copy(there, here)
        _copy(here, there)

    with cards.streams(one, other):
        cards.sync()
        times_s = [time_s / 2 for time_s in cards.times_s(call, PING_PONGS)]
    return Measurement(
        name="p2p.latency",
        gpus=(cards.gpus[one], cards.gpus[other]),
        unit="s",
        value=median(times_s),
        **timing(times_s),
        error=float((there.cpu() != true).sum()),
        error_limit=0.0,
        how="PyTorch, copy of 4 bytes",
    )


def _copy(target: torch.Tensor, source: torch.Tensor) -> None:
    target.copy_(source, non_blocking=True)


def _wrong(source: torch.Tensor, target: torch.Tensor) -> float:
    """The share of values that did not arrive, compared on the host."""
    return float((source.cpu() != target.cpu()).double().mean())


def _told(
    cards: Cards,
    name: str,
    places: tuple[int, int],
    times_s: list[float],
    moved_bytes: int,
    error: float,
) -> Measurement:
    return Measurement(
        name=name,
        gpus=(cards.gpus[places[0]], cards.gpus[places[1]]),
        unit="B/s",
        value=moved_bytes / median(times_s),
        **timing(times_s),
        moved_bytes=moved_bytes,
        error=error,
        error_limit=0.0,
        how="PyTorch, copy between cards",
        detail={"bytes": moved_bytes},
    )
