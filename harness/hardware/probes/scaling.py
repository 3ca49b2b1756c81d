"""Scaling: independent work on 1 … N cards at the same time.

Efficiency of n cards = their total rate together / the sum of the rates that each has alone. Each
card has the same work and nothing is exchanged, so any loss comes from shared power, heat, or the
single process that feeds them. Each card works for a second before it is timed: a rested card
exceeds the rate at its power limit until the limit acts, which would look like a loss when sharing.
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch

from .options import Options
from .p2p import Cards
from .record import Measurement, emit, reported

SIZE = 8192
ARRAY_BYTES = 2**31
WARMUP_CALLS = 3
WARMUP_S = 1.0  # the steady state's first second is within 1 % of its last
TOGETHER_S = 0.3  # of work per card
REPEATS = 3

Work = tuple[Callable[[], object], float]  # a call, and its FLOPs or bytes


def run(options: Options) -> None:
    cards = Cards(options)
    for name, unit, make in (("gemm", "FLOP/s", _gemm), ("copy", "B/s", _copy)):
        with reported(f"scaling.{name}", cards.gpus, unit):
            _scaled(cards, f"scaling.{name}", unit, [make(device) for device in cards.devices])


def _gemm(device: torch.device) -> Work:
    size = SIZE if device.type == "cuda" else 64
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return lambda: torch.mm(a, b.t()), 2.0 * size**3


def _copy(device: torch.device) -> Work:
    num_values = (ARRAY_BYTES if device.type == "cuda" else 2**14) // 4
    source = torch.rand(num_values, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2.0 * source.nbytes


def _scaled(cards: Cards, name: str, unit: str, works: list[Work]) -> None:
    alone = [_rate(cards, [work]) for work in works]
    for num in range(1, len(works) + 1):
        together = _rate(cards, works[:num]) if num > 1 else alone[0]
        values = {
            f"{name}.{num}": (together, unit),
            f"{name}.{num}.efficiency": (together / sum(alone[:num]), "share"),
        }
        for told, (value, its_unit) in values.items():
            if num > 1 or its_unit == unit:  # the efficiency of one card is always 1
                emit(
                    Measurement(
                        name=told,
                        gpus=cards.gpus[:num],
                        unit=its_unit,
                        value=value,
                        repeats=REPEATS,
                        how="PyTorch",
                        detail={"alone": alone[:num]},
                    )
                )


def _rate(cards: Cards, works: list[Work]) -> float:
    """Work per second of these cards together: the median over repeats."""
    once_s = _together_s(cards, works, WARMUP_CALLS) / WARMUP_CALLS
    if cards.is_cuda:
        _together_s(cards, works, max(1, int(WARMUP_S / once_s)))
    calls = max(3, int(TOGETHER_S / once_s)) if cards.is_cuda else 3
    rates = []
    for _ in range(REPEATS):
        done = calls * sum(work for _, work in works)
        rates.append(done / _together_s(cards, works, calls))
    return median(rates)


def _together_s(cards: Cards, works: list[Work], calls: int) -> float:
    cards.sync()
    began_at_s = perf_counter()
    for _ in range(calls):
        for call, _ in works:
            call()
    cards.sync()
    return perf_counter() - began_at_s
