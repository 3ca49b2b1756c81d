"""The client as a part of this host: a round trip over loopback, and how much it can carry.

Both against the null server of loadgen, whose own times are known. What is measured here is the
floor under every TTFT of this machine, and the rate above which its client would be the limit.
"""

from http.client import HTTPConnection
from statistics import median
from time import perf_counter
from urllib.parse import urlsplit

from harness.hardware.probes.record import Measurement, spread_frac
from loadgen.calibration import calibrate
from loadgen.config import Client
from loadgen.null_server import NullServer

ROUND_TRIPS = 300
STREAMS, CHUNKS_PER_S = 64, 30_000.0


def measurements() -> list[Measurement]:
    """Round trip, and the client's capacity; a few seconds."""
    return [round_trip(), capacity()]


def round_trip() -> Measurement:
    """A GET on a connection that is kept: median wall time, request written to reply read."""
    times_s = []
    with NullServer() as server:
        connection = HTTPConnection(urlsplit(server.url).netloc, timeout=10)
        for _ in range(ROUND_TRIPS):
            began_at_s = perf_counter()
            connection.request("GET", "/v1/models")
            connection.getresponse().read()
            times_s.append(perf_counter() - began_at_s)
        connection.close()
    return Measurement(
        name="host.http_round_trip",
        unit="s",
        value=median(times_s),
        spread_frac=spread_frac(times_s),
        repeats=ROUND_TRIPS,
        time_s=median(times_s),
        how="http.client, loopback",
    )


def capacity() -> Measurement:
    """The highest rate of chunks that a probe of the calibration carried cleanly."""
    found = calibrate(Client(), streams=STREAMS, chunks_per_s=CHUNKS_PER_S)
    at_load = found.at_load
    return Measurement(
        name="host.client_chunks",
        unit="chunk/s",
        value=found.clean_chunks_per_s,
        repeats=len(found.probes),
        how=f"loadgen, {found.transport}",
        detail={
            "workers": found.workers,
            "streams": at_load.streams,
            "ttft_error_p50_s": at_load.ttft_error_p50_s,
            "ttft_error_p99_s": at_load.ttft_error_p99_s,
        },
    )
