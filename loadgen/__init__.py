"""A load generator for OpenAI-compatible servers: what came back, and when.

    from loadgen import Generator, Load, Target, summarise

    load = Load(arrival="closed", concurrency=32, input_tokens=512, output_tokens=128)
    target = Target(url="http://127.0.0.1:8000", model="my-model", vocab_size=32000)
    with Generator() as generator:
        result = generator.run(load, target, seed=1)
    summary = summarise(result.requests, result.chunks, window=result.window, load=load)
    print(summary.output_tok_per_s, summary.ttft_p50_s, summary.tpot_p99_s)

The workers are spawned, so a script needs `if __name__ == "__main__":` around it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadgen.calibration import Calibration, calibrate
    from loadgen.config import Client, Load
    from loadgen.generator import Generator, WorkerError
    from loadgen.metrics import Summary, summarise
    from loadgen.null_server import NullServer
    from loadgen.records import Progress, Result, Target
    from loadgen.vllm_bench import vllm_bench_json

# Imported on first use: a worker process needs few of them.
_HOMES = {
    "Calibration": "calibration",
    "Client": "config",
    "Generator": "generator",
    "Load": "config",
    "NullServer": "null_server",
    "Progress": "records",
    "Result": "records",
    "Summary": "metrics",
    "Target": "records",
    "WorkerError": "generator",
    "calibrate": "calibration",
    "summarise": "metrics",
    "vllm_bench_json": "vllm_bench",
}

__all__ = [
    "Calibration",
    "Client",
    "Generator",
    "Load",
    "NullServer",
    "Progress",
    "Result",
    "Summary",
    "Target",
    "WorkerError",
    "calibrate",
    "summarise",
    "vllm_bench_json",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
