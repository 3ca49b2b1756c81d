"""The closed-loop capacity of a launch: the most requests per second its closed loops completed."""

from harness.study import SavedRun, Study
from loadgen.config import Load
from loadgen.metrics import requests_per_s
from loadgen.records import Window


def capacity_rps(study: Study, launch: str, load: Load) -> float | None:
    """The highest rate among a launch's closed-loop runs whose requests are like those of `load`.

    `launch` is the launch's id. None if no such run ended well.
    """
    rates = [
        rate
        for run in study.runs()
        if run.whole and run.launch_id == launch and _is_like(run, load)
        if (rate := requests_per_s(run.samples("requests"), Window(**run.record["window"])))
    ]
    return max(rates, default=None)


def _is_like(run: SavedRun, load: Load) -> bool:
    had = Load(**run.record["load"])
    return had.arrival == "closed" and had.search is None and had.asks_like(load)
