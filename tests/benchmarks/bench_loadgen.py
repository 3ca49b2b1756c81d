"""How true the load generator is: what it reports of a server whose schedule is known exactly.

The server sends the first token 50 ms after the request has arrived, then one chunk each 10 ms, and
logs when it really wrote them. Server and client have a core each, where there are two.

    python -m pytest tests/benchmarks/bench_loadgen.py -m benchmark -s
"""

import asyncio
import json
import multiprocessing
import os
from heapq import heappop, heappush
from time import perf_counter

import numpy as np
import pytest
import uvloop

from loadgen.config import Load
from loadgen.generator import Generator
from loadgen.metrics import itl_s, quantile, tpot_s, ttft_s
from loadgen.records import Target

FIRST_S, EACH_S, NUM_TOKENS = 0.050, 0.010, 128
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def event(**fields):
    common = {"id": "cmpl-" + "0" * 32, "object": "text_completion", "model": "m", "created": 1}
    data = b"data: " + json.dumps(common | fields).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def choice(finish_reason):
    return [{"index": 0, "text": " t123", "logprobs": None, "finish_reason": finish_reason}]


TOKEN = event(choices=choice(None))
USAGE = {"prompt_tokens": 8, "completion_tokens": NUM_TOKENS, "total_tokens": 8 + NUM_TOKENS}
LAST = event(choices=choice("length")) + event(choices=[], usage=USAGE)
LAST += b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Schedule:
    """All writes that are due, in one heap, done by one timer; and when each was done."""

    def __init__(self, loop):
        self.loop, self.due, self.timer, self.ttft_s, self.tpot_s = loop, [], None, [], []

    def begin(self, transport):
        arrived_at_s = perf_counter()
        transport.write(HEAD)
        heappush(self.due, (arrived_at_s + FIRST_S, id(transport), 0, arrived_at_s, transport, 0.0))
        self.arm()

    def arm(self):
        if self.timer is None and self.due:
            self.timer = self.loop.call_later(max(0.0, self.due[0][0] - perf_counter()), self.write)

    def write(self):
        self.timer = None
        while self.due and self.due[0][0] <= perf_counter():
            due_at_s, key, token, arrived_at_s, transport, first_at_s = heappop(self.due)
            if transport.is_closing():
                continue
            transport.write(TOKEN if token < NUM_TOKENS - 1 else LAST)
            wrote_at_s = perf_counter()
            if token == 0:
                first_at_s = wrote_at_s
                self.ttft_s.append((wrote_at_s, wrote_at_s - arrived_at_s))
            if token == NUM_TOKENS - 1:
                self.tpot_s.append((wrote_at_s, (wrote_at_s - first_at_s) / (NUM_TOKENS - 1)))
                continue
            entry = (due_at_s + EACH_S, key, token + 1, arrived_at_s, transport, first_at_s)
            heappush(self.due, entry)
        self.arm()


class Connection(asyncio.Protocol):
    def __init__(self, schedule):
        self.schedule, self.seen = schedule, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.seen += data
        head, found, body = self.seen.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().split(b"content-length:")[1].split()[0]):
            self.seen = b""
            self.schedule.begin(self.transport)


def serve(pipe, core):
    if core is not None:
        os.sched_setaffinity(0, {core})
    uvloop.run(answer(pipe))


async def answer(pipe):
    loop = asyncio.get_running_loop()
    schedule, over = Schedule(loop), asyncio.Event()
    server = await loop.create_server(lambda: Connection(schedule), "127.0.0.1", 0, backlog=2048)
    pipe.send(server.sockets[0].getsockname()[1])
    loop.add_reader(pipe.fileno(), over.set)
    await over.wait()
    server.close()
    pipe.send((schedule.ttft_s, schedule.tpot_s))


@pytest.fixture
def cores():
    """One for the server and one for the client, if there are two."""
    mine = os.sched_getaffinity(0)
    yield sorted(mine)[:2] if len(mine) > 1 else (None, None)
    os.sched_setaffinity(0, mine)


@pytest.mark.benchmark
@pytest.mark.parametrize("streams", [1, 32, 128, 512])
def test_report_beside_the_truth(streams, cores):
    load = Load(
        arrival="closed", concurrency=streams, input_tokens=8, output_tokens=128,
        warmup_s=2.0, duration_s=8.0,
    )  # fmt: skip
    spawn = multiprocessing.get_context("spawn")
    pipe, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(theirs, cores[0]), daemon=True)
    server.start()
    target = Target(url=f"http://127.0.0.1:{pipe.recv()}", model="m", vocab_size=32000)
    if cores[1] is not None:
        os.sched_setaffinity(0, {cores[1]})  # which the worker inherits
    with Generator() as generator:
        result = generator.run(load, target, seed=1)
    pipe.send("end")
    true_ttft_s, true_tpot_s = pipe.recv()
    server.join()

    window, requests, chunks = result.window, result.requests, result.chunks
    ok = (requests["status"] == "ok") & (requests["last_at_s"] >= window.opened_at_s)
    first_ok = ok & (requests["first_at_s"] >= window.opened_at_s)
    chunks_per_s = (chunks["at_s"] >= window.opened_at_s).sum() / load.duration_s
    itl = itl_s(chunks, requests["request"][ok])
    print(f"\n{streams} streams, {chunks_per_s:.0f} chunks/s, {ok.sum()} requests")
    for name, said_s, log in (
        ("TTFT", ttft_s(requests)[first_ok], true_ttft_s),
        ("TPOT", tpot_s(requests)[ok], true_tpot_s),
    ):
        true_s = np.array([took_s for at_s, took_s in log if at_s >= window.opened_at_s])
        print(
            f"  {name}  p50 {quantile(said_s, 0.5) * 1e3:.3f} ms, truth "
            f"{quantile(true_s, 0.5) * 1e3:.3f}; p99 {quantile(said_s, 0.99) * 1e3:.3f} ms, truth "
            f"{quantile(true_s, 0.99) * 1e3:.3f}"
        )
    print(f"  ITL   p50 {quantile(itl, 0.5) * 1e3:.3f} ms, p99 {quantile(itl, 0.99) * 1e3:.3f} ms")
    print(
        f"  client: {result.client.cpu_frac / chunks_per_s * 1e6:.1f} us a chunk, "
        f"{result.client.cpu_frac:.2f} of a core, loop lag p99 "
        f"{result.client.loop_lag_p99_s * 1e3:.1f} ms, max "
        f"{result.client.loop_lag_max_s * 1e3:.1f} ms"
    )
    assert (requests["status"] != "failed").all()
