"""The client's own error on this machine: what it reports of a null server less what that logged.

A probe is about a second of load, closed loop, at some number of streams and rate of chunks. First
comes the study's own load; workers are doubled until it is clean, where their number is free. Then
the rate is doubled while it is clean, or halved until it is, to say how far those workers can go.
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
BUSY_FRAC = 0.8  # of a core: above, a worker's event loop begins to queue
# Of its probes, and of where the search for the highest rate begins.
WINDOW_S, RAMP_S = 0.7, 0.2
REPLY_S = (0.1, 0.6)  # how long a reply takes: several a stream, but not thousands a second
REQUESTS_PER_S = 1500  # that is what more streams make replies longer for
EACH_S = (0.002, 0.04)  # between chunks: what a null server can keep, what fits a probe
LEAST_TOKENS = 8
SEARCH_FROM_CHUNKS_PER_S = 10_000
SEARCH_PROBES = 4
REACHED_FRAC = 0.8  # of the rate asked: below, server or client are at their end
SERVER_CHUNKS_PER_S = 60_000  # of one process of the null server; on its own core 90,000 go


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One load of the null server: what the client said less what the server logged."""

    workers: int
    streams: int
    chunks_per_s: float  # as it was
    ttft_error_p50_s: float
    ttft_error_p99_s: float
    tpot_error_p50_s: float
    tpot_error_p99_s: float
    send_lag_p99_s: float
    cpu_frac: float  # of the busiest worker
    server_late_p99_s: float  # behind its own schedule: no error of the client

    @property
    def is_clean(self) -> bool:
        return self.ttft_error_p99_s < CLEAN_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What the client is good for, with this transport and so many workers."""

    transport: str
    workers: int
    at_load: Probe  # at the study's streams and rate of chunks
    probes: tuple[Probe, ...]  # all, in the order of measurement
    clean_chunks_per_s: float  # the highest rate reached by a clean probe; 0: none was clean


@dataclass(frozen=True, slots=True)
class Compared:
    """One time of each request: by the client, and by the server's log."""

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
    on_probe: Callable[[Probe], None] | None = None,
) -> Calibration:
    """Measure for a study of at most `streams` requests in flight and `chunks_per_s`.

    `cores`: the workers' own, as for the Generator; the null server then keeps to the others.
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
            if on_probe is not None:
                on_probe(probes[-1])
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
    """Probe until cleanness changes, or a rate is not reached."""
    for rate in searched_rates(at_load, chunks_per_s):
        probe = measure(rate)
        if probe.is_clean != at_load.is_clean or probe.chunks_per_s < REACHED_FRAC * rate:
            return


def most_workers(client: Client, num_cores: int, num_available: int) -> int:
    """As many as are set, or as have a core of their own, or leave the server most of them."""
    return client.workers or num_cores or max(1, num_available // 4)


def more_workers(probe: Probe, most: int) -> int | None:
    """Twice as many, if the probe asks for them and there may be so many; else None."""
    enough = probe.is_clean and probe.cpu_frac < BUSY_FRAC
    return None if enough or probe.workers >= most else min(2 * probe.workers, most)


def searched_rates(at_load: Probe, chunks_per_s: float) -> list[float]:
    """Chunks a second to try in turn: doubled, or halved while so many streams can be as slow."""
    if at_load.is_clean:
        first = max(2 * chunks_per_s, SEARCH_FROM_CHUNKS_PER_S)
        return [first * 2**step for step in range(SEARCH_PROBES)]
    rates = [chunks_per_s / 2**step for step in range(1, SEARCH_PROBES + 1)]
    return [rate for rate in rates if at_load.streams / rate <= EACH_S[1]]


def load_for(streams: int, chunks_per_s: float) -> tuple[Load, float]:
    """The probe's load, and the seconds from chunk to chunk that give it this rate.

    Where those are out of bounds: more streams than asked, or a higher rate.
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
    """One run against the null server, in numbers; NaN for what it has no sample of."""
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
    """TTFT of the requests whose first token came in the window.

    True is from the server's last read of the request to its first write of a token.
    """
    showed = np.isin(requests["status"].astype(str), [Status.OK, Status.CUT])
    sample = showed & inside(requests["first_at_s"], window)
    mine, theirs = _paired(requests["request"], sample, log)
    true_s = log.first_at_s - log.arrived_at_s
    return Compared(ttft_s(requests)[mine], true_s[theirs])


def compare_tpot(requests: Columns, log: ServerLog, window: Window) -> Compared:
    """TPOT of the requests whose last token came in the window, if there is more than one.

    True is (last write − first write) / (tokens − 1).
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
    """Rows of the requests in the sample, and rows of the same requests in the log."""
    rows = np.flatnonzero(sample)
    _, mine, theirs = np.intersect1d(numbers[rows], log.request, return_indices=True)
    return rows[mine], theirs


def _quantile(values: Floats, q: float) -> float:
    value = quantile(values, q)
    return nan if value is None else value
