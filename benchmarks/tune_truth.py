"""The truth that the search is judged by: every setting of a grid, played in virtual time.

Three models on the GPUs that they fit, each under two loads, 432 settings each: 2,592 points of the
simulator, a quarter of an hour on one core. It writes `benchmarks/data/tune_truth.parquet`, which
`tune_search.py` reads: one row a point, a name of CASES, the settings (empty: left to vLLM) and
what came out of it.

    python benchmarks/tune_truth.py
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness.sim.decoder import Decoder  # noqa: E402
from harness.sim.gpus import GPUS  # noqa: E402
from harness.sim.options import (  # noqa: E402
    default_max_num_batched_tokens,
    default_max_num_seqs,
)
from tests.harness.sim.virtual import Clients, VirtualTime  # noqa: E402

TRUTH = ROOT / "benchmarks/data/tune_truth.parquet"
NUM_GPUS = 2
# Loads are small, so that a point takes a fraction of a second: short replies turn over fast.
SPACE: dict[str, tuple[int | None, ...]] = {
    "max_num_seqs": (None, 8, 16, 32, 64, 96),
    "max_num_batched_tokens": (None, 256, 1024, 2048),
    "api_server_count": (None, 2, 4),
    "stream_interval": (None, 4, 16),
    "replicas": (None, 2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model on a GPU under a load."""

    model: str
    gpu: str
    concurrency: int
    input_tokens: int
    output_tokens: tuple[int, int]

    @property
    def name(self) -> str:
        return f"{self.model}, {self.input_tokens} in, {self.concurrency} streams"

    @property
    def decoder(self) -> Decoder:
        shape = yaml.safe_load((ROOT / f"conf/model/{self.model}.yaml").read_text())["shape"]
        return Decoder.of(shape)


CASES = [
    Case(model=model, gpu=gpu, concurrency=streams, input_tokens=tokens, output_tokens=replies)
    for model, gpu in (("qwen2.5-1.5b", "h100"), ("qwen2.5-7b", "h200"), ("llama-3.1-8b", "b200"))
    for streams, tokens, replies in ((128, 128, (32, 96)), (96, 512, (16, 48)))
]


def settings() -> Iterator[dict[str, int | None]]:
    """The grid, the defaults first."""
    for values in product(*SPACE.values()):
        yield dict(zip(SPACE, values, strict=True))


def play(case: Case, setting: dict[str, int | None]) -> dict[str, Any]:
    """What a setting gives: replicas share the streams and are alike, so one is played."""
    gpu = GPUS[case.gpu]
    replicas = setting["replicas"] or 1
    seqs = setting["max_num_seqs"] or default_max_num_seqs(gpu)
    tokens = setting["max_num_batched_tokens"] or default_max_num_batched_tokens(gpu)
    clients = Clients(
        time=VirtualTime(
            max_num_seqs=min(seqs, tokens),
            max_num_batched_tokens=tokens,
            api_server_count=setting["api_server_count"] or 1,
            decoder=case.decoder,
            gpu=gpu,
            tensor_parallel_size=NUM_GPUS // replicas,
        ),
        warmup_s=1.5,
        window_s=2.5,
        concurrency=case.concurrency // replicas,
        input_tokens=case.input_tokens,
        output_tokens=case.output_tokens,
        stream_interval=setting["stream_interval"] or 1,
    ).run()
    return {
        "case": case.name,
        **setting,
        "output_tok_per_s": clients.output_tok_per_s * replicas,
        "tpot_p50_s": clients.tpot_s,
        "tpot_p99_s": float(np.percentile(clients.tpots_s, 99)),
        "ttft_p50_s": clients.ttft_s,
        "ttft_p99_s": float(np.percentile(clients.ttfts_s, 99)),
    }


def main() -> None:
    points = list(product(CASES, settings()))
    with ProcessPoolExecutor() as workers:
        rows = list(workers.map(play, *zip(*points, strict=True), chunksize=20))
    table = pd.DataFrame(rows)
    table[list(SPACE)] = table[list(SPACE)].astype("Int32")
    measured = [name for name in table.columns if name.endswith("_s")]
    table[measured] = table[measured].astype("float32")
    TRUTH.parent.mkdir(exist_ok=True)
    table.to_parquet(TRUTH, compression="zstd")
    print(f"{len(table)} points in {TRUTH}")


if __name__ == "__main__":
    main()
