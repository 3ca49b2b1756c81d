"""The client's own error on this machine: its report on a null server minus that server's log.

A probe is about one second of closed-loop load with a given number of streams and chunk rate. The
first probe has the study's own load; unless the number of workers is set, it is doubled until that
probe is clean. Then the rate is doubled while probes are clean, or halved until one is, to find how
much those workers can handle.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, nan

import numpy as np
import numpy.typing as npt

from loadgen.config import Client, Load
from loadgen.generator import Generator
from loadgen.metrics import inside, quantile, tpot_s, ttft_s
from loadgen.null_server import NullServer, ServerLog
from loadgen.records import Columns, Result, Status, Target, Window

Floats = npt.NDArray[np.float64]

CLEAN_S = 0.005  # TTFT error at p99
BUSY_FRAC = 0.8  # of a core: above this, a worker's event loop begins to queue
# The shape of a probe.
WINDOW_S, RAMP_S = 0.7, 0.2
REPLY_S = (0.1, 0.6)  # bounds on a reply's length: several per stream, but not thousands per second
REQUESTS_PER_S = 1500  # with more streams, replies get longer to keep to this rate
EACH_S = (0.002, 0.04)  # bounds between chunks: what a null server can keep up, what fits a probe
LEAST_TOKENS = 8
SEARCH_FROM_CHUNKS_PER_S = 10_000
SEARCH_PROBES = 4
REACHED_FRAC = 0.8  # of the rate asked for: below this, server or client are at their limit
SERVER_CHUNKS_PER_S = 60_000  # per process of the null server; with a core to itself, 90,000


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One load on the null server. Errors are what the client reports minus the server's log."""

    workers: int
    streams: int
    chunks_per_s: float  # as achieved
    ttft_error_p50_s: float
    ttft_error_p99_s: float
    tpot_error_p50_s: float
    tpot_error_p99_s: float
    send_lag_p99_s: float
    cpu_frac: float  # of the busiest worker
    server_late_p99_s: float  # behind its own schedule: not an error of the client

    @property
    def is_clean(self) -> bool:
        return self.ttft_error_p99_s < CLEAN_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What the client can handle with this transport and number of workers."""

    transport: str
    workers: int
    at_load: Probe  # with the study's streams and chunk rate
    probes: tuple[Probe, ...]  # all, in order of measurement
    clean_chunks_per_s: float  # the highest rate that a clean probe achieved; 0 if none was clean


@dataclass(frozen=True, slots=True)
class Compared:
    """One latency of each request, by the client and by the server's log."""

    said_s: Floats
    true_s: Floats

    @property
    def error_s(self) -> Floats:
        return self.said_s - self.true_s


def calibrate(
    client: Client,
    *,
    streams: int,
    chunks_per_s: float,
    cores: Sequence[int] = (),
) -> Calibration:
    """Calibrate for a study with at most `streams` requests in flight and `chunks_per_s`.

    `cores`: those the workers are pinned to, as for Generator; the null server uses the others.
    The null server speaks plain HTTP: for a study over TLS, `client.transport` must not be auto.
    """
    available = os.sched_getaffinity(0)
    processes = min(ceil(2 * chunks_per_s / SERVER_CHUNKS_PER_S), len(available) // 4)
    most = most_workers(client, len(cores), len(available))
    workers = client.workers or 1
    probes: list[Probe] = []
    with NullServer(cores=available - set(cores), processes=max(1, processes)) as server:

        def measure(generator: Generator, chunks_per_s: float) -> Probe:
            load, each_s = load_for(streams, chunks_per_s)
            server.pace(first_s=each_s, each_s=each_s)
            target = Target(url=server.url, model=server.model, vocab_size=1000)
            result = generator.run(load, target, seed=len(probes))
            probes.append(probe_of(result, server.log()))
            return probes[-1]

        while True:
            mine = dataclasses.replace(client, workers=workers)
            with Generator(mine, cores=cores) as generator:
                at_load = measure(generator, chunks_per_s)
                more = more_workers(at_load, most)
                if more is None:
                    _search(partial(measure, generator), at_load, chunks_per_s)
                    break
            workers = more
    clean = [p.chunks_per_s for p in probes if p.is_clean and p.workers == workers]
    return Calibration(
        transport=client.transport_for(server.url),
        workers=workers,
        at_load=at_load,
        probes=tuple(probes),
        clean_chunks_per_s=max(clean, default=0.0),
    )


def _search(measure: Callable[[float], Probe], at_load: Probe, chunks_per_s: float) -> None:
    """Probe until the verdict (clean or not) changes, or a rate is not reached."""
    for rate in searched_rates(at_load, chunks_per_s):
        probe = measure(rate)
        if probe.is_clean != at_load.is_clean or probe.chunks_per_s < REACHED_FRAC * rate:
            return


def most_workers(client: Client, num_cores: int, num_available: int) -> int:
    """As many as are set, or have their own core, or else leave the server most of the cores."""
    return client.workers or num_cores or max(1, num_available // 4)


def more_workers(probe: Probe, most: int) -> int | None:
    """Twice as many workers, up to `most`; None if the probe needs no more or `most` is reached."""
    enough = probe.is_clean and probe.cpu_frac < BUSY_FRAC
    return None if enough or probe.workers >= most else min(2 * probe.workers, most)


def searched_rates(at_load: Probe, chunks_per_s: float) -> list[float]:
    """Chunks per second to try: doubling, or halving while these streams can go that slowly."""
    if at_load.is_clean:
        first = max(2 * chunks_per_s, SEARCH_FROM_CHUNKS_PER_S)
        return [first * 2**step for step in range(SEARCH_PROBES)]
    rates = [chunks_per_s / 2**step for step in range(1, SEARCH_PROBES + 1)]
    return [rate for rate in rates if at_load.streams / rate <= EACH_S[1]]


def load_for(streams: int, chunks_per_s: float) -> tuple[Load, float]:
    """The probe's load, and the seconds between chunks that give it this rate.

    If those would fall outside EACH_S, the load has more streams, or a higher rate, than asked for.
    """
    shortest_s, longest_s = EACH_S
    streams = max(streams, ceil(chunks_per_s * shortest_s))
    each_s = min(streams / chunks_per_s, longest_s)
    reply_s = float(np.clip(streams / REQUESTS_PER_S, *REPLY_S))
    load = Load(
        arrival="closed",
        concurrency=streams,
        input_tokens=16,
        output_tokens=max(LEAST_TOKENS, round(reply_s / each_s)),
        ramp_s=RAMP_S,
        warmup_s=RAMP_S,
        warmup_max_s=2.0,
        duration_s=WINDOW_S,
        request_timeout_s=10.0,
    )
    return load, each_s


def probe_of(result: Result, log: ServerLog) -> Probe:
    """The figures of one run against the null server; NaN where there is no sample."""
    requests, window = result.requests, result.window
    ttft_error_s = compare_ttft(requests, log, window).error_s
    tpot_error_s = compare_tpot(requests, log, window).error_s
    due_inside = inside(requests["due_at_s"], window)
    send_lag_s = (requests["sent_at_s"] - requests["due_at_s"])[due_inside]
    late_s = log.late_s[inside(log.written_at_s, window)]
    num_chunks = inside(result.chunks["at_s"], window).sum()
    return Probe(
        workers=result.client.workers,
        streams=result.load.concurrency or 0,
        chunks_per_s=float(num_chunks) / (window.closed_at_s - window.opened_at_s),
        ttft_error_p50_s=_quantile(ttft_error_s, 0.5),
        ttft_error_p99_s=_quantile(ttft_error_s, 0.99),
        tpot_error_p50_s=_quantile(tpot_error_s, 0.5),
        tpot_error_p99_s=_quantile(tpot_error_s, 0.99),
        send_lag_p99_s=_quantile(send_lag_s, 0.99),
        cpu_frac=result.client.cpu_frac,
        server_late_p99_s=_quantile(late_s, 0.99),
    )


def compare_ttft(requests: Columns, log: ServerLog, window: Window) -> Compared:
    """TTFT of the requests whose first token arrived in the window.

    The true value runs from the server's last read of the request to its first write of a token.
    """
    showed = np.isin(requests["status"].astype(str), [Status.OK, Status.CUT])
    sample = showed & inside(requests["first_at_s"], window)
    mine, theirs = _paired(requests["request"], sample, log)
    true_s = log.first_at_s - log.arrived_at_s
    return Compared(ttft_s(requests)[mine], true_s[theirs])


def compare_tpot(requests: Columns, log: ServerLog, window: Window) -> Compared:
    """TPOT of the requests of two or more tokens whose last one arrived in the window.

    The true value is (last write − first write) / (tokens − 1).
    """
    sample = (requests["status"] == Status.OK) & (requests["output_tokens"] > 1)
    sample = sample & inside(requests["last_at_s"], window)
    mine, theirs = _paired(requests["request"], sample, log)
    gaps = np.where(log.num_tokens > 1, log.num_tokens - 1, np.nan)
    true_s = (log.last_at_s - log.first_at_s) / gaps
    return Compared(tpot_s(requests)[mine], true_s[theirs])


def _paired(
    numbers: npt.NDArray[np.int64], sample: npt.NDArray[np.bool_], log: ServerLog
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row numbers of the sampled requests, and of the same requests in the log."""
    rows = np.flatnonzero(sample)
    _, mine, theirs = np.intersect1d(numbers[rows], log.request, return_indices=True)
    return rows[mine], theirs


def _quantile(values: Floats, q: float) -> float:
    value = quantile(values, q)
    return nan if value is None else value
