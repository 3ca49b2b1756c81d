"""Measurements, snapshots and validations made by hand."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.hardware.probes.record import Measurement

UUIDS = ("GPU-aa", "GPU-bb")


def measurement(name: str = "gemm.bf16.8192", **changes: Any) -> Measurement:
    told: dict[str, Any] = {"gpus": (0,), "unit": "FLOP/s", "value": 780e12, "spread_frac": 0.01}
    return Measurement(name=name, **(told | changes))


def card_of(gpu: int, scale: float = 1.0) -> list[Measurement]:
    """What one sound H200 gives, or `scale` of it."""
    return [
        measurement(gpus=(gpu,), value=scale * 780e12),
        measurement("gemm.bf16.max", gpus=(gpu,), value=scale * 790e12),
        measurement("gemm.fp8.max", gpus=(gpu,), value=scale * 1300e12),
        measurement("memory.read", gpus=(gpu,), unit="B/s", value=scale * 4.2e12),
        measurement("memory.copy", gpus=(gpu,), unit="B/s", value=scale * 4.3e12),
    ]


def environment(**changes: Any) -> dict[str, Any]:
    """As validation.json and study.json have it."""
    gpu = {"name": "NVIDIA H200", "memory_total_bytes": 150_754_820_096, "power_limit_w": 700.0}
    board = {"nvlink_links": 18, "temperature_c": 30, "throttle_reasons": ["gpu_idle"]}
    told = {
        "gpus": [gpu | {"index": place, "uuid": uuid} for place, uuid in enumerate(UUIDS)],
        "boards": [board | {"uuid": uuid} for uuid in UUIDS],
        "driver_version": "580.159.04",
        "packages": {"torch": "2.11.0"},
        "variables": {"NCCL_NVLS_ENABLE": "0"},
        "host": {"kernel": "Linux 6.18", "memory_bytes": 2**38},
        "git_commit": "a" * 40,
    }
    return json.loads(json.dumps(told | changes))  # type: ignore[no-any-return]


def document(measurements: list[Measurement], **changes: Any) -> dict[str, Any]:
    told = {
        "begun_utc": "2026-11-21 10:00:00",
        "took_s": 200.0,
        "options": {"rehearsal": False},
        "environment": environment(),
        "measurements": [asdict(one) for one in measurements],
        "rows": [],
        "verdict": "PASS",
        "drift": {"since": None, "differences": []},
    }
    return json.loads(json.dumps(told | changes))  # type: ignore[no-any-return]


def save(out: Path, name: str, measurements: list[Measurement], **changes: Any) -> Path:
    """A validation on disk."""
    folder = out / "validation" / name
    folder.mkdir(parents=True)
    (folder / "validation.json").write_text(json.dumps(document(measurements, **changes)))
    return folder
