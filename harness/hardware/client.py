"""The load client on this host: its round trip over loopback, and how much load it can carry.

Both are measured against loadgen's null server, whose own times are known. They are the floor under
every TTFT on this machine, and the rate above which the client would be the limit.
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
    """Measure the round trip and the client's capacity, which takes a few seconds."""
    return [round_trip(), capacity()]


def round_trip() -> Measurement:
    """A GET on a kept-alive connection: median time from writing the request to the reply's end."""
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
    """The highest rate of chunks at which a probe of the calibration was clean."""
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
