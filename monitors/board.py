"""The state of a GPU's board: links, errors, limits, and its connection to other GPUs.

Read once, for a snapshot: some of these calls take milliseconds. None is what a card cannot tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monitors.nvml import HZ_PER_MHZ, known, opened, throttle_names

BYTES_PER_MB = 1e6

# nvml.h's nvmlGpuP2PCapsIndex_t; pynvml's constant for READ is a tuple by mistake.
P2P_READ = 0
# nvml.h's nvmlGpuTopologyLevel_t, in nvidia-smi's words
LEVELS = {
    0: "same board",
    10: "one PCIe switch",
    20: "several PCIe switches",
    30: "one host bridge",
    40: "one NUMA node",
    50: "across NUMA nodes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One card's state. The limits that are settings of a card are in monitors.nvml.Gpu."""

    uuid: str
    pci_bus_id: str | None
    vbios: str | None
    numa_node: int | None
    persistence: bool | None
    mig: bool | None
    power_limit_default_w: float | None
    power_limit_max_w: float | None
    sm_clock_hz: float | None
    memory_clock_hz: float | None
    sm_clock_application_hz: float | None
    temperature_c: float | None
    throttle_reasons: tuple[str, ...] | None
    ecc_corrected: int | None  # since the driver was loaded
    ecc_uncorrected: int | None
    ecc_uncorrected_ever: int | None
    rows_remapped: int | None  # because of uncorrectable errors
    row_remap_pending: bool | None
    row_remap_failed: bool | None
    pcie_generation: int | None  # now; an idle card may have lowered it
    pcie_generation_max: int | None
    pcie_width: int | None
    pcie_width_max: int | None
    nvlink_links: int | None  # that are up
    nvlink_link_bytes_per_s: float | None  # of one link, in one direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """How two cards, by their NVML indices, are connected."""

    gpus: tuple[int, int]
    level: str | None  # of their common ancestor in the PCIe tree
    nvlink_links: int | None  # direct, or through switches
    p2p: bool | None  # whether each can read the other's memory


def boards(indices: Sequence[int], library: Any = None) -> tuple[Board, ...]:
    """The state of these cards; a lost card is left out."""
    with opened(library) as nvml:
        found = [known(nvml, _board, nvml, index) for index in indices if nvml]
    return tuple(board for board in found if board is not None)


def pairs(indices: Sequence[int], library: Any = None) -> tuple[Pair, ...]:
    """Every pair of these cards."""
    with opened(library) as nvml:
        if nvml is None:
            return ()
        return tuple(
            _pair(nvml, one, other)
            for place, one in enumerate(indices)
            for other in indices[place + 1 :]
        )


def _board(nvml: Any, index: int) -> Board:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(function: str, *arguments: Any) -> Any:
        call = getattr(nvml, function, None)  # older bindings lack some
        return None if call is None else known(nvml, call, handle, *arguments)

    limits_mw = ask("nvmlDeviceGetPowerManagementLimitConstraints")
    remapped = ask("nvmlDeviceGetRemappedRows")
    mig = ask("nvmlDeviceGetMigMode")
    reasons = ask("nvmlDeviceGetCurrentClocksEventReasons")
    pci = ask("nvmlDeviceGetPciInfo")
    speed_mb_per_s = _field(nvml, handle, "NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON")
    return Board(
        uuid=nvml.nvmlDeviceGetUUID(handle),
        pci_bus_id=None if pci is None else _bus_id(pci),
        vbios=ask("nvmlDeviceGetVbiosVersion"),
        numa_node=ask("nvmlDeviceGetNumaNodeId"),
        persistence=_flag(ask("nvmlDeviceGetPersistenceMode")),
        mig=None if mig is None else bool(mig[0]),
        power_limit_default_w=_times(ask("nvmlDeviceGetPowerManagementDefaultLimit"), 1e-3),
        power_limit_max_w=None if limits_mw is None else limits_mw[1] * 1e-3,
        sm_clock_hz=_times(ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM), HZ_PER_MHZ),
        memory_clock_hz=_times(ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM), HZ_PER_MHZ),
        sm_clock_application_hz=_times(
            ask("nvmlDeviceGetApplicationsClock", nvml.NVML_CLOCK_SM), HZ_PER_MHZ
        ),
        temperature_c=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        throttle_reasons=None if reasons is None else throttle_names(reasons),
        ecc_corrected=_ecc_errors(ask, "CORRECTED"),
        ecc_uncorrected=_ecc_errors(ask, "UNCORRECTED"),
        ecc_uncorrected_ever=_ecc_errors(ask, "UNCORRECTED", "AGGREGATE"),
        rows_remapped=None if remapped is None else remapped[1],
        row_remap_pending=None if remapped is None else bool(remapped[2]),
        row_remap_failed=None if remapped is None else bool(remapped[3]),
        pcie_generation=ask("nvmlDeviceGetCurrPcieLinkGeneration"),
        pcie_generation_max=ask("nvmlDeviceGetMaxPcieLinkGeneration"),
        pcie_width=ask("nvmlDeviceGetCurrPcieLinkWidth"),
        pcie_width_max=ask("nvmlDeviceGetMaxPcieLinkWidth"),
        nvlink_links=_links_up(nvml, handle),
        nvlink_link_bytes_per_s=_times(speed_mb_per_s, BYTES_PER_MB),
    )


# nvml.h's nvmlMemoryErrorType_t and nvmlEccCounterType_t
_ERRORS = {"CORRECTED": 0, "UNCORRECTED": 1}
_SINCE = {"VOLATILE": 0, "AGGREGATE": 1}


def _ecc_errors(ask: Any, kind: str, since: str = "VOLATILE") -> int | None:
    count: int | None = ask("nvmlDeviceGetTotalEccErrors", _ERRORS[kind], _SINCE[since])
    return count


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _bus_id(pci: Any) -> str:
    bus_id = pci.busId
    return str(bus_id.decode() if isinstance(bus_id, bytes) else bus_id)


def _field(nvml: Any, handle: Any, name: str) -> float | None:
    """A field's value; None if the card or the bindings lack it."""
    number = getattr(nvml, name, None)
    if number is None:
        return None
    fields = known(nvml, nvml.nvmlDeviceGetFieldValues, handle, [number])
    if not fields or fields[0].nvmlReturn != nvml.NVML_SUCCESS:
        return None
    return float(fields[0].value.uiVal)


def _links_up(nvml: Any, handle: Any) -> int | None:
    """How many NVLinks are up; None for a card without NVLink."""
    most = getattr(nvml, "NVML_NVLINK_MAX_LINKS", 18)
    states = [known(nvml, nvml.nvmlDeviceGetNvLinkState, handle, link) for link in range(most)]
    told = [state for state in states if state is not None]
    return sum(map(bool, told)) if told else None


def _pair(nvml: Any, one: int, other: int) -> Pair:
    handles = [known(nvml, nvml.nvmlDeviceGetHandleByIndex, index) for index in (one, other)]
    level = known(nvml, nvml.nvmlDeviceGetTopologyCommonAncestor, *handles)
    ways = (handles, handles[::-1])
    statuses = [known(nvml, nvml.nvmlDeviceGetP2PStatus, *way, P2P_READ) for way in ways]
    counts = [_links_between(nvml, *way) for way in ways]
    told = [count for count in counts if count is not None]
    return Pair(
        gpus=(one, other),
        level=LEVELS.get(level, None if level is None else str(level)),
        nvlink_links=min(told) if told else None,
        p2p=None if None in statuses else statuses == [0, 0],  # NVML_P2P_STATUS_OK
    )


def _links_between(nvml: Any, handle: Any, other: Any) -> int | None:
    """How many of a card's links lead to the other, or to a switch, which reaches all cards."""
    pci = known(nvml, nvml.nvmlDeviceGetPciInfo, other)
    if pci is None:
        return None
    count, told = 0, False
    for link in range(getattr(nvml, "NVML_NVLINK_MAX_LINKS", 18)):
        if not known(nvml, nvml.nvmlDeviceGetNvLinkState, handle, link):
            continue
        kind = known(nvml, nvml.nvmlDeviceGetNvLinkRemoteDeviceType, handle, link)
        remote = known(nvml, nvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
        told |= kind is not None or remote is not None
        is_switch = kind == getattr(nvml, "NVML_NVLINK_DEVICE_TYPE_SWITCH", 2)
        count += is_switch or (remote is not None and _bus_id(remote) == _bus_id(pci))
    return count if told else None
