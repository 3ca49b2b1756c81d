"""How busy a GPU was between two readings, by its own counters: NVML's GPM, on Hopper and later.

`utilization.gpu` only says that some kernel was running. These counters say what share of the
multiprocessors had work, how much of the time the tensor cores computed, and what share of the
memory bandwidth was used. Each value is a mean over the time since the last reading.
"""

from math import isnan, nan
from typing import Any

MIB = 2**20

# column -> (nvml.h's nvmlGpmMetricId_t, factor to base units). The header gives shares as
# "0.0 - 100.0" and NVLink traffic as "bandwidth for all links in MiB/sec".
METRICS = {
    "sm_activity_frac": ("NVML_GPM_METRIC_SM_UTIL", 0.01),
    "tensor_activity_frac": ("NVML_GPM_METRIC_ANY_TENSOR_UTIL", 0.01),
    "dram_bandwidth_frac": ("NVML_GPM_METRIC_DRAM_BW_UTIL", 0.01),
    "nvlink_rx_bytes_per_s": ("NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC", MIB),
    "nvlink_tx_bytes_per_s": ("NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC", MIB),
}


class Gpm:
    """The counters of one card. Raises the library's NVMLError if the card has none."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        if not nvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
            raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
        self._nvml = nvml
        self._handle = handle
        self._has_before = False
        self._before = nvml.nvmlGpmSampleAlloc()  # both are kept for the life of the process,
        self._now = nvml.nvmlGpmSampleAlloc()  # so that a reading allocates nothing
        self._unseen = set(METRICS)
        self._question = nvml.c_nvmlGpmMetricsGet_t()
        self._question.version = nvml.NVML_GPM_METRICS_GET_VERSION
        self._question.numMetrics = len(METRICS)
        for metric, (name, _) in zip(self._question.metrics, METRICS.values(), strict=False):
            metric.metricId = getattr(nvml, name)

    @property
    def lacks(self) -> list[str]:
        """Columns that never had a value, although others did."""
        return [name for name in METRICS if name in self._unseen < set(METRICS)]

    def read(self) -> list[float]:
        """The values of `METRICS` since the last call; all NaN at first, and NaN if lacking."""
        nvml, question = self._nvml, self._question
        nvml.nvmlGpmSampleGet(self._handle, self._now)
        question.sample1, question.sample2 = self._before, self._now
        self._before, self._now = self._now, self._before
        if not self._has_before:
            self._has_before = True
            return [nan] * len(METRICS)
        nvml.nvmlGpmMetricsGet(question)
        values = [
            metric.value * factor if metric.nvmlReturn == nvml.NVML_SUCCESS else nan
            for metric, (_, factor) in zip(question.metrics, METRICS.values(), strict=False)
        ]
        self._unseen -= {n for n, value in zip(METRICS, values, strict=True) if not isnan(value)}
        return values
