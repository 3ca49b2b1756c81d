"""Load a running OpenAI-compatible server, and print its latency and throughput.

python -m loadgen http://127.0.0.1:8000 --concurrency 64
python -m loadgen http://127.0.0.1:8000 --rate 10 --dataset conversations.json --endpoint chat
"""

import argparse
import json
import math
import os
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from pydantic import ValidationError

from loadgen.calibration import Calibration, calibrate
from loadgen.config import Client, Load
from loadgen.generator import Generator, WorkerError
from loadgen.metrics import MIN_REPLIES, Summary, failures_by_kind, reply_s, summarise
from loadgen.null_server import NullServerError
from loadgen.prompts import check_files
from loadgen.records import Columns, Progress, Result, Target
from loadgen.vllm_bench import vllm_bench_json
from loadgen.wording import rule_of

TIMES = ("ttft", "tpot", "itl", "e2e")
STATISTICS = ("mean", "p50", "p90", "p99")
OPTIONS = {  # name in loadgen/config.py -> option
    "rate_rps": "--rate",
    "rate_end_rps": "--rate-end",
    "dataset": "--dataset",
    "groups": "--prefix-groups",
    "hit_frac": "--prefix-hit-frac",
    "think_s": "--think",
    "warmup_s": "--warmup",
    "duration_s": "--duration",
    "input_tokens": "--input-tokens",
    "output_tokens": "--output-tokens",
    **{name: f"--{name}" for name in ("arrival", "burstiness", "concurrency", "endpoint")},
    **{name: f"--{name}" for name in ("speed", "trace", "transport", "turns", "workers")},
}


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    try:
        load, client, target = load_of(args), client_of(args), target_of(args)
        check_files(load)
        client = replace(client, transport=client.transport_for(target.url))
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
        if args.calibrate:
            measured = calibrated(client, load)
            print_calibration(measured)
            client = replace(client, workers=measured.workers)
    except ValidationError as error:
        refuse(sentence(error))
    except (ValueError, OSError, NullServerError, WorkerError) as error:
        refuse(str(error))
    try:
        with Generator(client) as generator:
            result = generator.run(load, target, seed=args.seed, on_progress=show)
    except WorkerError as error:
        print(f"\nloadgen: {error}", file=sys.stderr)
        return 1
    print(file=sys.stderr)
    summary = summarise(result.requests, result.chunks, window=result.window, load=load)
    print_summary(summary, result)
    if args.out is not None:
        write(args.out, result, summary, target)
    return 1 if summary.requests_ok == 0 else 0


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        refuse(message)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m loadgen",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("url", metavar="URL", help="e.g. http://127.0.0.1:8000")
    add("--model", metavar="NAME", help="default: the first of /v1/models")
    add(
        "--vocab-size",
        metavar="N",
        type=int,
        default=32000,
        help="vocabulary size of the model, or less [32000]",
    )
    add("--api-key-env", metavar="NAME", help="environment variable with the API key")
    add(
        "--header-env",
        metavar="HEADER=NAME",
        action="append",
        default=[],
        help="one more header, from an environment variable; repeatable",
    )
    add("--concurrency", metavar="N", type=int, help="closed loop: requests kept in flight [1]")
    add("--rate", metavar="RPS", type=float, help="open loop: arrivals per second")
    add("--arrival", metavar="KIND", help="with --rate: poisson, constant, gamma or ramp [poisson]")
    add("--burstiness", metavar="SHAPE", type=float, help="gamma: 1 is Poisson, below 1 is bursty")
    add("--rate-end", metavar="RPS", type=float, help="ramp: arrivals per second at window end")
    add("--trace", metavar="FILE", help="replay arrivals and lengths: Mooncake JSONL, BurstGPT CSV")
    add("--speed", metavar="X", type=float, default=1.0, help="trace: replay speed [1]")
    add("--input-tokens", metavar="N", type=int, default=512, help="prompt length [512]")
    add("--output-tokens", metavar="N", type=int, default=128, help="reply length [128]")
    add("--dataset", metavar="FILE", help="text prompts: ShareGPT JSON or OpenAI messages JSONL")
    add(
        "--prefix-groups", metavar="N", type=int, help="prompts start with one of N shared prefixes"
    )
    add(
        "--prefix-hit-frac",
        metavar="X",
        type=float,
        default=0.5,
        help="… which makes up this share of the prompt [0.5]",
    )
    add("--turns", metavar="N", type=int, help="chat: requests per conversation")
    add("--think", metavar="S", type=float, default=0.0, help="… and seconds between turns [0]")
    add(
        "--endpoint",
        metavar="KIND",
        default="completions",
        help="completions or chat [completions]",
    )
    add("--no-stream", dest="stream", action="store_false", help="ask for whole replies")
    add(
        "--warmup",
        metavar="S",
        type=float,
        default=5.0,
        help="minimum seconds of load before the window [5]",
    )
    add("--duration", metavar="S", type=float, default=20.0, help="seconds to measure [20]")
    add(
        "--seed", metavar="N", type=int, default=0, help="seed; another one gives other prompts [0]"
    )
    add("--transport", metavar="KIND", default="auto", help="direct, aiohttp or auto [auto]")
    add(
        "--workers",
        metavar="N",
        type=int,
        help="number of sending processes [1, or as many as --calibrate finds necessary]",
    )
    add("--calibrate", action="store_true", help="first measure the client's own error")
    add("--out", type=Path, metavar="FOLDER", help="write every request and chunk to this folder")
    return parser.parse_args(arguments)


def load_of(args: argparse.Namespace) -> Load:
    """The load that the options describe. Raises ValueError if they contradict each other."""
    paces = [name for name in ("concurrency", "rate", "trace") if getattr(args, name) is not None]
    if len(paces) > 1:
        raise ValueError(f"--{' and --'.join(paces)}: a load has one pace, take one of them")
    pace = paces[0] if paces else "concurrency"
    if args.arrival is not None and pace != "rate":
        raise ValueError("--arrival is for --rate")
    arrival = {"concurrency": "closed", "rate": args.arrival or "poisson", "trace": "trace"}[pace]
    prompts: dict[str, Any] = {"kind": "unique"}
    if args.dataset is not None:
        prompts = {"kind": "dataset", "path": args.dataset}
    elif args.prefix_groups is not None:
        prompts = {"kind": "shared_prefix", "groups": args.prefix_groups}
        prompts["hit_frac"] = args.prefix_hit_frac
    conversation: dict[str, Any] | None = None
    if args.turns is not None:
        conversation = {"turns": args.turns, "think_s": args.think}
    fields: dict[str, Any] = {
        "arrival": arrival,
        "concurrency": 1 if not paces else args.concurrency,
        "rate_rps": args.rate,
        "burstiness": args.burstiness,
        "rate_end_rps": args.rate_end,
        "trace": {"path": args.trace, "speed": args.speed} if pace == "trace" else None,
        "prompts": prompts,
        "conversation": conversation,
    }
    return Load(
        **fields,
        input_tokens=args.input_tokens,
        output_tokens=args.output_tokens,
        endpoint=args.endpoint,
        stream=args.stream,
        duration_s=args.duration,
        warmup_s=args.warmup,
        warmup_max_s=max(30.0, 2 * args.warmup),
    )


def client_of(args: argparse.Namespace) -> Client:
    return Client(transport=args.transport, workers=args.workers)


def target_of(args: argparse.Namespace) -> Target:
    """The server to drive. Raises ValueError or OSError if it cannot be asked for its model."""
    headers = {}
    for pair in args.header_env:
        name, _, variable = pair.partition("=")
        headers[name] = from_environment(variable)
    if args.api_key_env is not None:
        headers["Authorization"] = f"Bearer {from_environment(args.api_key_env)}"
    known = Target(url=args.url, model="", vocab_size=args.vocab_size, headers=headers)
    model = args.model or first_model(known)
    return Target(url=args.url, model=model, vocab_size=args.vocab_size, headers=headers)


def from_environment(variable: str) -> str:
    if not (value := os.environ.get(variable)):
        raise ValueError(f"the environment has no variable {variable!r}")
    return value


def first_model(target: Target) -> str:
    url = f"{target.url.rstrip('/')}/v1/models"
    request = urllib.request.Request(url, headers=dict(target.headers))
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return str(json.load(reply)["data"][0]["id"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{url} names no model ({error}): start the server, or say --model")  # noqa: B904


def calibrated(client: Client, load: Load) -> Calibration:
    streams = load.concurrency or 64
    return calibrate(client, streams=streams, chunks_per_s=min(60_000.0, 100.0 * streams))


def show(progress: Progress) -> None:
    line = (
        f"{progress.phase} {progress.elapsed_s:.0f}/{progress.planned_s:.0f} s, "
        f"{progress.output_tok_per_s:.0f} tok/s, {progress.in_flight} in flight, "
        f"{progress.completed} done, {progress.failed} failed"
    )
    print(f"\r{line:78}", end="", file=sys.stderr, flush=True)


def print_calibration(measured: Calibration) -> None:
    probe = measured.at_load
    print(
        f"client        overstates TTFT by {milliseconds(probe.ttft_error_p50_s)} ms (p50), "
        f"{milliseconds(probe.ttft_error_p99_s)} ms (p99) at {probe.streams} streams and "
        f"{probe.chunks_per_s:,.0f} chunks/s; good to {measured.clean_chunks_per_s:,.0f} chunks/s"
    )


def print_summary(summary: Summary, result: Result) -> None:
    """Print the summary for people, with times in milliseconds."""
    told = asdict(summary)
    print(f"{'':6}" + "".join(f"{name + ' ms':>12}" for name in STATISTICS))
    for time in TIMES:
        values = [told.get(f"{time}_{statistic}_s") for statistic in STATISTICS]
        print(f"{time.upper():6}" + "".join(f"{milliseconds(value):>12}" for value in values))
    print(
        f"output        {number(summary.output_tok_per_s)} tok/s, "
        f"{number(summary.requests_per_s)} requests/s over {number(summary.window_s)} s\n"
        f"requests      {summary.requests_ok} ok, {summary.requests_failed} failed, "
        f"{summary.requests_cut} cut off\n"
        f"client        {result.client.transport}, {result.client.workers} worker(s), "
        f"{number(result.client.cpu_frac)} of a core, requests sent "
        f"{milliseconds(summary.send_lag_p99_s)} ms late (p99)"
    )
    took_s, window_s = reply_s(result.requests), summary.window_s
    if not result.load.is_open and took_s is not None and window_s and took_s > window_s:
        print(
            f"window        shorter than a reply, which took {number(took_s)} s: "
            f"--duration {math.ceil(MIN_REPLIES * took_s)}"
        )
    for kind, count in failures_by_kind(result.requests).items():
        detail = result.requests["detail"][result.requests["failure"] == kind][0]
        print(f"failed        {count} {kind}, e.g. {detail}")


def milliseconds(value_s: float | None) -> str:
    return "–" if value_s is None else f"{value_s * 1e3:,.2f}"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"


def write(folder: Path, result: Result, summary: Summary, target: Target) -> None:
    """Write requests.csv, chunks.csv, summary.json, and vllm_bench.json as vLLM's tool would."""
    write_csv(folder / "requests.csv", result.requests)
    write_csv(folder / "chunks.csv", result.chunks)
    told = {
        "load": asdict(result.load),
        "window": asdict(result.window),
        "client": asdict(result.client),
        "summary": asdict(summary),
    }
    (folder / "summary.json").write_text(json.dumps(told, indent=1) + "\n")
    bench = vllm_bench_json(
        result.requests, result.chunks, window=result.window, load=result.load, model=target.model
    )
    (folder / "vllm_bench.json").write_text(json.dumps(bench) + "\n")
    print(f"requests.csv, chunks.csv, summary.json, vllm_bench.json: {folder}")


def write_csv(path: Path, columns: Columns) -> None:
    import csv

    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(
            zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True)
        )


def sentence(error: ValidationError) -> str:
    """One sentence about the first wrong value, naming its option."""
    first = error.errors()[0]
    rule = rule_of(first)
    options = [OPTIONS[str(part)] for part in first["loc"] if str(part) in OPTIONS]
    if options:
        return f"{options[-1]} {first['input']}: {rule}"
    name, _, said = rule.partition(" ")  # a rule about several fields begins with one's name
    return f"{OPTIONS.get(name, name)} {said}"


def refuse(message: str) -> NoReturn:
    print(f"loadgen: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    sys.exit(main())
