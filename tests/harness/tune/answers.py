"""Answers made by hand."""

from dataclasses import replace
from typing import Any

from harness.engines.config import VllmEngine
from harness.guard.outcome import Comparison, Side
from harness.guard.outcome import Outcome as Compared
from harness.model import Model
from harness.tune.answer import Answer, Outcome, Spent, Tried
from harness.tune.deployment import Deployment
from harness.tune.finding import Finding
from harness.tune.proof import Proof, Result

GAIN = Finding(
    what="output_tok_per_s",
    metric="output_tok_per_s",
    before=24_700.0,
    after=44_500.0,
    ratio=1.8,
    low=1.73,
    high=1.88,
    word="improved",
    launches=3,
)
KEPT = Finding(
    what="tpot_p99_s < 1.1 x defaults",
    metric="tpot_p99_s",
    before=0.0229,
    after=0.0218,
    ratio=0.952,
    low=0.9,
    high=1.01,
    word="open",
    launches=3,
    more_launches=2,
)


def tried(number: int, setting: dict[str, Any], score: float | None, **more: Any) -> Tried:
    told: dict[str, Any] = {
        "state": "ok",
        "gains": (),
        "values": {"output_tok_per_s": 24_700 * (score or 0.0), "tpot_p99_s": 0.02},
        "violations": (),
        "failure": None,
    }
    return Tried(number=number, setting=setting, score=score, **(told | more))


TRIED = (
    tried(0, {}, 1.0),
    tried(1, {"max_num_seqs": 128}, 0.6, state="screened"),
    tried(2, {"api_server_count": 4}, 1.82),
    tried(3, {"api_server_count": 8, "max_num_seqs": 2048}, None, state="failed",
          failure="out_of_memory"),
    tried(4, {"api_server_count": 4, "max_num_seqs": 2048}, 2.05,
          violations=("tpot_p99_s < 1.1 x defaults: tpot_p99_s is 0.03",)),
    tried(5, {"api_server_count": 4, "stream_interval": 8}, 1.85),
)  # fmt: skip
SIDE = Side(study="s", engine="e", simulated=False, launches=3)
PROOF = Proof(
    result=Result.PROVEN,
    reason="",
    gains=(GAIN,),
    constraints=(KEPT,),
    contributions={
        "api_server_count": replace(GAIN, ratio=1.7, low=1.6, high=1.8),
        "stream_interval": replace(GAIN, ratio=1.01, low=0.99, high=1.03, word="unchanged"),
    },
    comparison=Comparison(
        verdict=Compared.PASS, summary="", baseline=SIDE, candidate=SIDE, confidence=0.95, family=4
    ),
    confidence=0.95,
    launches=3,
)
ANSWER = Answer(
    name="throughput",
    outcome=Outcome.PROVEN,
    reason="",
    simulated=False,
    engine="vLLM 0.25.1 on 2x NVIDIA H200",
    model="qwen2.5-1.5b",
    load="closed loop, concurrency 1024",
    goals=(("output_tok_per_s", True),),
    constraints=("tpot_p99_s < 1.1 x defaults",),
    space_size=400,
    dropped=("tune.space.dtype is left out: engine.dtype=bfloat16 pins it",),
    names=("max_num_seqs", "api_server_count", "stream_interval"),
    tried=TRIED,
    front=(),
    importances={"max_num_seqs": 0.2, "api_server_count": 0.7, "stream_interval": 0.0},
    spent=Spent(
        search_launches=6, proof_launches=12, budget_launches=24, seconds=2400, budget_s=3600
    ),
    winner=5,
    setting={"api_server_count": 4, "stream_interval": 8},
    deployment=Deployment.of(
        VllmEngine(tensor_parallel_size=2, api_server_count=4, stream_interval=8),
        Model(name="Qwen", path="Qwen/Qwen2.5-1.5B"),
        "0.25.1",
    ),
    conf="results/tune-throughput/x/conf",
    python="/opt/bin/python",
    model_choice="Qwen/Qwen2.5-1.5B",
    proof_study="proof/2026-11-21-abc",
    proof=PROOF,
    walls=("With the defaults the API server process is the limit (API server 1.01 of a core).",),
)
