"""The load generator as an instrument of this machine: its workers, their cores, its own error.

Before a study the client is measured against a server that is known exactly, with the study's
number of streams (loadgen/calibration.py). What comes out stands in study.json, and a study that is
continued goes on with the same workers.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any, Self

import numpy as np

from harness.units import milliseconds, plural, whole
from loadgen.calibration import calibrate
from loadgen.config import Client, Load
from loadgen.lengths import sampler

# Below, every core is needed by the server, and a pinned client would only be in its way.
MIN_CORES_TO_PIN = 16
# A decode step takes no less on any GPU that we know.
FASTEST_STEP_S = 0.01
MAX_CHUNKS_PER_S = 60_000.0  # what two H200 have been seen to serve, offline
UNKNOWN_REPLY_S = 2.0  # of an open loop: how long a request is taken to be in flight


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """What a study is measured with. `cores` is empty where nothing is pinned."""

    client: Client
    cores: tuple[int, ...]
    calibration: dict[str, Any] | None  # of loadgen.calibration.Calibration

    @classmethod
    def make(cls, client: Client, loads: Sequence[Load], *, over_tls: bool) -> Self:
        """Calibrate, if that is wanted. It takes some seconds, and the client's cores."""
        cores = client_cores(os.sched_getaffinity(0))
        if not client.calibrate:
            workers = client.workers or 1
            return cls(
                client=replace(client, workers=workers), cores=cores[:workers], calibration=None
            )
        streams, chunks_per_s = demand(loads)
        measured = calibrate(
            replace(client, transport="aiohttp") if over_tls else client,
            streams=streams,
            chunks_per_s=chunks_per_s,
            cores=cores,
        )
        return cls(
            client=replace(client, workers=measured.workers),
            cores=cores[: measured.workers],
            calibration=asdict(measured),
        )

    @classmethod
    def from_study(cls, told: dict[str, Any]) -> Self:
        """The one that a study was begun with."""
        client = Client(**told["client"])
        return cls(client=client, cores=tuple(told["cores"]), calibration=told["calibration"])

    @classmethod
    def none(cls) -> Self:
        """For a study in which nothing is left to do."""
        return cls(client=Client(), cores=(), calibration=None)

    def line(self) -> str:
        """For people: its error, and how much it carries."""
        if self.calibration is None:
            return "client: not calibrated"
        at_load, workers = self.calibration["at_load"], self.calibration["workers"]
        return (
            f"client: {self.calibration['transport']}, {plural(workers, 'worker')};"
            f" TTFT error p50 {milliseconds(at_load['ttft_error_p50_s'])},"
            f" p99 {milliseconds(at_load['ttft_error_p99_s'])} ms"
            f" at {at_load['streams']} streams and {whole(at_load['chunks_per_s'])} chunks/s;"
            f" good to {whole(self.calibration['clean_chunks_per_s'])} chunks/s"
        )

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Keep this process, and the servers that it starts, off the client's cores."""
        before = os.sched_getaffinity(0)
        if self.cores:
            os.sched_setaffinity(0, before - set(self.cores))
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def client_cores(usable: Collection[int]) -> tuple[int, ...]:
    """The cores that workers may have to themselves: the last quarter of a large machine."""
    if len(usable) < MIN_CORES_TO_PIN:
        return ()
    return tuple(sorted(usable)[-(len(usable) // 4) :])


def demand(loads: Sequence[Load]) -> tuple[int, float]:
    """The most streams in flight, and the most chunks a second, that these loads may ask for.

    A closed loop's rate is the server's affair: as fast as a decode step may be, and no more than
    two H200 were seen to give. An open loop's is its arrivals times its replies.
    """
    streams, chunks_per_s = 1, 100.0
    for load in loads:
        if load.concurrency is not None:
            streams = max(streams, load.concurrency)
            chunks_per_s = max(chunks_per_s, load.concurrency / FASTEST_STEP_S)
        elif load.rate_rps is not None:
            rate_rps = max(load.rate_rps, load.rate_end_rps or 0.0)
            streams = max(streams, ceil(rate_rps * UNKNOWN_REPLY_S))
            chunks_per_s = max(chunks_per_s, rate_rps * mean_output_tokens(load))
    return streams, min(chunks_per_s, MAX_CHUNKS_PER_S)


def mean_output_tokens(load: Load) -> float:
    draw, random = sampler(load.output_tokens), np.random.default_rng(0)
    return float(np.mean([draw(random) for _ in range(100)]))
