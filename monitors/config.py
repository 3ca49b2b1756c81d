"""How often to sample: `monitor.*` of the configuration."""

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Monitor:
    """Sampling intervals. GPUs change fastest; a scrape of /metrics costs the server CPU time."""

    enabled: bool = Field(default=True, description="sample GPUs, server and host during each run")
    gpu_interval_s: float = Field(
        default=0.1, ge=0.01, description="time between readings of every GPU"
    )
    server_interval_s: float = Field(
        default=0.25, ge=0.01, description="time between scrapes of /metrics"
    )
    host_interval_s: float = Field(
        default=0.5, ge=0.01, description="time between readings of the server's processes"
    )
