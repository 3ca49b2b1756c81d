import subprocess

import pytest

from harness.sim.options import parse_options
from tests.harness.sim.process import SimProcess, command, write_model


def failed_start(model, *flags) -> tuple[int, str]:
    done = subprocess.run(command(model, *flags), capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def test_the_log_says_what_vllms_log_says(tmp_path):
    flags = ("--max-num-batched-tokens", "4096", "--load-format", "dummy")
    with SimProcess(write_model(tmp_path), *flags) as sim:
        log = "".join(sim.lines)
    assert "SIMULATOR" in sim.lines[0]
    assert "Chunked prefill is enabled with max_num_batched_tokens=4096." in log
    assert "GPU KV cache size: " in log
    assert "Maximum concurrency for 2,048 tokens per request: " in log
    assert "non-default args: {" in log
    assert "--load-format has no effect on the simulator" in log


def test_the_cache_has_as_many_blocks_as_are_asked_for(tmp_path):
    with SimProcess(write_model(tmp_path), "--num-gpu-blocks-override", "200") as sim:
        log = "".join(sim.lines)
        page = sim.fetch("/metrics")[1]
    assert "GPU KV cache size: 3,200 tokens" in log
    assert 'num_gpu_blocks="200"' in page


@pytest.mark.parametrize(
    ("overrides", "flags", "message"),
    [
        ({}, ("--max-model-len", "4096"), "greater than the derived max_model_len"),
        ({}, ("--tensor-parallel-size", "3"), "must be divisible by tensor parallel size"),
        ({"num_hidden_layers": 20_000_000}, (), "torch.OutOfMemoryError: CUDA out of memory"),
        ({}, ("--gpu-memory-utilization", "0.01"), "No available memory for the cache blocks"),
        (
            {"max_position_embeddings": 10**9},
            ("--max-model-len", "1000000000"),
            "the estimated maximum model length is",
        ),
        (
            {},
            ("--no-enable-chunked-prefill", "--max-num-batched-tokens", "1024"),
            "is smaller than max_model_len (2048)",
        ),
        ({}, ("--num-gpu-blocks-override", "100"), "the estimated maximum model length is 1600"),
        ({"hidden_size": None}, (), "not a dense decoder"),
    ],
)
def test_what_vllm_refuses_is_refused_in_its_words(tmp_path, overrides, flags, message):
    code, log = failed_start(write_model(tmp_path, **overrides), *flags)
    assert code == 1
    assert message in log
    assert "Traceback" not in log


def test_a_missing_folder_is_no_model(tmp_path):
    code, log = failed_start(tmp_path / "none")
    assert code == 1
    assert "is not a local folder and is not a valid model identifier" in log


@pytest.mark.parametrize("flag", ["--no-such-flag", "--max-num-sequences=3"])
def test_an_unknown_flag_is_argparses_error(tmp_path, flag):
    code, log = failed_start(write_model(tmp_path), flag)
    assert code == 2
    assert f"unrecognized arguments: {flag}" in log


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("die_at_start", "ModuleNotFoundError: No module named 'flashinfer'"),
        ("oom_at_start", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate"),
    ],
)
def test_faults_at_the_start(tmp_path, fault, message):
    code, log = failed_start(write_model(tmp_path), "--fault", fault)
    assert code == 1
    assert message in log


def test_a_taken_port_is_an_os_error(tmp_path):
    with SimProcess(write_model(tmp_path)) as sim:
        code, log = failed_start(tmp_path, "--port", sim.url.rsplit(":", 1)[1])
    assert code == 1
    assert "Address already in use" in log


def test_vllms_defaults_depend_on_the_gpu():
    assert parse_options(["m", "--gpu", "h200"]).max_num_seqs == 1024
    assert parse_options(["m", "--gpu", "a100"]).max_num_seqs == 256


@pytest.mark.parametrize(
    "fault",
    [
        "sleepy",
        "die_after_tokens",
        "die_after_tokens=x",
        "die_over_prompt_of=0",
        "truncate_every=0",
    ],
)
def test_an_unknown_fault_is_refused(fault, capsys):
    with pytest.raises(SystemExit):
        parse_options(["m", "--fault", fault])
    assert "no such fault" in capsys.readouterr().err
