"""What NVML says about GPUs: identity, memory, who uses them, and a reading of each sensor.

Without NVML (no package, no driver, no permission) there are no GPUs, which is not an error. Units
are converted where they are read: NVML has MHz, mW and mJ.

Cost of a reading on an H200: 9 us for memory; about 25 us for a clock, the throttle reasons or the
temperature; 0.1 ms for power; 0.2 ms for utilisation. The energy counter takes 4 ms and is read
only at the edges of a recording. PCIe throughput takes 21 ms and is not read.
`benchmarks/monitor_cost.py` measures these, and GPM's, on the machine at hand.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from time import perf_counter
from typing import Any

from monitors.gpm import METRICS, Gpm

HZ_PER_MHZ = 1e6

# nvml.h, nvmlClocksEventReason*. A bit that NVML does not use means "could not be read".
UNKNOWN_REASONS = 1 << 62
REASONS = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
    UNKNOWN_REASONS: "unknown",
}
POWER_CAP = 0x004
HEAT = 0x008 | 0x020 | 0x040 | 0x080  # slowed by heat or the board's power, not by the power cap
THROTTLING = POWER_CAP | HEAT  # not because of a setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One card. `index` is NVML's, in PCI order. None is what the card does not report."""

    index: int
    uuid: str
    name: str
    memory_total_bytes: int
    power_limit_w: float | None
    sm_clock_max_hz: float | None
    memory_clock_max_hz: float | None
    ecc: bool | None
    compute_capability: tuple[int, int] | None = None  # (9, 0): Hopper


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """The driver's version, and the newest CUDA version that it supports."""

    version: str
    cuda_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A process that holds a context on a GPU."""

    gpu: int
    pid: int
    memory_used_bytes: int | None


def throttle_names(reasons: int) -> tuple[str, ...]:
    """The names in a bitmask of `throttle_reasons`, lowest bit first."""
    return tuple(name for bit, name in REASONS.items() if reasons & bit)


def gpus(library: Any = None) -> tuple[Gpu, ...]:
    """Every working GPU of the machine, whatever CUDA_VISIBLE_DEVICES says."""
    with opened(library) as nvml:
        count = (nvml and known(nvml, nvml.nvmlDeviceGetCount)) or 0
        found = [known(nvml, _gpu, nvml, index) for index in range(count)]
    return tuple(gpu for gpu in found if gpu is not None)


def driver(library: Any = None) -> Driver | None:
    """The NVIDIA driver; None without one."""
    with opened(library) as nvml:
        if nvml is None:
            return None
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()  # 13000 is 13.0
        return Driver(
            version=nvml.nvmlSystemGetDriverVersion(),
            cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}",
        )


def memory_used_bytes(uuids: Sequence[str], library: Any = None) -> dict[str, int]:
    """Memory in use, by uuid, without the driver's own; a GPU that cannot be read is left out."""
    with opened(library) as nvml:
        found = {uuid: known(nvml, _memory_of, nvml, uuid) for uuid in uuids if nvml}
    return {uuid: used for uuid, used in found.items() if used is not None}


def foreign_processes(
    uuids: Sequence[str], own_pids: Collection[int], library: Any = None
) -> tuple[GpuProcess, ...]:
    """Processes with a compute context on these GPUs that are not in `own_pids`.

    In a container, NVML may list none, or list them with their pids on the host.
    """
    with opened(library) as nvml:
        found = [known(nvml, _processes, nvml, uuid) or [] for uuid in uuids if nvml]
    return tuple(process for of_gpu in found for process in of_gpu if process.pid not in own_pids)


class GpuReadings:
    """Source `gpu`: one row per card.

    Failures are noted: a sensor that fails gives NaN, a lost card gives no more rows.
    """

    columns: tuple[str, ...] = (
        "at_s",
        "gpu",
        *METRICS,
        "utilization_frac",
        "memory_used_bytes",
        "sm_clock_hz",
        "memory_clock_hz",
        "power_instant_w",
        "temperature_c",
        "throttle_reasons",
        "energy_j",
    )

    def __init__(self, uuids: Sequence[str], interval_s: float, library: Any = None) -> None:
        self.interval_s = interval_s
        self._uuids = tuple(uuids)
        self._library = library
        self._cards: list[_Card] | None = None
        self._notes: list[str] = []

    @property
    def notes(self) -> list[str]:
        return self._notes + [note for card in self._cards or () for note in card.notes()]

    def sample(self, *, edge: bool) -> Iterator[tuple[float, ...]]:
        if self._cards is None:
            self._cards = self._open()
        # only a reboot brings a lost card back, and asking it can take long
        for card in [card for card in self._cards if not card.is_lost]:
            at_s = perf_counter()
            activity = card.activity()
            values = [
                nan if column == "energy_j" and not edge else card.read(column)
                for column in self.columns[2 + len(activity) :]
            ]
            if not card.is_lost:
                yield (at_s, card.index, *activity, *values)

    def _open(self) -> "list[_Card]":
        nvml = _start(self._library)  # never shut down: starting it takes longer than a sample
        if nvml is None:
            self._notes.append("NVML is not available, so no GPU is sampled")
            return []
        cards = []
        for uuid in self._uuids:
            try:
                cards.append(_Card(nvml, uuid))
            except nvml.NVMLError as error:
                self._notes.append(f"{uuid} cannot be opened ({error})")
        return cards


class _Card:
    """One GPU's sensors by column name, and their failures."""

    def __init__(self, nvml: Any, uuid: str) -> None:
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        self.index: int = nvml.nvmlDeviceGetIndex(handle)
        self.is_lost = False
        self._nvml = nvml
        self._failed: dict[str, list[str]] = {}  # error -> columns
        self._gpm = known(nvml, Gpm, nvml, handle)
        if self._gpm is None:
            self._failed["no GPM counters, which Hopper and later have"] = list(METRICS)
        has_instant_power = known(nvml, _power_instant_w, nvml, handle) is not None
        if not has_instant_power:
            self._failed["no instant power, an average of up to 1 s instead"] = ["power_instant_w"]
        self._sensors: dict[str, Callable[[], float]] = {
            "utilization_frac": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
            "memory_used_bytes": lambda: _memory_used_bytes(nvml, handle),
            "sm_clock_hz": lambda: _hz(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "memory_clock_hz": lambda: _hz(
                nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)
            ),
            "power_instant_w": (
                (lambda: _power_instant_w(nvml, handle))
                if has_instant_power
                else (lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3)
            ),
            "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(
                handle, nvml.NVML_TEMPERATURE_GPU
            ),
            "throttle_reasons": lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
            "energy_j": lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3,
        }

    def activity(self) -> list[float]:
        """How busy it was since the last call, in the order of `METRICS`; NaN where lacking."""
        values = [nan] * len(METRICS)
        if self._gpm is not None:
            try:
                values = self._gpm.read()
            except self._nvml.NVMLError as error:
                self._note(error, *METRICS)
        return values

    def read(self, column: str) -> float:
        """The sensor's value; on failure NaN, or for throttle reasons the bit for unknown."""
        try:
            return float(self._sensors[column]())
        except self._nvml.NVMLError as error:
            self._note(error, column)
            return float(UNKNOWN_REASONS) if column == "throttle_reasons" else nan

    def _note(self, error: Any, *columns: str) -> None:
        self.is_lost |= error.value == self._nvml.NVML_ERROR_GPU_IS_LOST
        failed = self._failed.setdefault(str(error), [])
        failed += [column for column in columns if column not in failed]

    def notes(self) -> list[str]:
        failed = dict(self._failed)
        if self._gpm is not None and (lacks := self._gpm.lacks):
            failed["no such GPM counter"] = lacks
        return [
            f"GPU {self.index}: {error} ({', '.join(columns)})" for error, columns in failed.items()
        ]


def _start(library: Any) -> Any:
    """The NVML library, initialised; None if it or the driver is missing."""
    if library is None:
        try:
            import pynvml
        except ImportError:
            return None
        library = pynvml
    try:
        library.nvmlInit()
    except library.NVMLError:
        return None
    return library


@contextmanager
def opened(library: Any) -> Iterator[Any]:
    """NVML, or None without it, initialised for a few calls."""
    nvml = _start(library)
    try:
        yield nvml
    finally:
        if nvml is not None:
            nvml.nvmlShutdown()


def known(nvml: Any, read: Callable[..., Any], *args: Any) -> Any:
    """What `read` returns; None if NVML raises an error."""
    try:
        return read(*args)
    except nvml.NVMLError:
        return None


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    limit_mw = known(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    sm_mhz = known(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM)
    memory_mhz = known(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_MEM)
    ecc = known(nvml, nvml.nvmlDeviceGetCurrentEccMode, handle)
    return Gpu(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        memory_total_bytes=nvml.nvmlDeviceGetMemoryInfo(handle).total,
        power_limit_w=None if limit_mw is None else limit_mw / 1e3,
        sm_clock_max_hz=None if sm_mhz is None else _hz(sm_mhz),
        memory_clock_max_hz=None if memory_mhz is None else _hz(memory_mhz),
        ecc=None if ecc is None else bool(ecc),
        compute_capability=known(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle),
    )


def _memory_used_bytes(nvml: Any, handle: Any) -> int:
    # version 2 leaves out what the driver reserves for itself, so an idle GPU is near 0
    return int(nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2).used)


def _memory_of(nvml: Any, uuid: str) -> int:
    return _memory_used_bytes(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))


def _power_instant_w(nvml: Any, handle: Any) -> float:
    # on most cards since Ampere, nvmlDeviceGetPowerUsage averages over 1 s; this field does not
    field = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_POWER_INSTANT])[0]
    if field.nvmlReturn != nvml.NVML_SUCCESS:
        raise nvml.NVMLError(field.nvmlReturn)
    return float(field.value.uiVal) / 1e3


def _processes(nvml: Any, uuid: str) -> list[GpuProcess]:
    handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    index = nvml.nvmlDeviceGetIndex(handle)
    return [
        GpuProcess(gpu=index, pid=process.pid, memory_used_bytes=process.usedGpuMemory)
        for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    ]


def _hz(mhz: float) -> float:
    return mhz * HZ_PER_MHZ
