"""Run in the server's interpreter: vLLM's offline throughput, through its Python API.

    python offline.py TASK.json TOLD.json [vLLM's engine flags]

TASK holds {"lengths": [[input, output], …], "vocab_size": N}; TOLD gets what was measured.
"""

import json
import random
import sys
from pathlib import Path
from time import perf_counter

from vllm import LLM, EngineArgs, SamplingParams
from vllm.utils.argparse_utils import FlexibleArgumentParser

WARM_UP = 64  # requests before the clock starts: kernels are compiled by the first


def main(task: Path, told: Path, arguments: list[str]) -> None:
    work = json.loads(task.read_text())
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    known, _ = parser.parse_known_args(arguments)  # the front end's flags mean nothing here
    llm = LLM.from_engine_args(EngineArgs.from_cli_args(known))
    draw = random.Random(0)
    first = 3  # lower ids are often special
    prompts = [
        {"prompt_token_ids": [draw.randrange(first, work["vocab_size"]) for _ in range(length)]}
        for length, _ in work["lengths"]
    ]
    settings = [
        SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=length)
        for _, length in work["lengths"]
    ]
    llm.generate(prompts[:WARM_UP], settings[:WARM_UP], use_tqdm=False)
    llm.reset_prefix_cache()
    began_at_s = perf_counter()
    outputs = llm.generate(prompts, settings, use_tqdm=False)
    elapsed_s = perf_counter() - began_at_s
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    measured = {
        "prompts": len(prompts),
        "input_tokens": sum(length for length, _ in work["lengths"]),
        "output_tokens": tokens,
        "elapsed_s": elapsed_s,
        "output_tok_per_s": tokens / elapsed_s,
    }
    draft = told.with_suffix(".tmp")
    draft.write_text(json.dumps(measured) + "\n")
    draft.rename(told)  # whole or not at all


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
