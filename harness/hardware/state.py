"""The state of the cards from the snapshot, as measurements: what can be seen without a kernel.

A link that trained at half width, a broken memory page, a card that is slowed while idle, somebody
else's work on it: each of these would make every number measured afterwards meaningless.
"""

from collections.abc import Iterator, Mapping
from itertools import chain

from harness.environment import Environment
from harness.hardware.probes.record import Measurement
from monitors.board import Board
from monitors.nvml import HEAT, Gpu, throttle_names


def state(environment: Environment, memory_used_bytes: Mapping[str, int]) -> list[Measurement]:
    """Every value that the cards report; `memory_used_bytes` by uuid, before any probe ran."""
    boards = {board.uuid: board for board in environment.boards}
    values = chain.from_iterable(
        ((gpu.index, *told) for told in _of_card(gpu, boards.get(gpu.uuid), memory_used_bytes))
        for gpu in environment.gpus
    )
    found = [
        Measurement(name=f"state.{name}", gpus=(index,), unit=unit, value=float(value))
        for index, name, unit, value in values
        if value is not None
    ]
    for pair in environment.pairs:
        for name, told in (("pair_links", pair.nvlink_links), ("pair_p2p", pair.p2p)):
            if told is not None:
                found.append(
                    Measurement(name=f"state.{name}", gpus=pair.gpus, unit="1", value=float(told))
                )
    return found


def _of_card(
    gpu: Gpu, board: Board | None, memory_used_bytes: Mapping[str, int]
) -> Iterator[tuple[str, str, float | None]]:
    yield "memory_used", "B", memory_used_bytes.get(gpu.uuid)
    yield "power_limit", "W", gpu.power_limit_w
    yield "sm_clock_max", "Hz", gpu.sm_clock_max_hz
    if board is None:
        return
    yield "nvlink_links", "1", board.nvlink_links
    yield "nvlink_link_speed", "B/s", board.nvlink_link_bytes_per_s
    yield "ecc_uncorrected", "1", board.ecc_uncorrected
    yield "row_remap_pending", "1", board.row_remap_pending
    yield "row_remap_failed", "1", board.row_remap_failed
    yield "mig", "1", board.mig
    reasons = board.throttle_reasons
    braked = throttle_names(HEAT)
    yield "braked_at_rest", "1", None if reasons is None else len(set(reasons) & set(braked))
    # not the generation, which an idle card lowers; a low width means a poor slot
    yield "pcie_width", "1", board.pcie_width
