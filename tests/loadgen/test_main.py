import json
import re
import subprocess
import sys

import pytest

from loadgen.__main__ import main
from loadgen.calibration import Calibration, Probe
from loadgen.generator import WorkerError
from loadgen.null_server import NullServerError
from tests.loadgen.conftest import well

QUICK = "--model m --vocab-size 512 --warmup 0.1 --duration 0.5 --input-tokens 9 --output-tokens 3"


def run(words, *, capsys):
    try:
        code = main(words.split())
    except SystemExit as left:
        code = left.code
    out, err = capsys.readouterr()
    return code, out, err


def test_a_run_is_printed_and_its_records_are_written(start_server, tmp_path, capsys):
    url = start_server().target().url
    words = f"{url} --concurrency 2 --out {tmp_path}/out {QUICK}"
    code, out, _ = run(words, capsys=capsys)
    assert code == 0
    assert "TTFT" in out
    assert "0 failed" in out
    summary = json.loads((tmp_path / "out/summary.json").read_text())["summary"]
    assert summary["requests_ok"] > 0
    assert summary["input_tokens_mean"] == 9
    header, *rows = (tmp_path / "out/requests.csv").read_text().splitlines()
    assert header.startswith("request,conversation,turn,stream,due_at_s,sent_at_s,first_at_s")
    assert len(rows) >= summary["requests_ok"]
    assert (tmp_path / "out/chunks.csv").exists()
    bench = json.loads((tmp_path / "out/vllm_bench.json").read_text())
    assert bench["completed"] == summary["requests_ok"]


def test_a_window_shorter_than_a_reply_is_told(start_server, capsys):
    async def slow(wire):
        await well(wire, pause_s=0.3)

    words = "--model m --vocab-size 512 --warmup 0 --input-tokens 9 --output-tokens 3"
    _, out, _ = run(f"{start_server(slow).target().url} {words} --duration 0.5", capsys=capsys)
    told = re.search(r"shorter than a reply, which took ([\d.]+) s: --duration (\d+)\n", out)
    assert told, out
    assert float(told[1]) > 0.5
    assert int(told[2]) >= 4 * float(told[1]) - 0.01
    code, out, _ = run(f"{start_server().target().url} {words} --duration 0.5", capsys=capsys)
    assert code == 0
    assert "--duration" not in out


def test_the_key_comes_from_the_environment_and_goes_into_no_file(
    start_server, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    server = start_server()
    words = f"{server.target().url} --api-key-env MY_KEY --out {tmp_path} {QUICK}"
    assert run(words, capsys=capsys)[0] == 0
    assert server.requests[0]["authorization"] == "bearer sk-secret"
    for path in tmp_path.iterdir():
        assert "sk-secret" not in path.read_text()


def test_a_server_that_answers_nothing_well_is_exit_code_1(start_server, capsys):
    async def refuses(wire):
        await wire.raw(b"HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\noops")

    code, out, _ = run(f"{start_server(refuses).target().url} {QUICK}", capsys=capsys)
    assert code == 1
    assert "http_error, e.g. oops" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("http://127.0.0.1:9 --rate -1", "--rate -1.0: must be more than 0"),
        ("http://127.0.0.1:9 --rate abc", "--rate: invalid float value: 'abc'"),
        ("http://127.0.0.1:9 --rate 1 --rate-end 2", "--rate-end is for arrival=ramp, not for"),
        ("http://127.0.0.1:9 --concurrency 0", "--concurrency 0: must be 1 or more"),
        ("http://127.0.0.1:9 --turns 0 --endpoint chat", "--turns 0: must be 1 or more"),
        ("http://127.0.0.1:9 --input-tokens -5", "--input-tokens -5: must be 1 or more"),
        ("http://127.0.0.1:9 --prefix-groups 2 --prefix-hit-frac 1", "-hit-frac 1.0: must be less"),
        ("http://127.0.0.1:9 --endpoint embed", "--endpoint embed: must be completions or chat"),
        ("http://127.0.0.1:9 --duration nan", "--duration nan: must be a finite number"),
        ("http://127.0.0.1:9 --trace x --speed 0", "--speed 0.0: must be more than 0"),
        ("http://127.0.0.1:9 --transport quic", "--transport quic: must be auto, direct or aioh"),
        ("http://127.0.0.1:9 --no-such-word", "unrecognized arguments: --no-such-word"),
        ("http://127.0.0.1:9 --rate 1 --concurrency 2", "take one of them"),
        ("http://127.0.0.1:9 --arrival gamma", "--arrival is for --rate"),
        ("http://127.0.0.1:9 --rate 1 --arrival gamma", "--burstiness is required"),
        ("http://127.0.0.1:9 --turns 2", "needs endpoint=chat"),
        ("ftp://127.0.0.1:9", "must start with http"),
        ("https://127.0.0.1:9 --transport direct", "take aiohttp"),
        ("http://127.0.0.1:9 --dataset /no/such/file", "/no/such/file"),
        ("http://127.0.0.1:9 --trace /no/such/file", "/no/such/file"),
        ("http://127.0.0.1:9 --api-key-env NO_SUCH_NAME", "no variable 'NO_SUCH_NAME'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(words, said, capsys):
    code, out, err = run(f"{words} --model m", capsys=capsys)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("loadgen: ")
    assert err.count("\n") == 1


def calibration(workers):
    probe = Probe(
        workers=workers, streams=2, chunks_per_s=200.0, ttft_error_p50_s=1e-4,
        ttft_error_p99_s=1e-3, tpot_error_p50_s=0.0, tpot_error_p99_s=0.0, send_lag_p99_s=0.0,
        cpu_frac=0.1, server_late_p99_s=0.0,
    )  # fmt: skip
    return Calibration(
        transport="direct", workers=workers, at_load=probe, probes=(probe,), clean_chunks_per_s=2e4
    )


def test_the_client_that_was_calibrated_is_the_one_that_runs(
    start_server, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("loadgen.__main__.calibrate", lambda *_, **__: calibration(workers=2))
    words = f"{start_server().target().url} --calibrate --out {tmp_path} {QUICK}"
    code, out, _ = run(words, capsys=capsys)
    assert code == 0
    assert "good to 20,000 chunks/s" in out
    assert json.loads((tmp_path / "summary.json").read_text())["client"]["workers"] == 2


@pytest.mark.parametrize("error", [NullServerError, WorkerError])
def test_a_calibration_that_fails_is_one_sentence(capsys, monkeypatch, error):
    def fail(client, **_):
        raise error(f"{client.transport} has died")

    monkeypatch.setattr("loadgen.__main__.calibrate", fail)
    told = run("https://127.0.0.1:9 --model m --calibrate", capsys=capsys)
    assert told == (2, "", "loadgen: aiohttp has died\n"), "with the transport of the run"


def test_a_server_that_is_not_there_is_one_sentence(capsys):
    code, _, err = run("http://127.0.0.1:9", capsys=capsys)
    assert code == 2
    assert "start the server, or say --model" in err


def test_the_worker_imports_no_more_than_it_needs():
    program = "import sys, loadgen.worker; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert not {"pandas", "pyarrow", "hydra", "matplotlib"} & set(done.stdout.split())


def test_the_library_gives_what_it_names_and_nothing_before_it_is_asked_for():
    program = (
        "import sys, loadgen; early = {m for m in sys.modules if m.startswith('loadgen.')};"
        "assert not early, early;"
        "[getattr(loadgen, name) for name in loadgen.__all__];"
        "assert not hasattr(loadgen, 'nonsense')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
