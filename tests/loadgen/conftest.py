"""A scripted OpenAI-style server on a free port, in a thread; and builders with overrides."""

import asyncio
import json
import struct
import threading
from socket import SO_LINGER, SOL_SOCKET

import numpy as np
import pytest

from loadgen.config import Load
from loadgen.generator import Generator
from loadgen.records import Columns, Exchange, Target, Window, tabulate


class Wire:
    """What a script may do to one reply."""

    def __init__(self, writer, request):
        self.writer, self.request = writer, request

    async def raw(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status=200):
        await self.raw(b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n" % status)

    async def data(self, data):
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def event(self, event):
        await self.data(b"data: " + json.dumps(event).encode() + b"\n\n")

    async def end(self):
        await self.data(b"data: [DONE]\n\n")
        await self.raw(b"0\r\n\r\n")

    async def token(self, text="t1", finish_reason=None):
        await self.event({"choices": [{"text": text, "finish_reason": finish_reason}]})

    async def usage(self, prompt_tokens, completion_tokens, **more):
        counts = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        await self.event({"choices": [], "usage": counts | more})

    async def reset(self):
        linger = struct.pack("ii", 1, 0)  # close with RST
        self.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
        self.writer.transport.abort()

    async def hang(self):
        await asyncio.Event().wait()


async def well(wire, pause_s=0.002):
    """Reply as a healthy server does: as long as asked."""
    await wire.head()
    request, num_tokens = wire.request, wire.request["max_tokens"]
    for position in range(num_tokens):
        await asyncio.sleep(pause_s)
        await wire.token(finish_reason="length" if position == num_tokens - 1 else None)
    prompt = request.get("prompt") or request["messages"][0]["content"].split()
    await wire.usage(len(prompt), num_tokens)
    await wire.end()


class Server:
    """Replies to each POST by running `script(wire)`; counts what is in flight."""

    def __init__(self, script, host="127.0.0.1"):
        self.script, self.requests, self.in_flight = script, [], 0
        self.host = host
        self.most_in_flight = self.num_connections = 0
        self.asked = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(30)

    def target(self, **overrides):
        host = f"[{self.host}]" if ":" in self.host else self.host
        fields = {"url": f"http://{host}:{self.port}", "model": "m", "vocab_size": 512}
        return Target(**fields | overrides)

    async def _serve(self):
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._tasks = set()
        listener = await asyncio.start_server(self._connected, self.host, 0)
        self.port = listener.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.num_connections += 1
        try:
            while True:
                await self._exchange(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split()[0])
        request = json.loads(await reader.readexactly(length))
        request["path"] = head.split()[1]
        for line in head.splitlines()[1:]:
            name, _, value = line.partition(": ")
            request.setdefault(name, value)
        self.requests.append(request)
        self.asked.set()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        script = asyncio.ensure_future(self.script(Wire(writer, request)))
        gone = asyncio.ensure_future(reader.read(1))  # the client hangs up (it never pipelines)
        try:
            await asyncio.wait({script, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not script.done():
                raise ConnectionError("the client has hung up")
            script.result()
        finally:
            self.in_flight -= 1
            for task in (script, gone):
                task.cancel()
            await asyncio.gather(script, gone, return_exceptions=True)

    def stop(self):
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)


@pytest.fixture
def start_server():
    servers = []

    def start(script=well, **where):
        servers.append(Server(script, **where))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def generator():
    with Generator() as generator:
        yield generator


@pytest.fixture(scope="session")
def closed():
    """Build a short closed loop."""

    def build(**overrides):
        fields = {
            "arrival": "closed", "concurrency": 2, "input_tokens": 20, "output_tokens": 4,
            "warmup_s": 0.1, "warmup_max_s": 5.0, "ramp_s": 0.05, "duration_s": 0.5,
        }  # fmt: skip
        return Load(**fields | overrides)

    return build


@pytest.fixture(scope="session")
def poisson():
    """Build a short open loop."""

    def build(**overrides):
        fields = {
            "arrival": "poisson", "rate_rps": 40.0, "input_tokens": 20, "output_tokens": 4,
            "warmup_s": 0.1, "duration_s": 0.5, "drain_s": 5.0,
        }  # fmt: skip
        return Load(**fields | overrides)

    return build


@pytest.fixture(scope="session")
def exchange():
    """Build a request that is about to be sent."""

    def build(**overrides):
        fields = {
            "request": 0, "stream": 0, "due_at_s": 0.0,
            "input_tokens_asked": 20, "output_tokens_asked": 4,
        }  # fmt: skip
        return Exchange(**fields | overrides)

    return build


@pytest.fixture(scope="session")
def window():
    """Build a window from 10 to 20 s of a run from 0 to 25 s."""

    def build(**overrides):
        fields = {
            "started_at_s": 0.0, "opened_at_s": 10.0, "closed_at_s": 20.0, "ended_at_s": 25.0,
            "clock_monotonic_s": 25.0, "clock_utc_ns": 0,
        }  # fmt: skip
        return Window(**fields | overrides)

    return build


@pytest.fixture(scope="session")
def tables():
    """Build the tables of a run; each request is (row overrides, arrival times of its chunks)."""

    def build(*requests) -> tuple[Columns, Columns]:
        rows, owners, arrivals = [], [], []
        for number, (overrides, at_s) in enumerate(requests):
            row = {
                "request": number, "conversation": number, "turn": 1,
                "stream": 0, "due_at_s": 0.0, "sent_at_s": 0.0,
                "first_at_s": at_s[0] if at_s else np.nan,
                "last_at_s": at_s[-1] if at_s else np.nan,
                "ended_at_s": at_s[-1] if at_s else np.nan,
                "input_tokens_asked": 20.0, "output_tokens_asked": len(at_s),
                "input_tokens": 20.0, "output_tokens": float(len(at_s)),
                "cached_tokens": np.nan, "num_chunks": len(at_s), "status": "ok", "failure": "",
                "http_status": 200.0, "finish_reason": "length", "detail": "",
            }  # fmt: skip
            if overrides.get("status", "ok") != "ok":
                row |= {"input_tokens": np.nan, "output_tokens": np.nan}
            rows.append(row | overrides)
            owners += [number] * len(at_s)
            arrivals += at_s
        if not rows:
            return tabulate([])
        texts = {"status", "failure", "finish_reason", "detail"}
        return (
            {
                name: np.array([row[name] for row in rows], object if name in texts else None)
                for name in rows[0]
            },
            {"request": np.array(owners, int), "at_s": np.array(arrivals, float)},
        )

    return build
