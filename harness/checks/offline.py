"""vLLM without a server: the throughput of the same engine with the same lengths, offline.

`harness/scripts/offline.py` runs in the server's interpreter, in its own process. Online throughput
divided by this shows what API server, HTTP and streaming cost; tokens are detokenised in both.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.engines.config import ServeSettings
from harness.engines.failure import EngineFailed, Failure, FailureKind, classify, tail
from harness.engines.process import Process
from loadgen.config import Load
from loadgen.lengths import sampler

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "offline.py"
STOP_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offline:
    """What vLLM achieved."""

    prompts: int
    input_tokens: int
    output_tokens: int
    elapsed_s: float
    output_tok_per_s: float  # output_tokens / elapsed_s, which excludes start and warm-up


def has_lengths(load: Load) -> bool:
    """Whether a load can be run offline: prompts that share nothing, with drawn lengths."""
    is_single = load.arrival != "trace" and load.conversation is None
    return is_single and load.prompts.kind == "unique" and load.ignore_eos


def obstacle(engine: ServeSettings) -> str | None:
    """Why an engine setting cannot be run without a server, in a sentence; None if it can.

    vLLM 0.25.1 and 0.32.0 (entrypoints/llm.py) refuse data parallelism in one process. It needs
    several processes, each with its own share of the prompts, unlike engines behind one API.
    """
    if (size := engine.data_parallel_size or 1) > 1:
        return (
            f"engine.data_parallel_size={size}: vLLM without a server is one engine, its LLM says"
            f' that data_parallel_size={size} "is not supported for single-process usage and may'
            ' hang"'
        )
    if (replicas := engine.replicas or 1) > 1:
        return f"engine.replicas={replicas}: vLLM without a server is one engine, no replicas of it"
    return None


def lengths(load: Load, prompts: int, seed: int) -> list[tuple[int, int]]:
    """Prompt and reply lengths, drawn as the load draws them."""
    random = np.random.default_rng(seed)
    draw_input, draw_output = sampler(load.input_tokens), sampler(load.output_tokens)
    return [(int(draw_input(random)), int(draw_output(random))) for _ in range(prompts)]


def measure(
    python: str,
    arguments: Sequence[str],
    env: dict[str, str],
    work: Sequence[tuple[int, int]],
    vocab_size: int,
    folder: Path,
    timeout_s: float,
) -> Offline:
    """Run vLLM offline; `arguments` are its flags. Its log and its results go to `folder`.

    Raises EngineFailed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    task, told, log = folder / "task.json", folder / "told.json", folder / "offline.log"
    for left in (told, log):  # of an earlier try, whose log would be read as this one's
        left.unlink(missing_ok=True)
    task.write_text(json.dumps({"lengths": work, "vocab_size": vocab_size}))
    process = Process([python, str(SCRIPT), str(task), str(told), *arguments], env, log)
    try:
        ended = process.has_exited(within_s=timeout_s)
    finally:
        process.stop(STOP_S)
    if told.is_file():  # written last, so it does not matter how vLLM then exits
        return Offline(**json.loads(told.read_text()))
    text = log.read_text(errors="replace")
    if not ended:
        message = (
            f"vLLM offline was not done within {timeout_s:.0f} s: see checks.offline.timeout_s"
        )
        raise EngineFailed(
            Failure(kind=FailureKind.START_TIMEOUT, message=message, evidence=tail(text))
        )
    raise EngineFailed(classify(text, process.exit_code))
