"""Sample GPUs, a server's metrics and a process tree, and print a summary.

python -m monitors --interval 0.1 --seconds 10
python -m monitors --metrics-url http://127.0.0.1:8000/metrics --pid 4242

Without --pid it watches its own process tree, which shows what sampling costs.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from textwrap import fill
from time import perf_counter, sleep
from typing import NoReturn

import numpy as np

from monitors.config import Monitor
from monitors.host import tree_pids
from monitors.metrics import MonitorSummary, summarise
from monitors.nvml import Gpu, gpus
from monitors.sampler import Columns, Sampler, Samples, Targets
from monitors.timing import SOURCES, jitters_s, missed

MIN_INTERVAL_S = 0.01


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if flaw := flaw_of(options):
        print(f"monitors: {flaw}", file=sys.stderr)
        return 2
    cards = gpus()
    config = Monitor(
        gpu_interval_s=options.interval,
        server_interval_s=max(options.interval, Monitor().server_interval_s),
        host_interval_s=max(options.interval, 0.1),
    )
    targets = Targets(
        gpu_uuids=tuple(card.uuid for card in cards),
        metrics_urls=(options.metrics_url,) if options.metrics_url else (),
        root_pids=(options.pid or os.getpid(),),
    )
    print(f"{named(cards)}, for {options.seconds:g} s", flush=True)
    with Sampler(config, targets) as sampler:
        sampler.start()
        opened_at_s = perf_counter()
        try:
            sleep(options.seconds)
        except KeyboardInterrupt:  # what was sampled so far is worth seeing
            print()
        closed_at_s = perf_counter()
        samples = sampler.stop()
    print_sampling(samples, opened_at_s, closed_at_s)
    print_summary(summarise(samples, opened_at_s, closed_at_s))
    for note in samples.notes:
        print(note)
    return 0


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"monitors: {message}", file=sys.stderr)
        raise SystemExit(2)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m monitors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--interval", metavar="S", type=float, default=0.1, help="seconds between GPU samples [0.1]"
    )
    add("--seconds", metavar="S", type=float, default=10.0, help="how long to sample [10]")
    add("--metrics-url", metavar="URL", help="e.g. http://127.0.0.1:8000/metrics")
    add("--pid", metavar="PID", type=int, help="root of the process tree to watch")
    return parser.parse_args(arguments)


def flaw_of(options: argparse.Namespace) -> str | None:
    """What is wrong with the options, in a sentence."""
    if not MIN_INTERVAL_S <= options.interval < np.inf:
        return f"--interval {options.interval:g}: must be at least {MIN_INTERVAL_S:g} seconds"
    if not 0 < options.seconds < np.inf:
        return f"--seconds {options.seconds:g}: must be above 0"
    url = options.metrics_url
    if url is not None and not url.startswith(("http://", "https://")):
        return f"--metrics-url {url}: must start with http:// or https://"
    if options.pid is not None and (options.pid < 1 or not tree_pids(options.pid)):
        return f"--pid {options.pid}: there is no such process"
    return None


def named(cards: Sequence[Gpu]) -> str:
    names = [card.name for card in cards]
    return ", ".join(f"{names.count(n)}x {n}" for n in dict.fromkeys(names)) or "no GPU was found"


def print_sampling(samples: Samples, opened_at_s: float, closed_at_s: float) -> None:
    """Print how the sampling went, one line per source."""
    late_s = jitters_s(samples, opened_at_s, closed_at_s)
    print(f"\n{'source':8}{'samples':>9}{'every s':>10}{'jitter p99 s':>14}{'missed':>8}")
    for name in SOURCES:
        columns: Columns = getattr(samples, name)
        at_s = columns["at_s"][~np.isnan(columns["missed"])]  # one row per sample
        every_s = f"{np.median(np.diff(at_s)):.4f}" if at_s.size > 1 else "–"
        jitter = f"{late_s[name]:.5f}" if name in late_s else "–"
        skipped = missed(samples, opened_at_s, closed_at_s, (name,))
        left_out = "–" if skipped is None else f"{skipped:.0f}"
        print(f"{name:8}{at_s.size:>9}{every_s:>10}{jitter:>14}{left_out:>8}")
    print()


def print_summary(summary: MonitorSummary) -> None:
    """Print every number that is known, in base units."""
    unknown = []
    for name, value in dataclasses.asdict(summary).items():
        if value is None:
            unknown.append(name)
        else:
            print(f"{name:26}{value:,.6g}" if isinstance(value, float) else f"{name:26}{value}")
    if unknown:
        print("\n" + fill(f"not known: {', '.join(unknown)}", 100))


if __name__ == "__main__":
    sys.exit(main())
