"""The load generator as a calibrated instrument: its workers, their cores, and its own error.

Before a study, the client is measured against a server whose behaviour is known exactly, with the
study's number of streams (loadgen/calibration.py). The result is stored in study.json, and a study
that is continued uses the same workers.
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

# With fewer, the server needs every core, and a pinned client would only be in its way.
MIN_CORES_TO_PIN = 16
# No GPU that we know takes less for a decode step.
FASTEST_STEP_S = 0.01
MAX_CHUNKS_PER_S = 60_000.0  # the most that two H200 were seen to generate offline
UNKNOWN_REPLY_S = 2.0  # assumed time in flight of an open loop's requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """The load generator that a study is measured with. `cores` is empty if nothing is pinned."""

    client: Client
    cores: tuple[int, ...]
    calibration: dict[str, Any] | None  # a loadgen.calibration.Calibration as a dict

    @classmethod
    def make(cls, client: Client, loads: Sequence[Load], *, over_tls: bool) -> Self:
        """Calibrate, if that is wanted. It takes some seconds, on the client's cores."""
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
        """The instrument that a study was begun with."""
        client = Client(**told["client"])
        return cls(client=client, cores=tuple(told["cores"]), calibration=told["calibration"])

    @classmethod
    def none(cls) -> Self:
        """A stand-in for a study in which nothing is left to do."""
        return cls(client=Client(), cores=(), calibration=None)

    def line(self) -> str:
        """For people: its error, and the load it can carry."""
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
    """The cores reserved for the workers: the last quarter of a large machine, else none."""
    if len(usable) < MIN_CORES_TO_PIN:
        return ()
    return tuple(sorted(usable)[-(len(usable) // 4) :])


def demand(loads: Sequence[Load]) -> tuple[int, float]:
    """The most streams in flight, and the most chunks per second, that these loads may ask for.

    The server determines a closed loop's rate: at most one chunk per stream and FASTEST_STEP_S, and
    no more than two H200 were seen to give. An open loop's rate is that of its arrivals times the
    mean length of its replies.
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
