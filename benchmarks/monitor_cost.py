"""What monitoring costs, and how punctual it is, on the machine at hand.

    python benchmarks/monitor_cost.py
    python benchmarks/monitor_cost.py --url http://127.0.0.1:8000 --pid 4242 --concurrency 256

Without a GPU the readings are of a fake NVML: what Python adds to a driver's calls. With --url the
same load is run against that server in pairs, monitored and not, in turns; the ratio of their
throughputs has a 95 % interval (Student's t over the logarithms of the pairs' ratios).
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import exp, log, sqrt
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean, median, stdev
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.environment import visible
from monitors.config import Monitor
from monitors.host import ProcessTree
from monitors.nvml import GpuReadings, gpus
from monitors.sampler import Sampler, Samples, Targets
from monitors.timing import missed
from monitors.vllm_metrics import NAMES, VllmMetrics, parse

if TYPE_CHECKING:
    from loadgen.config import Load
    from loadgen.generator import Generator
    from loadgen.records import Target

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "tests/monitors/data/vllm-0.25.1-metrics.txt"
PAGE_BYTES = 48_000  # of vLLM 0.25.1 with one engine, with all of its histograms
REPEATS = 50
MIN_PAIRS = 5
# Student's t, two-sided 95 %, by degrees of freedom
T_95 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179)


def main() -> int:
    options = parse_arguments()
    cards = visible(gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    uuids, library = tuple(card.uuid for card in cards), None
    if not cards:
        library = fake_nvml()
        uuids = ("GPU-0", "GPU-1") if library else ()
        what = "a fake NVML of 2 GPUs" if library else "none (the fake one needs pytest)"
        print(f"no GPU here: NVML is {what}")
    else:
        print(f"{len(cards)}x {cards[0].name}")
    print(f"{len(os.sched_getaffinity(0))} cores\n")
    with metrics_server() as url:
        if uuids:
            print_gpu_costs(uuids, library)
        print_server_costs(url)
        print_cost("processes: this one and its children", ProcessTree([os.getpid()], 0.5))
        for interval_s in (0.1, 0.01):
            print_punctuality(interval_s, options.seconds, uuids, library, url)
    if options.url is not None:
        print_pairs(options, uuids if cards else ())
    else:
        print("\nno --url: the cost for a server's throughput was not measured")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seconds", type=float, default=10.0, help="of each test of punctuality [10]")
    add("--url", help="of a server that is up, e.g. http://127.0.0.1:8000")
    add("--pid", type=int, help="root of its process tree, which is then watched too")
    add("--pairs", type=int, default=MIN_PAIRS, help=f"at least {MIN_PAIRS} [{MIN_PAIRS}]")
    add("--concurrency", type=int, default=64, help="requests in flight [64]")
    add("--duration", type=float, default=15.0, help="seconds of each window [15]")
    add("--warmup", type=float, default=5.0, help="seconds before it [5]")
    add("--input-tokens", type=int, default=512, help="[512]")
    add("--output-tokens", type=int, default=128, help="[128]")
    add("--workers", type=int, default=1, help="processes of the load generator [1]")
    add("--vocab-size", type=int, default=1000, help="token ids prompts are made of [1000]")
    options = parser.parse_args()
    if options.pairs < MIN_PAIRS or options.pairs > len(T_95) + 1:
        parser.error(f"--pairs must be {MIN_PAIRS} to {len(T_95) + 1}")
    return options


def fake_nvml() -> Any:
    sys.path.insert(0, str(ROOT))
    try:
        from tests.monitors.conftest import FakeNvml
    except ImportError:
        return None
    return FakeNvml()


def timed_s(act: Callable[[], Any], repeats: int = REPEATS) -> list[float]:
    taken_s = []
    for _ in range(repeats):
        began_at_s = perf_counter()
        act()
        taken_s.append(perf_counter() - began_at_s)
    return taken_s


def say(what: str, taken_s: list[float]) -> None:
    p99_s = float(np.quantile(taken_s, 0.99))
    print(f"{what:48}{median(taken_s) * 1e3:9.3f} ms{p99_s * 1e3:10.3f} ms p99")


def print_cost(what: str, source: Any) -> None:
    list(source.sample(edge=True))  # opens what there is to open
    say(what, timed_s(lambda: list(source.sample(edge=False))))


def print_gpu_costs(uuids: tuple[str, ...], library: Any) -> None:
    readings = GpuReadings(uuids, 0.1, library)
    rows = list(readings.sample(edge=True))
    sleep(0.2)
    rows = list(readings.sample(edge=False))
    say(f"GPUs: a sample of {len(rows)}", timed_s(lambda: list(readings.sample(edge=False))))
    card = (readings._cards or [])[0]
    say("  one card: GPM", timed_s(card.activity))
    for column in readings.columns[-len(card._sensors) :]:
        say(f"  one card: {column}", timed_s(partial(card.read, column)))
    for row in rows:
        shown = zip(readings.columns[1:], row[1:], strict=True)
        print("  read: " + ", ".join(f"{name} {value:.6g}" for name, value in shown))
    for note in readings.notes:
        print(f"  note: {note}")


def print_server_costs(url: str) -> None:
    print_cost(f"/metrics: a scrape of {PAGE_BYTES / 1e3:.0f} kB", VllmMetrics([url], 0.25))
    text = page()
    say("  of that: picking the lines and parsing them", timed_s(lambda: parse(text)))


def page() -> str:
    """The real page, with its unread lines again and again until it is as long as a whole one."""
    text = PAGE.read_text()
    unread = [
        line
        for line in text.splitlines()
        if line.startswith("vllm:") and line.partition("{")[0] not in NAMES
    ]
    while len(text) < PAGE_BYTES:
        text += "\n".join(unread) + "\n"
    return text[:PAGE_BYTES].rpartition("\n")[0] + "\n"


@contextmanager
def metrics_server() -> Iterator[str]:
    """A server of that page, in a process of its own."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve_page, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/metrics"
    finally:
        process.kill()
        process.join()


def serve_page(pipe: Connection) -> None:
    text = page().encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_port)
    server.serve_forever()


def print_punctuality(
    interval_s: float, seconds: float, uuids: tuple[str, ...], library: Any, url: str
) -> None:
    """All three sources at once, as in a run."""
    config = Monitor(gpu_interval_s=interval_s)
    sampler = Sampler(config, Targets(metrics_urls=(url,), root_pids=(os.getpid(),)))
    if uuids:
        sampler._sources["gpu"] = GpuReadings(uuids, interval_s, library)
        sampler._absent.clear()
    with sampler:
        sampler.start()
        opened_at_s = perf_counter()
        sleep(seconds)
        closed_at_s = perf_counter()
        samples = sampler.stop()
    print(f"\nGPUs each {interval_s * 1e3:g} ms, all sources together, for {seconds:g} s:")
    for name in ("gpu", "server", "host"):
        print(f"  {name:8}{punctuality(samples, name, opened_at_s, closed_at_s)}")
    for note in samples.notes:
        print(f"  note: {note}")


def punctuality(samples: Samples, name: str, opened_at_s: float, closed_at_s: float) -> str:
    late_s = getattr(samples, name)["late_s"]
    late_s = late_s[~np.isnan(late_s)] * 1e3
    if not late_s.size:
        return "no samples"
    p50, p99, most = np.quantile(late_s, 0.5), np.quantile(late_s, 0.99), late_s.max()
    left_out = missed(samples, opened_at_s, closed_at_s, (name,)) or 0
    return (
        f"{late_s.size} samples, begun late by {p50:.2f} ms (p50), {p99:.2f} ms (p99),"
        f" {most:.2f} ms (most); {left_out:.0f} missed"
    )


def print_pairs(options: argparse.Namespace, uuids: tuple[str, ...]) -> None:
    """The same load, monitored and not, in turns: which is first changes from pair to pair."""
    from loadgen.__main__ import first_model
    from loadgen.config import Client, Load
    from loadgen.generator import Generator
    from loadgen.records import Target

    load = Load(
        arrival="closed",
        concurrency=options.concurrency,
        input_tokens=options.input_tokens,
        output_tokens=options.output_tokens,
        duration_s=options.duration,
        warmup_s=options.warmup,
        warmup_max_s=2 * options.warmup + 30,
    )
    known = Target(url=options.url, model="", vocab_size=options.vocab_size)
    target = Target(url=options.url, model=first_model(known), vocab_size=options.vocab_size)
    targets = Targets(
        gpu_uuids=uuids,
        metrics_urls=(f"{options.url.rstrip('/')}/metrics",),
        root_pids=(options.pid,) if options.pid else (),
    )
    print(f"\n{options.url}: concurrency {options.concurrency}, {options.duration:g} s each")
    ratios = []
    with Generator(Client(workers=options.workers)) as generator:
        for pair in range(options.pairs):
            measured = {}
            for turn, monitored in enumerate((True, False) if pair % 2 else (False, True)):
                monitor = Monitor(enabled=monitored)
                seed = 1 + 2 * pair + turn
                measured[monitored] = throughput(generator, load, target, targets, monitor, seed)
            ratios.append(measured[True] / measured[False])
            print(
                f"  pair {pair + 1}: monitored {measured[True]:,.0f} tok/s, not"
                f" {measured[False]:,.0f}, ratio {ratios[-1]:.4f}",
                flush=True,
            )
    low, middle, high = interval(ratios)
    print(f"  monitored / not: {middle:.4f}, 95 % interval {low:.4f} to {high:.4f}")


def throughput(
    generator: "Generator",
    load: "Load",
    target: "Target",
    targets: Targets,
    monitor: Monitor,
    seed: int,
) -> float:
    from loadgen.metrics import summarise

    with Sampler(monitor, targets) as sampler:
        sampler.start()
        result = generator.run(load, target, seed=seed)
        samples = sampler.stop()
    summary = summarise(result.requests, result.chunks, window=result.window, load=load)
    if monitor.enabled:
        print(f"    {', '.join(samples.notes) or 'no notes'}")
    if summary.requests_failed:
        print(f"    {summary.requests_failed} requests FAILED")
    return summary.output_tok_per_s or float("nan")


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Geometric mean with its 95 % interval."""
    logs = [log(ratio) for ratio in ratios]
    half = T_95[len(logs) - 2] * stdev(logs) / sqrt(len(logs))
    return exp(mean(logs) - half), exp(mean(logs)), exp(mean(logs) + half)


if __name__ == "__main__":
    sys.exit(main())
