"""Fakes that speak for a driver and for a server."""
# ruff: noqa: N802, N815  (NVML's own names)

import ctypes
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import pynvml
import pytest

LOST, UNSUPPORTED, NO_DRIVER = 15, 3, 9
TEXTS = {LOST: "GPU is lost", UNSUPPORTED: "Not Supported", NO_DRIVER: "Driver Not Loaded"}


class FakeNVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(TEXTS[value])
        self.value = value


class FakeNvml:
    """NVML's functions over cards that a test can break: `broken[function, index] = error code`."""

    NVMLError = FakeNVMLError
    NVML_SUCCESS, NVML_ERROR_GPU_IS_LOST = 0, LOST
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVML_FI_DEV_POWER_INSTANT, nvmlMemory_v2 = 186, 2
    NVML_ERROR_NOT_SUPPORTED = UNSUPPORTED
    NVML_GPM_METRICS_GET_VERSION = pynvml.NVML_GPM_METRICS_GET_VERSION
    NVML_GPM_METRIC_SM_UTIL = pynvml.NVML_GPM_METRIC_SM_UTIL
    NVML_GPM_METRIC_ANY_TENSOR_UTIL = pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL
    NVML_GPM_METRIC_DRAM_BW_UTIL = pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL
    NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC = pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC
    NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC = pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC
    c_nvmlGpmMetricsGet_t = pynvml.c_nvmlGpmMetricsGet_t  # the driver's own layout

    def __init__(self, num_gpus: int = 2, has_driver: bool = True) -> None:
        self.num_gpus = num_gpus
        self.has_driver = has_driver
        self.broken: dict[tuple[str, int], int] = {}
        self.processes: dict[int, list[int]] = {}
        self.num_open = 0
        self.energy_mj = 1_000_000
        self.has_gpm = True
        self.missing_gpm: set[int] = set()  # metrics of it that the cards do not have
        self.gpm_values = {2: 75.0, 5: 20.0, 10: 60.0, 60: 1000.0, 61: 500.0}  # by metric id
        self._gpm_reads = 0
        self._gpm_samples: dict[int, int] = {}  # address -> when it was read

    def _check(self, function: str, index: int) -> None:
        code = self.broken.get((function, index), self.broken.get(("all", index)))
        if code is not None:
            raise FakeNVMLError(code)

    def nvmlInit(self):
        if not self.has_driver:
            raise FakeNVMLError(NO_DRIVER)
        self.num_open += 1

    def nvmlShutdown(self):
        self.num_open -= 1

    def nvmlDeviceGetCount(self):
        return self.num_gpus

    def nvmlDeviceGetHandleByIndex(self, index):
        self._check("handle", index)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        index = int(uuid.removeprefix("GPU-"))
        self._check("handle", index)
        return index

    def nvmlDeviceGetIndex(self, handle):
        return handle

    def nvmlDeviceGetUUID(self, handle):
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, _handle):
        return "NVIDIA H200"

    def nvmlDeviceGetMemoryInfo(self, handle, version=None):
        self._check("memory", handle)
        reserved = 0 if version == self.nvmlMemory_v2 else 600 * 2**20
        return SimpleNamespace(total=150_754_820_096, used=2**30 + reserved)

    def nvmlDeviceGetUtilizationRates(self, handle):
        self._check("utilization", handle)
        return SimpleNamespace(gpu=50 + handle, memory=7)

    def nvmlDeviceGetClockInfo(self, handle, clock):
        self._check("clock", handle)
        return {1: 1980, 2: 3201}[clock]

    def nvmlDeviceGetMaxClockInfo(self, handle, clock):
        return self.nvmlDeviceGetClockInfo(handle, clock)

    def nvmlDeviceGetFieldValues(self, handle, fields):
        code = self.broken.get(("power_instant", handle), 0)
        self._check("fields", handle)
        assert fields == [186]
        return [SimpleNamespace(nvmlReturn=code, value=SimpleNamespace(uiVal=654_321))]

    def nvmlDeviceGetPowerUsage(self, handle):
        self._check("power", handle)
        return 600_000

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        self._check("limit", handle)
        return 700_000

    def nvmlDeviceGetCurrentEccMode(self, handle):
        self._check("ecc", handle)
        return 1

    def nvmlDeviceGetCudaComputeCapability(self, handle):
        self._check("capability", handle)
        return (9, 0)

    def nvmlDeviceGetTemperature(self, handle, _sensor):
        self._check("temperature", handle)
        return 61

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        self._check("reasons", handle)
        return 0x4

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        self._check("energy", handle)
        self.energy_mj += 500_000
        return self.energy_mj

    def nvmlGpmQueryDeviceSupport(self, handle):
        self._check("gpm_support", handle)
        return SimpleNamespace(isSupportedDevice=int(self.has_gpm))

    def nvmlGpmSampleAlloc(self):
        sample = pynvml.struct_c_nvmlGpmSample_t()
        pointer = ctypes.pointer(sample)
        self._gpm_samples[ctypes.addressof(sample)] = 0
        return pointer

    def nvmlGpmSampleGet(self, handle, sample):
        self._check("gpm", handle)
        self._gpm_reads += 1
        self._gpm_samples[ctypes.addressof(sample.contents)] = self._gpm_reads

    def nvmlGpmMetricsGet(self, question):
        assert question.version == 1
        read = [
            self._gpm_samples[ctypes.addressof(sample.contents)]
            for sample in (question.sample1, question.sample2)
        ]
        assert 0 < read[0] < read[1], "the earlier sample comes first"
        for metric in question.metrics[: question.numMetrics]:
            metric.nvmlReturn = UNSUPPORTED if metric.metricId in self.missing_gpm else 0
            metric.value = self.gpm_values[metric.metricId]
        return question

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        self._check("processes", handle)
        return [SimpleNamespace(pid=p, usedGpuMemory=2**20) for p in self.processes.get(handle, [])]

    def nvmlSystemGetDriverVersion(self):
        return "580.159.04"

    def nvmlSystemGetCudaDriverVersion_v2(self):
        return 13020


@pytest.fixture
def fake_nvml() -> type[FakeNvml]:
    return FakeNvml


@pytest.fixture
def vllm_page() -> str:
    """A real server's page, less most of its histograms."""
    return (Path(__file__).parent / "data/vllm-0.25.1-metrics.txt").read_text()


@pytest.fixture
def serve_page() -> Iterator[Callable[..., str]]:
    """Starts a server of one page and gives its URL; the page None is never answered.

    With a `key`, requests that do not send it as their Authorization are refused.
    """
    released = Event()
    servers: list[ThreadingHTTPServer] = []

    def start(page: bytes | None, status: int = 200, key: str | None = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if page is None:
                    released.wait()
                    return
                has_key = self.headers["Authorization"] == key
                self.send_response(status if has_key else 401)
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/metrics"

    yield start
    released.set()
    for server in servers:
        server.shutdown()
        server.server_close()
