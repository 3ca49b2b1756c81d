"""The peaks of a study's GPUs: as measured by an earlier validation, else from data sheets."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from harness.hardware.ceilings import Ceilings
from harness.hardware.saved import Validation, saved

REFERENCE = "reference"  # folder below an output folder: results that come with the repository
PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "fp8": "fp8"}  # type -> name in the probes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The peaks of one GPU."""

    flops_per_s: Mapping[str, float]  # dense, by type of values
    memory_bytes_per_s: float
    source: str = "datasheet"


def _hopper(memory_bytes_per_s: float) -> Ceiling:
    half = 989.5e12
    return Ceiling(
        flops_per_s={"bfloat16": half, "float16": half, "fp8": 1979e12},
        memory_bytes_per_s=memory_bytes_per_s,
    )


# By NVML's name, so that a PCIe or NVL card is not mistaken for the SXM one. NVIDIA's data sheets
# of H200 and H100 state 1,979 (BF16, FP16) and 3,958 TFLOPS (FP8) for the SXM cards, both "with
# sparsity": dense is half. Memory: 4.8 TB/s and 3.35 TB/s. The A100 80GB data sheet states 312
# TFLOPS (BF16, FP16) dense and 2,039 GB/s for SXM; that card has no FP8.
CEILINGS = {
    "NVIDIA H200": _hopper(4.8e12),
    "NVIDIA H100 80GB HBM3": _hopper(3.35e12),
    "NVIDIA A100-SXM4-80GB": Ceiling(
        flops_per_s={"bfloat16": 312e12, "float16": 312e12}, memory_bytes_per_s=2.039e12
    ),
}


def last_validation(study: Path, about: Mapping[str, Any]) -> Validation | None:
    """The last validation of the study's GPUs before it; None if there is none.

    Validations are looked for where `validate` puts them, beside the study and beside its sweep,
    and among the reference results: those in that output folder, and those the study belongs to.
    """
    uuids = {gpu.get("uuid") for gpu in about.get("environment", {}).get("gpus", ())} - {None}
    if not uuids:
        return None
    parents = study.resolve().parents
    outs = parents[:2]
    references = [outs[-1] / REFERENCE, *(one for one in parents if one.name == REFERENCE)]
    begun_utc = about.get("begun_utc", "")
    before = [
        one
        for one in saved(*outs, *(home for one in references for home in one.glob("*")))
        if uuids <= one.uuids and one.begun_utc <= begun_utc
    ]
    return before[-1] if before else None


def measured_ceiling(study: Path, about: Mapping[str, Any]) -> Ceiling | None:
    """The peaks that the study's GPUs reached in their last validation before it, averaged.

    None without such a validation. A peak that was not measured on every GPU is left out.
    """
    last = last_validation(study, about)
    if last is None:
        return None
    uuids = {gpu.get("uuid") for gpu in about["environment"]["gpus"]}
    found = Ceilings(last.measurements)
    told = last.document["environment"]["gpus"]
    gpus = [gpu["index"] for gpu in told if gpu["uuid"] in uuids]
    memory = _mean([found.memory_bytes_per_s(gpu) for gpu in gpus])
    flops = {
        name: _mean([found.flops_per_s(gpu, precision) for gpu in gpus])
        for name, precision in PRECISIONS.items()
    }
    if memory is None:
        return None
    known = {name: value for name, value in flops.items() if value is not None}
    source = f"validation {last.id}"
    return Ceiling(flops_per_s=known, memory_bytes_per_s=memory, source=source)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None
