"""How many chunks a second the simulator streams on one core, and how late its steps are then.

The client reads raw sockets and counts events, so that it costs less than what it measures. On
Linux both are pinned, to a core each. The rate asked for is what the roofline of the imitated GPU
gives at this many streams; a lag far above zero says that this CPU was the limit.

    python -m pytest benchmarks/simulator_speed.py -m benchmark -s
"""

import json
import os
import re
import selectors
import socket
import time
from urllib.parse import urlsplit

import pytest

from tests.harness.sim.process import SimProcess, write_model

OUTPUT_TOKENS = 400


@pytest.mark.benchmark
@pytest.mark.parametrize("num_streams", [32, 256, 1000])
def test_chunks_per_second(tmp_path, capsys, num_streams):
    cores = sorted(os.sched_getaffinity(0))
    with SimProcess(write_model(tmp_path), "--gpu", "b200", "--api-server-count", "8") as sim:
        os.sched_setaffinity(sim.pid, cores[:1])
        os.sched_setaffinity(0, cores[-1:])
        try:
            num_chunks, wall_s = _read_streams(sim.url, num_streams)
        finally:
            os.sched_setaffinity(0, cores)
        page = sim.fetch("/metrics")[1]
    lag_s = float(re.search(r"sim:step_lag_seconds_total\{.*\} (\S+)", page)[1])
    with capsys.disabled():
        print(
            f"\n{num_streams} streams: {num_chunks / wall_s:,.0f} chunks/s over {wall_s:.2f} s, "
            f"step lag {lag_s:.3f} s"
        )
    # while the requests come in, the API server is behind and merges a few tokens into one chunk
    assert 0.95 * num_streams * OUTPUT_TOKENS < num_chunks <= num_streams * OUTPUT_TOKENS


def _read_streams(url: str, num_streams: int) -> tuple[int, float]:
    body = {"model": "m", "prompt": [1, 2, 3], "max_tokens": OUTPUT_TOKENS, "stream": True}
    payload = json.dumps(body).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    address = urlsplit(url)
    started_at_s = time.perf_counter()
    num_chunks, num_open = 0, num_streams
    with selectors.DefaultSelector() as selector:
        for _ in range(num_streams):
            stream = socket.create_connection((address.hostname, address.port))
            stream.sendall(head.encode() + payload)
            selector.register(stream, selectors.EVENT_READ)
        while num_open:
            for key, _ in selector.select(timeout=30):
                data = key.fileobj.recv(65536)
                num_chunks += data.count(b"data: {")
                if not data:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    num_open -= 1
    return num_chunks, time.perf_counter() - started_at_s
