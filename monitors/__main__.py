"""`python -m monitors`: sample what is there for a few seconds and print the summary."""

import argparse
import dataclasses
from time import perf_counter, sleep

from monitors.config import Monitor
from monitors.metrics import summarise
from monitors.nvml import gpus
from monitors.sampler import Sampler, Targets


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m monitors", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--metrics-url", help="e.g. http://127.0.0.1:8000/metrics")
    parser.add_argument("--pid", type=int, help="root of a process tree to watch")
    options = parser.parse_args()
    targets = Targets(
        gpu_uuids=tuple(gpu.uuid for gpu in gpus()),
        metrics_url=options.metrics_url,
        root_pid=options.pid,
    )
    with Sampler(Monitor(), targets) as sampler:
        sampler.start()
        opened_at_s = perf_counter()
        sleep(options.seconds)
        closed_at_s = perf_counter()
        samples = sampler.stop()
    for name, value in dataclasses.asdict(summarise(samples, opened_at_s, closed_at_s)).items():
        print(f"{name:26} {'-' if value is None else value}")
    for note in samples.notes:
        print(note)


if __name__ == "__main__":
    main()
