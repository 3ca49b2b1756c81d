"""The GPUs that the simulator can imitate, with the peaks from their data sheets.

Sources: NVIDIA's data sheets of B200 (HGX), H200 SXM, H100 SXM, A100 80GB SXM, L40S and L4, and
AWS's page on the G5 instances for A10G. Compute is dense BF16 (data sheets often print twice that,
with sparsity). The link's bandwidth is what one GPU can send to its peers in one direction: half of
NVLink's printed bandwidth, or PCIe 4.0 x16. H200's memory is what NVML reports of the card; the
others have their nominal sizes.
"""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    name: str
    memory_bytes: int
    memory_bytes_per_s: float
    flops_per_s: float
    link_bytes_per_s: float
    link_latency_s: float
    """Of one small all-reduce; typical values, on no data sheet."""


NVLINK_LATENCY_S = 6e-6
PCIE_LATENCY_S = 20e-6


def _gpu(
    name: str, memory_bytes: int, memory_tb: float, tflops: float, link_gb: float, *, nvlink: bool
) -> Gpu:
    return Gpu(
        name=name,
        memory_bytes=memory_bytes,
        memory_bytes_per_s=memory_tb * 1e12,
        flops_per_s=tflops * 1e12,
        link_bytes_per_s=link_gb * 1e9,
        link_latency_s=NVLINK_LATENCY_S if nvlink else PCIE_LATENCY_S,
    )


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("b200", 180 * GIB, 8.0, 2250, 900, nvlink=True),
        _gpu("h200", 150_754_820_096, 4.8, 989, 450, nvlink=True),
        _gpu("h100", 80 * GIB, 3.35, 989, 450, nvlink=True),
        _gpu("a100", 80 * GIB, 2.039, 312, 300, nvlink=True),
        _gpu("l40s", 48 * GIB, 0.864, 362, 32, nvlink=False),
        _gpu("l4", 24 * GIB, 0.300, 121, 32, nvlink=False),
        _gpu("a10g", 24 * GIB, 0.600, 70, 32, nvlink=False),
    )
}
