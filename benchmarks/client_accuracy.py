"""How true the load generator is: what it reports of a server whose schedule is known exactly.

The server sends a request's first token 50 ms after the request has arrived, then a chunk each
10 ms, and logs when it wrote each. It has one core and the client another. `log` is the same
quantity of the same requests by the server's log; an error is what the client reports less that.

    python benchmarks/client_accuracy.py
    python benchmarks/client_accuracy.py --rows 512 poisson --transport direct --json out.json

`vllm bench serve` is measured beside it where HARNESS_VLLM_PYTHON names an interpreter with vLLM,
or this one has it.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from harness.model import TOKENIZER, Model, Shape, materialise
from loadgen.calibration import Compared, Probe, compare_tpot, compare_ttft, probe_of
from loadgen.config import Client, Load
from loadgen.generator import Generator
from loadgen.null_server import Floats, NullServer, ServerLog
from loadgen.records import Result, Target

FIRST_S, EACH_S, NUM_TOKENS = 0.050, 0.010, 128
# Streams, and the seconds between chunks. 1,024 streams of a client without gaps are 99,000 chunks
# a second, which no slower client reaches; at 13.74 ms they are 73,000.
CLOSED = {
    "1": (1, EACH_S), "32": (32, EACH_S), "128": (128, EACH_S), "512": (512, EACH_S),
    "1024": (1024, EACH_S), "1024@73k": (1024, 0.01374),
}  # fmt: skip
ROWS = (*CLOSED, "poisson", "long", "capacity", "workers")
CAPACITY_STREAMS = (32, 128, 256, 384, 512, 640, 768, 1024, 1280, 1536, 2048)
WORKERS_STREAMS = (512, 1024, 1280, 1536, 2048, 2560, 3072, 4096)
VLLM = "vllm bench"
VOCAB_SIZE = 1000  # so that an id and its comma are 4 bytes: 100,000 are 400 KB
# The command line's entry point asks for a distribution named vllm, which the CPU build is not.
BENCH_SERVE = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table. Times are in seconds, whatever the table shows."""

    row: str
    client: str
    quantity: str
    value: float
    log: float | None = None  # the same by the server's log
    at_most: float | None = None
    at_least: float | None = None

    @property
    def reached(self) -> bool | None:
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least

    def __str__(self) -> str:
        log = "" if self.log is None else f"log {self._shown(self.log)}"
        limit = self.at_most if self.at_least is None else self.at_least
        sign = "≤" if self.at_least is None else "≥"
        must = "" if limit is None else f"must be {sign} {self._shown(limit)}"
        verdict = {None: "", True: "yes", False: "NO"}[self.reached]
        return (
            f"{self.row:9}{self.client:12}{self.quantity:20}{self._shown(self.value):>14}   "
            f"{log:18}{must:25}{verdict}"
        ).rstrip()

    def _shown(self, value: float) -> str:
        match self.quantity:
            case "chunks/s":
                return f"{value:,.0f}"
            case "CPU per chunk":
                return f"{value * 1e6:.1f} µs"
            case "two workers / one" | "worker's core":
                return f"{value:.2f}"
            case _:
                return f"{value * 1e3:.3f} ms"


class Server(Protocol):
    url: str

    def log(self) -> ServerLog: ...


class CompiledServer:
    """null_server.c, on one core. Its log is there once, and then it has ended."""

    def __init__(self, binary: Path, each_s: float, log: Path, core: int | None) -> None:
        command = [str(binary), str(FIRST_S), str(each_s), str(log)]
        self._file = log
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})
            with suppress(PermissionError):  # else, whatever wakes on its core delays it
                os.setpriority(os.PRIO_PROCESS, self._process.pid, -20)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def log(self) -> ServerLog:
        self.stop()
        written = self._file.read_bytes()
        num_requests, _ = np.frombuffer(written[:16])
        end = 16 + 40 * int(num_requests)
        return ServerLog.read(written[16:end], written[end:])

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Bench:
    """The machine: one core for the server, the next ones for clients; and where figures go."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.figures: list[Figure] = []
        _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # one a connection
        cores = sorted(os.sched_getaffinity(0))
        self.server_core = cores[0] if len(cores) > 1 else None
        self.client_cores = cores[1:]
        if self.client_cores:
            os.sched_setaffinity(0, self.client_cores[:1])  # which the client inherits
        else:
            print("one core only: server and client share it, so these are no client's errors")
        self.binary = _compiled(folder)

    @contextmanager
    def server(self, each_s: float) -> Iterator[Server]:
        with ExitStack() as stack:
            if self.binary is None:
                cores = () if self.server_core is None else (self.server_core,)
                yield stack.enter_context(NullServer(FIRST_S, each_s, cores=cores))
            else:
                server = CompiledServer(self.binary, each_s, self.folder / "log", self.server_core)
                stack.callback(server.stop)
                yield server

    def run(
        self, load: Load, transport: str, *, workers: int = 1, each_s: float = EACH_S
    ) -> tuple[Result, ServerLog]:
        client = Client(transport=transport, workers=workers)  # type: ignore[arg-type]
        cores = self.client_cores[:workers] if workers > 1 else ()
        with self.server(each_s) as server, Generator(client, cores=cores) as generator:
            target = Target(url=server.url, model="null", vocab_size=VOCAB_SIZE)
            result = generator.run(load, target, seed=1)
            log = server.log()
        if failed := int((result.requests["status"] == "failed").sum()):
            print(f"{failed} requests failed: {sorted(set(result.requests['failure']))}")
        return result, log

    def say(self, row: str, client: str, quantity: str, value: float, **rest: float | None) -> None:
        figure = Figure(row=row, client=client, quantity=quantity, value=float(value), **rest)
        self.figures.append(figure)
        print(figure, flush=True)


def _compiled(folder: Path) -> Path | None:
    compiler, source = shutil.which("cc"), Path(__file__).with_name("null_server.c")
    if compiler is None:
        print("no C compiler (cc): the server is in Python, and some 0.1 to 0.4 ms late")
        return None
    subprocess.run([compiler, "-O2", "-o", folder / "null_server", source], check=True)
    return folder / "null_server"


def closed(streams: int, seconds: float, **more: Any) -> Load:
    """Each stream's replies take 1.32 s; streams start spread over that."""
    fields: dict[str, Any] = {
        "arrival": "closed", "concurrency": streams, "input_tokens": 8,
        "output_tokens": NUM_TOKENS, "ramp_s": 1.3, "warmup_s": 2.0, "duration_s": seconds,
    }  # fmt: skip
    return Load(**fields | more)


def measure_closed(bench: Bench, row: str, transport: str) -> None:
    streams, each_s = CLOSED[row]
    result, log = bench.run(closed(streams, bench.seconds), transport, each_s=each_s)
    probe = probe_of(result, log)
    ttft = compare_ttft(result.requests, log, result.window)
    tpot = compare_tpot(result.requests, log, result.window)
    say_times(bench, row, transport, ttft, tpot)
    bench.say(row, transport, "TTFT error p99", probe.ttft_error_p99_s)
    bench.say(row, transport, "TPOT error p99", probe.tpot_error_p99_s)
    late_at_most = 0.0005 if streams <= 512 else None
    bench.say(row, "server", "late p99", probe.server_late_p99_s, at_most=late_at_most)
    say_cost(bench, row, transport, probe, at_most=11e-6 if streams == 512 else None)


def say_times(bench: Bench, row: str, client: str, ttft: Compared, tpot: Compared) -> None:
    """p50 and p99 beside those of the log, and the limits that the row has."""
    limits: dict[str, float] = {}
    if row == "512":
        limits = {"TTFT p50": 0.0503, "TTFT p99": 0.053, "TPOT p99": 0.01005}
    elif CLOSED[row][0] == 1024:
        limits = {
            "TTFT p50": _quantile(ttft.true_s, 0.5) + 0.001,
            "TTFT p99": _quantile(ttft.true_s, 0.99) + 0.010,
        }
    for name, times in (("TTFT", ttft), ("TPOT", tpot)):
        for label, q in (("p50", 0.5), ("p99", 0.99)):
            quantity = f"{name} {label}"
            value, log = _quantile(times.said_s, q), _quantile(times.true_s, q)
            bench.say(row, client, quantity, value, log=log, at_most=limits.get(quantity))


def say_cost(
    bench: Bench, row: str, transport: str, probe: Probe, at_most: float | None = None
) -> None:
    bench.say(row, transport, "chunks/s", probe.chunks_per_s)
    bench.say(row, transport, "worker's core", probe.cpu_frac)
    cost_s = probe.cpu_frac / probe.chunks_per_s
    bench.say(row, transport, "CPU per chunk", cost_s, at_most=at_most)


def measure_poisson(bench: Bench, row: str, transport: str) -> None:
    load = Load(
        arrival="poisson", rate_rps=200, input_tokens=8, output_tokens=100,
        warmup_s=2.0, duration_s=bench.seconds, drain_s=5.0,
    )  # fmt: skip
    probe = probe_of(*bench.run(load, transport))
    bench.say(row, transport, "send lag p99", probe.send_lag_p99_s, at_most=0.002)
    bench.say(row, transport, "TTFT error p99", probe.ttft_error_p99_s)
    say_cost(bench, row, transport, probe)


def measure_long(bench: Bench, row: str, transport: str) -> None:
    probe = probe_of(*bench.run(closed(32, bench.seconds, input_tokens=100_000), transport))
    bench.say(row, transport, "TTFT error p50", probe.ttft_error_p50_s)
    bench.say(row, transport, "TTFT error p99", probe.ttft_error_p99_s, at_most=0.010)
    say_cost(bench, row, transport, probe)


def clean_rate(bench: Bench, row: str, transport: str, workers: int, steps: Sequence[int]) -> float:
    """The highest chunks/s with a TTFT error under 5 ms at p99, streams rising until it is not."""
    best = 0.0
    for streams in steps:
        probe = probe_of(*bench.run(closed(streams, bench.seconds / 2), transport, workers=workers))
        name = f"error p99 at {probe.chunks_per_s / 1e3:.0f}k/s"
        bench.say(row, transport, name, probe.ttft_error_p99_s)
        if not probe.is_clean:
            break
        best = max(best, probe.chunks_per_s)
    return best


def measure_capacity(bench: Bench, row: str, transport: str) -> None:
    best = clean_rate(bench, row, transport, 1, CAPACITY_STREAMS)
    bench.say(row, transport, "chunks/s", best, at_least=60_000)


def measure_workers(bench: Bench, row: str, transport: str) -> None:
    if len(bench.client_cores) < 2:
        print(f"{row:9}{transport:12}not measured: it needs three cores")
        return
    one, two = (clean_rate(bench, row, transport, workers, WORKERS_STREAMS) for workers in (1, 2))
    bench.say(row, transport, "two workers / one", two / one if one else 0.0, at_least=1.7)


MEASURES: dict[str, Callable[[Bench, str, str], None]] = {
    **dict.fromkeys(CLOSED, measure_closed),
    "poisson": measure_poisson,
    "long": measure_long,
    "capacity": measure_capacity,
    "workers": measure_workers,
}


def measure_vllm(bench: Bench, python: str, row: str) -> None:
    """`vllm bench serve` against the same server: 6 requests a stream, 4 at 1,024."""
    (streams, each_s), made = CLOSED[row], bench.folder / "vllm.json"
    shape = Shape(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=64, vocab_size=VOCAB_SIZE, max_position_embeddings=4096,
        rope_theta=1e4, rms_norm_eps=1e-6,
    )  # fmt: skip
    model = Model(name="null", path=None, revision=None, shape=shape)
    served = materialise(model, bench.folder)
    with bench.server(each_s) as server:
        flags = {
            "backend": "openai", "base-url": server.url, "endpoint": "/v1/completions",
            "model": "null", "tokenizer": Path(served) / TOKENIZER, "dataset-name": "random",
            "random-input-len": 8, "random-output-len": NUM_TOKENS,
            "num-prompts": max(12, streams * (4 if streams >= 1024 else 6)),
            "max-concurrency": streams, "ready-check-timeout-sec": 0,
            "percentile-metrics": "ttft,tpot", "metric-percentiles": "99",
            "result-filename": made,
        }  # fmt: skip
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        words += ["--ignore-eos", "--save-result", "--disable-tqdm"]
        env = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        command = [python, "-c", BENCH_SERVE, *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        log = server.log()
    if done.returncode:
        print(f"{row:9}{VLLM:12}failed:\n{done.stderr[-2000:]}")
        return
    said = json.loads(made.read_text())
    ttft_s = log.first_at_s - log.arrived_at_s
    tpot_s = (log.last_at_s - log.first_at_s) / (NUM_TOKENS - 1)
    for name, true_s in (("ttft", ttft_s), ("tpot", tpot_s)):
        for label, key, q in (("p50", "median", 0.5), ("p99", "p99", 0.99)):
            value = said[f"{key}_{name}_ms"] / 1e3
            bench.say(row, VLLM, f"{name.upper()} {label}", value, log=_quantile(true_s, q))
    bench.say(row, VLLM, "chunks/s", said["output_throughput"])


def vllm_python() -> str | None:
    """An interpreter that has vLLM."""
    if python := os.environ.get("HARNESS_VLLM_PYTHON"):
        return python
    return sys.executable if importlib.util.find_spec("vllm") else None


def _quantile(values: Floats, q: float) -> float:
    return float(np.nanquantile(values, q)) if len(values) else float("nan")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument(
        "--transport", nargs="+", choices=("direct", "aiohttp"), default=("direct", "aiohttp")
    )
    parser.add_argument("--no-peer", action="store_true", help="leave vllm bench serve out")
    parser.add_argument("--seconds", type=float, default=8.0, help="the window of a row")
    parser.add_argument("--json", type=Path, help="write all figures here, times in seconds")
    args = parser.parse_args()
    python = None if args.no_peer else vllm_python()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), args.seconds)
        for row in args.rows:
            for transport in args.transport:
                MEASURES[row](bench, row, transport)
            if python and row in CLOSED:
                measure_vllm(bench, python, row)
    if args.json:
        figures = [asdict(figure) | {"reached": figure.reached} for figure in bench.figures]
        machine = {"kernel": platform.release(), "cores": os.cpu_count()}
        server = "python" if bench.binary is None else "c"
        made = {"machine": machine, "server": server, "figures": figures}
        args.json.write_text(json.dumps(made, indent=1))
    missed = [figure for figure in bench.figures if figure.reached is False]
    print(f"\n{len(missed)} of the limits not reached")
    return 0


if __name__ == "__main__":
    sys.exit(main())
