"""Drive an OpenAI-compatible server that is already up, and print what it does.

python -m loadgen --url http://127.0.0.1:8000 --concurrency 8 --duration 10
"""

import argparse
import json
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict

from pydantic import ValidationError

from loadgen.config import Load
from loadgen.generator import Generator
from loadgen.metrics import summarise
from loadgen.records import Progress, Target


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadgen", description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", help="default: the first of /v1/models")
    parser.add_argument("--vocab-size", type=int, default=32000, help="of the model, or less")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--concurrency", type=int, help="closed loop: requests in flight")
    pace.add_argument("--rate", type=float, help="open loop: Poisson arrivals a second")
    parser.add_argument("--input-tokens", type=int, default=512)
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--endpoint", default="completions", help="completions or chat")
    parser.add_argument("--duration", type=float, default=20.0, help="seconds measured")
    parser.add_argument("--warmup", type=float, default=5.0, help="seconds before, at least")
    parser.add_argument("--seed", type=int, default=0, help="another one, other prompts")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    try:
        load = Load(
            arrival="closed" if args.rate is None else "poisson",
            concurrency=args.concurrency or 1 if args.rate is None else None,
            rate_rps=args.rate,
            input_tokens=args.input_tokens,
            output_tokens=args.output_tokens,
            endpoint=args.endpoint,
            duration_s=args.duration,
            warmup_s=args.warmup,
            warmup_max_s=max(30.0, 2 * args.warmup),
        )
        model = args.model or first_model(args.url)
        target = Target(url=args.url, model=model, vocab_size=args.vocab_size)
    except (ValidationError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with Generator() as generator:
        result = generator.run(load, target, seed=args.seed, on_progress=show)
    summary = summarise(result.requests, result.chunks, window=result.window, load=load)
    print(file=sys.stderr)
    for name, value in asdict(summary).items():
        print(f"{name:24}{'-' if value is None else format(value, '.6g')}")
    for failure in sorted(set(result.requests["failure"]) - {""}):
        mine = result.requests["failure"] == failure
        print(f"{failure}: {mine.sum()} requests, e.g. {result.requests['detail'][mine][0]}")
    return 1 if summary.requests_ok == 0 else 0


def first_model(url: str) -> str:
    with urllib.request.urlopen(f"{url.rstrip('/')}/v1/models", timeout=10) as reply:
        return str(json.load(reply)["data"][0]["id"])


def show(progress: Progress) -> None:
    line = (
        f"{progress.phase} {progress.elapsed_s:.0f}/{progress.planned_s:.0f} s, "
        f"{progress.output_tok_per_s:.0f} tok/s, {progress.in_flight} in flight, "
        f"{progress.completed} done, {progress.failed} failed"
    )
    print(f"\r{line:78}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
