"""The same load by this load generator and by `vllm bench serve`, against one vLLM on the CPU.

What is compared. `vllm bench serve` sends a fixed number of requests and divides by the time from
the first to the last; that holds a start, in which all requests are prompts, and an end, in which
fewer and fewer are in flight. Ours measures a window of a load that goes on. So its records are
taken from the file it saves (start_times, ttfts, itls) and cut to the window in which its load was
as ours is: from when the first requests have all ended to when the last one is sent. There, and
with the same formulas, output tokens a second and the median TPOT must be the same. TTFT is printed
and not compared: it is the client's own queue, too (docs/definitions.md).

How it stays robust. The model's step takes many milliseconds, so that the clients' own CPU is
little beside it. Both keep as many requests in flight, with lengths drawn alike. Each client has
started before its first request is sent. They take turns, and medians over the turns are compared:
three turns of each, and one more if any of them was off.

Needs HARNESS_VLLM_PYTHON, and its vLLM with the extra `bench`, which draws its plots.
"""

import json
import os
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.engines import vllm
from harness.engines.config import VllmEngine
from harness.engines.server import Server
from harness.model import TOKENIZER, Model, Shape, materialise
from loadgen.config import Load, Uniform
from loadgen.generator import Generator
from loadgen.metrics import Summary, summarise
from loadgen.records import ClientHealth, Columns, Target, Window
from loadgen.vllm_bench import vllm_bench_json

PYTHON = os.environ.get("HARNESS_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.long,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not PYTHON, reason="HARNESS_VLLM_PYTHON names no interpreter with vLLM"),
]
TURNS = 3
WITHIN = 0.05
NUM_PROMPTS = 48
LOAD = Load(
    arrival="closed",
    concurrency=4,
    input_tokens=64,
    output_tokens=Uniform(min=32, max=96),
    warmup_s=1.0,
    ramp_s=0.0,
    duration_s=10.0,
)
MODEL = Model(
    name="slow",
    shape=Shape(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=8,
        num_attention_heads=16,
        num_key_value_heads=4,
        head_dim=64,
        vocab_size=512,
        max_position_embeddings=2048,
    ),
)
# The command line's entry point asks for a distribution named vllm, which the CPU build is not.
BENCH_SERVE = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One run of each client."""

    ours: Summary
    our_health: ClientHealth
    theirs: Summary
    our_file: dict[str, Any]
    their_file: dict[str, Any]

    def off(self) -> bool:
        """Whether the two clients differ in this turn alone."""
        pairs = [
            (self.ours.output_tok_per_s, self.theirs.output_tok_per_s),
            (self.ours.tpot_p50_s, self.theirs.tpot_p50_s),
        ]
        return any(ours != pytest.approx(theirs, rel=WITHIN) for ours, theirs in pairs)


class Bench:
    """`vllm bench serve` against one server."""

    def __init__(self, server: Server, tokenizer: Path, folder: Path) -> None:
        self.server, self.tokenizer, self.folder = server, tokenizer, folder

    def __call__(self, seed: int) -> dict[str, Any]:
        file = self.folder / f"{seed}.json"
        lengths = LOAD.output_tokens
        mean = (lengths.min + lengths.max) // 2
        flags = {
            "backend": "openai",
            "base-url": self.server.url,
            "model": self.server.model,
            "tokenizer": self.tokenizer,
            "dataset-name": "random",
            "random-input-len": LOAD.input_tokens,
            "random-output-len": mean,
            "random-range-ratio": json.dumps({"input": 0.0, "output": lengths.max / mean - 1}),
            "num-prompts": NUM_PROMPTS,
            "max-concurrency": LOAD.concurrency,
            "temperature": LOAD.temperature,
            "seed": seed,
            "percentile-metrics": "ttft,tpot,itl,e2el",
            "metric-percentiles": "50,90,99",
            "result-filename": file,
        }
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        words += ["--ignore-eos", "--save-result", "--save-detailed", "--disable-tqdm"]
        run_vllm("-c", BENCH_SERVE, *words)
        made: dict[str, Any] = json.loads(file.read_text())
        assert made["completed"] == NUM_PROMPTS
        return made


def run_vllm(*words: str) -> str:
    """What vLLM's interpreter says, with nothing to fetch and no screen to draw on."""
    env = os.environ | {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "VLLM_NO_USAGE_STATS": "1"}
    done = subprocess.run(
        [PYTHON, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def records(made: dict[str, Any]) -> tuple[Columns, Columns]:
    """The tables of a run of `vllm bench serve`, from the lists in its file."""
    sent_at_s, queue_s = np.array(made["start_times"]), np.array(made["queue_times"])
    at_s = [
        begin + ttft + np.cumsum([0.0, *gaps])
        for begin, ttft, gaps in zip(sent_at_s, made["ttfts"], made["itls"], strict=True)
    ]
    size = len(sent_at_s)
    requests = {
        "request": np.arange(size),
        "stream": np.arange(size),
        "due_at_s": sent_at_s - queue_s,
        "sent_at_s": sent_at_s,
        "first_at_s": np.array([times[0] for times in at_s]),
        "last_at_s": np.array([times[-1] for times in at_s]),
        "ended_at_s": np.array([times[-1] for times in at_s]),
        "input_tokens_asked": np.array(made["input_lens"], float),
        "output_tokens_asked": np.array(made["output_lens"]),
        "input_tokens": np.array(made["input_lens"], float),
        "output_tokens": np.array(made["output_lens"], float),
        "cached_tokens": np.full(size, np.nan),
        "num_chunks": np.array([len(times) for times in at_s]),
        "status": np.array(["ok"] * size, object),
        "failure": np.array([""] * size, object),
        "detail": np.array(made["errors"], object),
    }
    chunks = {
        "request": np.repeat(requests["request"], requests["num_chunks"]),
        "at_s": np.concatenate(at_s),
    }
    return requests, chunks


def steady(requests: Columns) -> Window:
    """From when the first requests have all ended to when the last one is sent."""
    sent_in_order = np.sort(requests["sent_at_s"])
    last_of_first = sent_in_order[LOAD.concurrency - 1]
    first = requests["sent_at_s"] <= last_of_first
    return span(requests["ended_at_s"][first].max(), sent_in_order[-1])


def span(opened_at_s: float, closed_at_s: float) -> Window:
    return Window(
        started_at_s=opened_at_s,
        opened_at_s=opened_at_s,
        closed_at_s=closed_at_s,
        ended_at_s=closed_at_s,
        clock_monotonic_s=closed_at_s,
        clock_utc_ns=0,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("beside")


@pytest.fixture(scope="module")
def bench(root: Path) -> Iterator[Bench]:
    # Without a prefix cache: the random prompts of `vllm bench serve` have parts in common.
    engine = VllmEngine(
        python=PYTHON, enforce_eager=True, max_num_seqs=8, enable_prefix_caching=False
    )
    server = vllm.start(engine, MODEL, root / "launch", root / "models")
    tokenizer = Path(materialise(MODEL, root / "models")) / TOKENIZER
    yield Bench(server, tokenizer, root)
    server.stop()


@pytest.fixture(scope="module")
def turns(bench: Bench) -> list[Turn]:
    """Three turns of each client, and a fourth if any of them was off."""
    assert MODEL.shape is not None
    target = Target(url=bench.server.url, model=MODEL.name, vocab_size=MODEL.shape.vocab_size)
    made: list[Turn] = []
    with Generator() as generator:
        for number in range(TURNS + 1):
            if number == TURNS and not any(turn.off() for turn in made):
                break
            made.append(take_turn(generator, bench, target, number))
            print(told(made[-1]))
    return made


def take_turn(generator: Generator, bench: Bench, target: Target, number: int) -> Turn:
    their_file = bench(seed=number)
    their_requests, their_chunks = records(their_file)
    result = generator.run(LOAD, target, seed=number)
    tables = result.requests, result.chunks
    return Turn(
        ours=summarise(*tables, window=result.window, load=LOAD),
        our_health=result.client,
        theirs=summarise(their_requests, their_chunks, window=steady(their_requests), load=LOAD),
        our_file=vllm_bench_json(*tables, window=result.window, load=LOAD, model=target.model),
        their_file=their_file,
    )


def told(turn: Turn) -> str:
    numbers = "; ".join(
        f"{name}: {summary.output_tok_per_s:.1f} tok/s, TPOT {1e3 * (summary.tpot_p50_s or 0):.2f},"
        f" TTFT {1e3 * (summary.ttft_p50_s or 0):.1f} ms, n {summary.requests_ok}"
        for name, summary in (("ours", turn.ours), ("vllm bench", turn.theirs))
    )
    return f"{numbers}; our timers were {1e3 * turn.our_health.loop_lag_p99_s:.0f} ms late (p99)"


def medians(turns: list[Turn], measure: str) -> tuple[float, float]:
    ours = statistics.median(getattr(turn.ours, measure) for turn in turns)
    theirs = statistics.median(getattr(turn.theirs, measure) for turn in turns)
    return ours, theirs


@pytest.mark.parametrize("measure", ["output_tok_per_s", "tpot_p50_s"])
def test_both_clients_measure_the_same(turns: list[Turn], measure: str) -> None:
    ours, theirs = medians(turns, measure)
    assert ours == pytest.approx(theirs, rel=WITHIN), "\n".join(map(told, turns))


def test_tokens_come_one_in_a_chunk_to_both(turns: list[Turn]) -> None:
    for turn in turns:
        assert turn.ours.tokens_per_chunk == pytest.approx(1.0, abs=0.02)
        assert turn.theirs.tokens_per_chunk == pytest.approx(1.0, abs=0.02)
        assert turn.ours.lengths_off_frac == 0.0


def test_our_file_has_the_keys_of_theirs(turns: list[Turn]) -> None:
    assert set(turns[0].our_file) == set(turns[0].their_file)
    for key, value in turns[0].their_file.items():
        if isinstance(value, list):
            assert isinstance(turns[0].our_file[key], list), key


def test_our_formulas_make_their_numbers_of_their_records(turns: list[Turn]) -> None:
    """The whole run as the window: everything in their file, written anew by us, is the same."""
    theirs = turns[0].their_file
    requests, chunks = records(theirs)
    began_at_s = requests["sent_at_s"].min()
    window = span(began_at_s, began_at_s + theirs["duration"])
    ours = vllm_bench_json(
        requests,
        chunks,
        window=window,
        load=LOAD,
        model=theirs["model_id"],
        metadata={"tokenizer_id": theirs["tokenizer_id"]},
    )
    not_kept = {"date", "generated_texts"}
    assert {key: ours[key] for key in theirs if key not in not_kept} == {
        key: almost(value) for key, value in theirs.items() if key not in not_kept
    }


def almost(value: Any) -> Any:
    """Times are sums of other times in one of the two, so they may differ in the last digits."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [almost(item) for item in value]
    if isinstance(value, float) or (isinstance(value, list) and isinstance(value[0], float)):
        return pytest.approx(value, rel=1e-6, abs=2e-9)
    return value


def test_vllm_plots_our_runs_beside_its_own(turns: list[Turn], tmp_path: Path) -> None:
    """In the folders of `vllm bench sweep serve`: run=N.json, and summary.json, which it reads."""
    files = {
        "ours": [turn.our_file for turn in turns],
        "theirs": [turn.their_file for turn in turns],
    }
    for client, made in files.items():
        folder = tmp_path / f"BENCH--client={client}"
        folder.mkdir()
        runs = [
            {"run_number": number, "client": client, **file} for number, file in enumerate(made)
        ]
        for run in runs:
            (folder / f"run={run['run_number']}.json").write_text(json.dumps(run))
        (folder / "summary.json").write_text(json.dumps(runs))
    axes = ["--var-x", "output_throughput", "--var-y", "median_tpot_ms", "--curve-by", "client"]
    said = run_vllm("-m", "vllm.benchmarks.sweep.plot", str(tmp_path), *axes)
    assert "[END FIGURE]" in said
    assert (tmp_path / "FIGURE.png").read_bytes().startswith(b"\x89PNG")
    said = run_vllm("-m", "vllm.benchmarks.sweep.plot_pareto", str(tmp_path))
    assert f"Plotted {2 * len(turns)} points" in said
    assert (tmp_path / "pareto" / "PARETO.png").read_bytes().startswith(b"\x89PNG")
