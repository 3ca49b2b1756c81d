"""A real vLLM, CPU or CUDA, started and ended by the harness. Needs HARNESS_VLLM_PYTHON."""

import json
import os
import signal
import threading
from contextlib import suppress
from dataclasses import replace

import psutil
import pytest

from harness.engines import http, vllm
from harness.engines.config import VllmEngine
from harness.engines.failure import EngineFailed, FailureKind
from harness.model import Model
from tests.harness.engines.test_keeper import alive, until
from tests.harness.models import TINY

PYTHON = os.environ.get("HARNESS_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not PYTHON, reason="HARNESS_VLLM_PYTHON names no interpreter with vLLM"),
]
BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "compressed_tensors":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a vLLM; what a test leaves running is ended."""
    root = tmp_path_factory.mktemp("vllm")
    started = []

    def start(shape=TINY.shape, path=None, **settings):
        model = Model(name="tiny", path=path, shape=None if path else shape)
        engine = VllmEngine(python=PYTHON, enforce_eager=True, **settings)
        server = vllm.start(engine, model, root / f"launch-{len(started)}", root / "models")
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def server(start):
    return start(max_num_seqs=16, max_num_batched_tokens=512)


def failure_of(start, **settings):
    """The failure of a start that must fail."""
    with pytest.raises(EngineFailed) as caught:
        start(**settings)
    return caught.value.failure


def engine_core(server):
    """The process that schedules: the API server's child that has children, or the only one."""
    children = psutil.Process(server.pid).children()
    return max(children, key=lambda child: (len(child.children()), child.memory_info().rss)).pid


def streamed(server, path, prompt):
    """The text of each chunk with content of a streamed reply of 8 tokens."""
    body = {"model": server.model, "max_tokens": 8, "ignore_eos": True, "stream": True, **prompt}
    answer = http.request(f"{server.url}{path}", timeout_s=60.0, body=body)
    events = [line[6:] for line in answer.body.splitlines() if line.startswith("data: {")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    texts = [choice.get("text", choice.get("delta", {}).get("content")) for choice in choices]
    return [text for text in texts if text]


def test_facts_are_known(server):
    facts = server.facts
    assert facts.max_num_seqs == 16
    assert facts.max_num_batched_tokens == 512
    assert facts.max_model_len == 2048
    assert facts.kv_cache_tokens > 2048
    assert facts.vllm_version[0].isdigit()
    assert facts.resolved["dtype"] == "bfloat16"


def test_phases_of_the_start_are_known(server):
    names = ["imports", "engine_core", "workers", "weights", "kv_cache", "serving", "first_token"]
    assert [name for name in server.startup_s if name in names] == names


def test_every_token_of_a_completion_shows_as_text(server):
    texts = streamed(server, "/v1/completions", {"prompt": [0, 5, 511]})
    words = "".join(texts).split()  # a busy server may put two tokens into a chunk
    assert len(words) == 8
    assert all(word[0] == "t" for word in words)


def test_every_token_of_a_chat_shows_as_text(server):
    chat = {"messages": [{"role": "user", "content": "t0 t5 t511"}]}
    assert len("".join(streamed(server, "/v1/chat/completions", chat)).split()) == 8


def test_synthetic_text_has_one_token_for_each_word(server):
    body = {"model": server.model, "prompt": "t0 t5 t511", "max_tokens": 1}
    answer = http.request(f"{server.url}/v1/completions", timeout_s=60.0, body=body)
    assert answer.json()["usage"]["prompt_tokens"] == 3


def test_the_prefix_cache_can_be_reset(server):
    answer = http.request(f"{server.url}/reset_prefix_cache", timeout_s=60.0, body={})
    assert answer.status == 200


def test_a_stopped_engine_core_hangs_although_the_api_server_lives(server):
    os.kill(engine_core(server), signal.SIGSTOP)
    try:
        assert server.failure() is None
        assert server.failure(token_within_s=3.0).kind is FailureKind.HANGS
    finally:
        os.kill(engine_core(server), signal.SIGCONT)
    assert server.failure(token_within_s=60.0) is None


def test_stop_leaves_nothing_behind(server):
    pids = server.pids()
    assert len(pids) >= 2
    ended = server.stop()
    assert ended.needed in ("sigint", "sigterm")
    assert not any(map(alive, pids))


def test_a_killed_engine_core_is_a_death_under_load(start):
    server = start()
    pids = server.pids()

    def load():
        prompt = {"model": server.model, "prompt": [1], "max_tokens": 2000, "ignore_eos": True}
        with suppress(OSError):
            http.request(f"{server.url}/v1/completions", timeout_s=60.0, body=prompt)

    request = threading.Thread(target=load)
    request.start()
    assert until(lambda: "num_requests_running" in http.page(f"{server.url}/metrics"))
    os.kill(engine_core(server), signal.SIGKILL)
    assert until(lambda: server.failure() is not None)
    assert server.failure().kind is FailureKind.DIED_UNDER_LOAD
    server.stop()
    request.join()
    assert not any(map(alive, pids))


def test_an_unknown_flag_is_a_bad_argument(start):
    failure = failure_of(start, extra={"no_such_flag": 3})
    assert failure.kind is FailureKind.BAD_ARGUMENT
    assert "--no-such-flag" in failure.message


def test_a_refused_value_is_a_bad_argument(start):
    failure = failure_of(start, max_num_seqs=64, max_num_batched_tokens=32, max_model_len=16)
    assert failure.kind is FailureKind.BAD_ARGUMENT
    assert "max_num_seqs (64)" in failure.message


def test_a_folder_that_is_not_there_is_a_model_not_found(start):
    assert failure_of(start, path="/no/such/model").kind is FailureKind.MODEL_NOT_FOUND


def test_a_request_that_outgrows_the_kv_cache_is_refused_at_the_start(start):
    shape = replace(TINY.shape, num_hidden_layers=16, head_dim=256, max_position_embeddings=524288)
    assert failure_of(start, shape=shape).kind is FailureKind.KV_CACHE_TOO_SMALL


def test_a_package_that_a_worker_lacks_is_found_below_other_errors(start, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    failure = failure_of(start, env={"PYTHONPATH": str(tmp_path)})
    assert failure.kind is FailureKind.MISSING_PACKAGE
    assert "compressed_tensors" in failure.message


def test_a_server_that_dies_of_its_first_request_has_not_started(start):
    shape = replace(TINY.shape, hidden_size=32, head_dim=16)
    failure = failure_of(start, shape=shape)
    assert failure.kind is FailureKind.DIED_AT_START
    assert "head_dim=16" in failure.message
