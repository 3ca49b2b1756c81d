"""The families of probes, which of them this machine can run, and in which order.

A stage is what runs at the same time. Probes of single cards run on all cards at once, which also
shows up a slow card; probes that need all cards run alone. The steady state comes last, because its
heat would affect what follows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.hardware.probe import Probe

Family = Literal["host", "client", "gemm", "memory", "kernels", "p2p", "nccl", "scaling", "steady"]
Kind = Literal["host", "card", "cards"]

HANG_S = 120.0  # beyond what a family takes on an H200; longer is a hang, or a very slow machine


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a family measures, where, and how long that takes, roughly."""

    kind: Kind  # on the host, on each card by itself, or on all cards together
    meaning: str
    takes_s: float


FAMILIES: dict[Family, About] = {
    "host": About(kind="host", meaning="memory bandwidth and BLAS of the CPUs", takes_s=10),
    "client": About(kind="host", meaning="loopback round trip and the load client", takes_s=10),
    "gemm": About(kind="card", meaning="matrix products by precision and shape", takes_s=40),
    "memory": About(kind="card", meaning="bandwidth of HBM, L2 and host transfers", takes_s=15),
    "kernels": About(kind="card", meaning="serving kernels against their roofline", takes_s=40),
    "p2p": About(kind="cards", meaning="copies between every pair of cards", takes_s=15),
    "nccl": About(kind="cards", meaning="collectives by size", takes_s=40),
    "scaling": About(kind="cards", meaning="the same work on 1 … N cards", takes_s=15),
    "steady": About(kind="card", meaning="one matrix product, until the card is hot", takes_s=10),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """The cards to probe: NVML's indices and UUIDs, in CUDA's order; empty without a GPU."""

    indices: tuple[int, ...]
    uuids: tuple[str, ...]


def left_out(wanted: Collection[Family], num_gpus: int) -> dict[str, str]:
    """The families that are not run, each with the reason."""
    reasons: dict[str, str] = {}
    for family, about in FAMILIES.items():
        if family not in wanted:
            reasons[family] = "not asked for"
        elif about.kind != "host" and num_gpus == 0:
            reasons[family] = "this machine shows no GPU"
        elif about.kind == "cards" and num_gpus == 1:
            reasons[family] = "needs two GPUs or more, CUDA shows one"
    return reasons


def stages(
    families: Sequence[Family], cards: Cards, options: dict[str, Any], python: str | None
) -> list[list[Probe]]:
    """The probes of these families on these cards, by stage; `options` are the programs'."""
    found = []
    for family in (name for name in FAMILIES if name in families):
        about = FAMILIES[family]
        if about.kind == "host":
            continue
        limit_s = about.takes_s + HANG_S + (options["seconds"] if family == "steady" else 0.0)
        places = range(len(cards.indices))
        groups = [list(places)] if about.kind == "cards" else [[place] for place in places]
        found.append(
            [
                Probe(
                    family=family,
                    gpus=tuple(cards.indices[place] for place in group),
                    uuids=tuple(cards.uuids[place] for place in group if cards.uuids),
                    # only one process compares with the CPU: two would have to share it
                    options=options | {"compare_cpu": group[0] == 0},
                    limit_s=limit_s,
                    python=python,
                )
                for group in groups
            ]
        )
    return found
