"""The HTTP side: vLLM's endpoints on top of one engine.

aiohttp.web on uvloop, with one task per request and one write per chunk. On one core of an AMD
EPYC, with 256 streams and the client on another core, it reaches 74,000 chunks/s bare, and 30,600
with the engine and its metrics (`benchmarks/simulator_speed.py`), which is the rate the roofline
asked for. That is fast enough not to need a server of our own.
"""

import asyncio
import itertools
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable

from aiohttp import web

from harness.sim.api_server import Job
from harness.sim.engine import Engine
from harness.sim.fault import Fault
from harness.sim.protocol import (
    Ask,
    BadRequestError,
    ModelNotFoundError,
    Writer,
    error_body,
    error_event,
    parse_ask,
)

MAX_BODY_BYTES = 64 * 2**20
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
VERSION = "simulator-1"

log = logging.getLogger(__name__)


class Server:
    def __init__(
        self,
        engine: Engine,
        *,
        model: str,
        max_model_len: int,
        stream_interval: int,
        seed: int,
        fault: Fault,
    ) -> None:
        self._engine = engine
        self._model = model
        self._max_model_len = max_model_len
        self._stream_interval = stream_interval
        self._seed = seed
        self._fault = fault
        self._number = itertools.count(1)
        self._created = time.time_ns() // 10**9  # the API reports wall-clock time

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/version", self._version),
                web.get("/v1/models", self._models),
                web.get("/server_info", self._server_info),
                web.get("/metrics", self._metrics),
                web.post("/v1/completions", self._completions),
                web.post("/v1/chat/completions", self._chat),
                web.post("/reset_prefix_cache", self._reset_prefix_cache),
                web.post("/start_profile", self._profile),
                web.post("/stop_profile", self._profile),
            ]
        )
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": VERSION})

    async def _models(self, _: web.Request) -> web.Response:
        model = {
            "id": self._model,
            "object": "model",
            "created": self._created,
            "owned_by": "simulator",
            "root": self._model,
            "parent": None,
            "max_model_len": self._max_model_len,
        }
        return web.json_response({"object": "list", "data": [model]})

    async def _server_info(self, _: web.Request) -> web.Response:
        scheduler = self._engine.scheduler
        resolved = {
            "max_num_seqs": scheduler.max_num_seqs,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        }
        return web.json_response({"vllm_config": {"scheduler_config": resolved}})

    async def _metrics(self, _: web.Request) -> web.Response:
        scheduler = self._engine.scheduler
        page = self._engine.metrics.page(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_cache_usage_frac=scheduler.pool.num_used / scheduler.pool.num_blocks,
        )
        return web.Response(body=page, headers={"Content-Type": METRICS_TYPE})

    async def _profile(self, request: web.Request) -> web.Response:
        log.info("%s: the simulator has no profiler, nothing is written", request.path)
        return web.Response()

    async def _reset_prefix_cache(self, _: web.Request) -> web.Response:
        if self._engine.scheduler.pool.forget():
            log.info("Successfully reset prefix cache")
        else:
            log.warning("Failed to reset prefix cache because some blocks are not freed yet")
        return web.Response()

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=False)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=True)

    async def _generate(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        try:
            ask = parse_ask(
                json.loads(await request.read()),
                chat=chat,
                model=self._model,
                max_model_len=self._max_model_len,
            )
        except (BadRequestError, ValueError) as error:
            return web.json_response(error_body(str(error), "BadRequestError", 400), status=400)
        except ModelNotFoundError as error:
            return web.json_response(error_body(str(error), "NotFoundError", 404), status=404)
        number = next(self._number)
        writer = Writer(
            ask,
            model=self._model,
            request_id=uuid.uuid4().hex,
            created=time.time_ns() // 10**9,
            seed=self._seed,
        )
        if _is_turn(number, self._fault.error_chunk_every):
            return await self._broken_stream(request)
        chunks: asyncio.Queue[tuple[int, bool]] = asyncio.Queue()
        job = self._engine.submit(
            ask.prompt,
            ask.max_tokens,
            lambda num_tokens, last: chunks.put_nowait((num_tokens, last)),
            stream_interval=self._stream_interval if ask.stream else ask.max_tokens,
        )
        try:
            if not ask.stream:
                while not (await chunks.get())[1]:
                    pass
                return web.json_response(writer.reply(job.request.cached or 0))
            cut = _is_turn(number, self._fault.truncate_every)
            return await self._stream(request, ask, job, writer, chunks.get, cut=cut)
        except ConnectionError:  # the client is gone, so this response is never sent
            return web.Response()
        finally:
            self._engine.abort(job)  # does nothing to a completed one

    async def _stream(
        self,
        request: web.Request,
        ask: Ask,
        job: Job,
        writer: Writer,
        next_chunk: Callable[[], Awaitable[tuple[int, bool]]],
        *,
        cut: bool,
    ) -> web.StreamResponse:
        response = await _begin_stream(request)
        sent, last = 0, False
        while not last:
            num_tokens, last = await next_chunk()
            if ask.chat and not sent:
                await response.write(writer.role())
            sent += num_tokens
            if cut and (last or 2 * sent >= ask.max_tokens):
                assert request.transport is not None
                request.transport.close()
                return response
            await response.write(writer.content(num_tokens, last=last))
        if ask.include_usage:
            await response.write(writer.usage(job.request.cached or 0))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _broken_stream(self, request: web.Request) -> web.StreamResponse:
        response = await _begin_stream(request)
        await response.write(error_event("EngineCore encountered an issue: --fault error_chunk."))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _is_turn(number: int, every: int | None) -> bool:
    return every is not None and number % every == 0


async def _begin_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response
