"""`python -m harness.sim MODEL_DIR`: the simulator's server process."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time

import uvloop
from aiohttp import web

from harness.sim.alarm import Alarm
from harness.sim.launch import StartError, build
from harness.sim.options import Options, parse_options
from harness.sim.server import VERSION, Server

SHUTDOWN_S = 0.2  # for open streams to end

log = logging.getLogger("harness.sim")


async def serve(options: Options, listener: socket.socket) -> None:
    launch = build(options)
    launch.engine.start(Alarm(launch.engine.wake))
    server = Server(
        launch.engine,
        model=options.served_model_name,
        max_model_len=launch.max_model_len,
        stream_interval=options.stream_interval,
        seed=options.seed,
        fault=options.fault,
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(
        server.app(), access_log=None, shutdown_timeout=SHUTDOWN_S, handler_cancellation=True
    )
    await runner.setup()
    await web.SockSite(runner, listener, backlog=4096).start()
    host, port = listener.getsockname()[:2]
    log.info("Starting vLLM SIMULATOR server on http://%s:%d", host, port)
    log.info("Application startup complete.")
    await stop.wait()
    log.info("Shutting down")
    await runner.cleanup()


def main() -> int:
    options = parse_options(sys.argv[1:])
    logging.basicConfig(
        level=logging.INFO,
        format=f"(SIMULATOR pid={os.getpid()}) %(levelname)s %(asctime)s "
        "[%(filename)s:%(lineno)d] %(message)s",
        datefmt="%m-%d %H:%M:%S",
    )
    log.info("SIMULATOR of vLLM, no GPU: version %s, model %s", VERSION, options.model)
    log.info("SIMULATOR imitates %d× %s", options.tensor_parallel_size, options.gpu.name)
    log.info("non-default args: %s", options.non_default)
    for flag in options.no_effect:
        log.warning("%s has no effect on the simulator", flag)
    time.sleep(options.fault.slow_start_s)
    try:
        if options.fault.die_at_start:
            raise ModuleNotFoundError("No module named 'flashinfer'")
        if options.fault.oom_at_start:
            raise StartError(
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 "
                "has a total capacity of 139.80 GiB of which 1.00 GiB is free."
            )
        with contextlib.closing(socket.create_server((options.host, options.port))) as listener:
            uvloop.run(serve(options, listener))
    except StartError as error:
        log.error("EngineCore failed to start.")
        log.error("%s", error)
        return 1
    return 0


sys.exit(main())
