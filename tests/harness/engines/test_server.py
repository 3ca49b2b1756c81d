import json
import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from harness.engines import external, http
from harness.engines.config import ExternalEngine
from harness.engines.facts import PAGES
from harness.engines.failure import EngineFailed, FailureKind
from harness.engines.server import Setup
from harness.engines.start import launch

FAKE = Path(__file__).parent / "fake_server.py"
GB = 10**9


def setup(*habits, **changes):
    """How to start a fake server with these habits."""
    values = {
        "command": lambda port: [sys.executable, str(FAKE), str(port), *habits],
        "executable": sys.executable,
        "env": {"FAKE": "a b"},
        "model": "fake",
        "port": None,
        "gpu_uuids": (),
        "start_timeout_s": 30.0,
        "first_token_timeout_s": 30.0,
        "stop_timeout_s": 2.0,
    }
    return Setup(**(values | changes))


def failure_of(*habits, folder, **changes):
    """The failure of a start that must fail; nothing of it may be left running."""
    with pytest.raises(EngineFailed) as caught:
        launch(setup(*habits, "--", str(folder), **changes), folder)
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(folder) in str(p.info)]
    return caught.value.failure


@pytest.fixture
def serving(tmp_path):
    """A fake server that is up."""
    server = launch(setup("--", str(tmp_path)), tmp_path)
    yield server
    server.stop()


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as owner:
        yield owner.getsockname()[1]


def test_a_server_is_up_when_it_has_generated_a_token(serving):
    assert serving.failure(token_within_s=30.0) is None
    assert list(serving.startup_s) == ["imports", "serving", "first_token"]
    assert serving.facts.kv_cache_tokens == 1600
    assert serving.facts.max_model_len == 2048
    assert serving.facts.max_num_seqs == 8
    assert serving.pid in serving.pids()


def test_phases_are_told_as_they_begin(tmp_path):
    told = []
    launch(setup(), tmp_path, told.append).stop()
    assert told[0] == "imports"
    assert told[-1] == "first_token"
    assert len(told) == len(set(told))


def test_command_txt_is_what_a_shell_would_run(serving, tmp_path):
    text = (tmp_path / "command.txt").read_text()
    assert text.startswith("FAKE='a b' \\\n")
    assert text.endswith(f"{serving.url.rpartition(':')[2]} -- {tmp_path}\n")


def test_stop_ends_the_server_and_says_how(serving):
    ended = serving.stop()
    assert (ended.code, ended.needed, ended.gpu_memory_released) == (0, "sigint", None)
    assert serving.stop() is ended


@pytest.mark.parametrize(("after_bytes", "released"), [(2 * GB, True), (60 * GB, False)])
def test_stop_says_whether_the_memory_came_back(tmp_path, monkeypatch, after_bytes, released):
    monkeypatch.setattr(
        "harness.engines.start.memory_used_bytes", lambda uuids: dict.fromkeys(uuids, GB)
    )
    monkeypatch.setattr(
        "harness.engines.server.memory_used_bytes", lambda uuids: dict.fromkeys(uuids, after_bytes)
    )
    monkeypatch.setattr("harness.engines.server.MEMORY_BACK_S", 0.3)
    monkeypatch.setattr("harness.engines.server.MEMORY_SLACK_BYTES", GB)
    server = launch(setup(gpu_uuids=("GPU-0", "GPU-1")), tmp_path)
    assert server.stop().gpu_memory_released is released


def test_settle_resets_the_prefix_cache(serving):
    serving.settle()
    assert "fake:settled 1" in http.page(f"{serving.url}/metrics")


def test_a_server_that_dies_under_load_is_told_apart_from_one_that_never_started(serving):
    os.kill(serving.pid, signal.SIGKILL)
    failure = serving.failure(token_within_s=30.0)
    assert failure.kind is FailureKind.DIED_UNDER_LOAD
    assert "signal 9" in failure.message or "killed" in failure.message


def test_a_stopped_process_hangs(serving):
    os.kill(serving.pid, signal.SIGSTOP)
    assert serving.failure() is None, "it runs"
    assert serving.failure(token_within_s=0.2).kind is FailureKind.HANGS
    os.kill(serving.pid, signal.SIGCONT)


def test_a_server_that_dies_at_its_start_is_classified_by_its_log(tmp_path):
    failure = failure_of("die", folder=tmp_path)
    assert failure.kind is FailureKind.MISSING_PACKAGE
    assert "flashinfer" in failure.evidence[0]


def test_a_server_that_dies_of_its_first_request_has_not_started(tmp_path):
    failure = failure_of("die_at_token", folder=tmp_path)
    assert failure.kind is FailureKind.DIED_AT_START
    assert "no such kernel" in failure.message


def test_http_200_with_an_error_in_it_is_no_token(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.engines.start.DEATH_S", 0.1)
    failure = failure_of("refuse", folder=tmp_path)
    assert failure.kind is FailureKind.DIED_AT_START
    assert "EngineCore encountered an issue" in failure.message


def test_a_reply_without_a_token_is_no_token(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.engines.start.DEATH_S", 0.1)
    assert failure_of("empty", folder=tmp_path).kind is FailureKind.DIED_AT_START


def test_health_without_a_token_is_a_hang(tmp_path):
    failure = failure_of("hang", folder=tmp_path, first_token_timeout_s=0.5)
    assert failure.kind is FailureKind.HANGS


def test_a_server_that_is_not_up_in_time_is_a_timeout(tmp_path):
    failure = failure_of("slow", folder=tmp_path, start_timeout_s=1.0)
    assert failure.kind is FailureKind.START_TIMEOUT


def test_a_taken_port_is_refused_before_anything_starts(tmp_path, taken_port):
    failure = failure_of(folder=tmp_path, port=taken_port)
    assert failure.kind is FailureKind.PORT_TAKEN
    assert str(os.getpid()) in failure.message
    assert not (tmp_path / "server.log").exists()


def test_a_free_port_that_was_lost_is_tried_again_on_another(tmp_path):
    server = launch(setup(f"once={tmp_path / 'once'}"), tmp_path)
    server.stop()
    assert "Address already in use" in (tmp_path / "server.log").read_text()


def test_a_port_that_is_always_lost_is_given_up(tmp_path, monkeypatch, taken_port):
    monkeypatch.setattr("harness.engines.start._free_port", lambda: taken_port)
    failure = failure_of(folder=tmp_path)
    assert failure.kind is FailureKind.PORT_TAKEN


def test_an_answer_from_a_stranger_does_not_count(tmp_path, serving, monkeypatch):
    strangers = int(serving.url.rpartition(":")[2])
    monkeypatch.setattr("harness.engines.start._free_port", lambda: strangers)
    waits = setup(command=lambda _: [sys.executable, "-c", "import signal; signal.pause()"])
    with pytest.raises(EngineFailed, match="another process answers"):
        launch(waits, tmp_path / "second")


def test_an_interrupted_start_leaves_nothing_running(tmp_path):
    def interrupt(phase):
        if phase == "first_token":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(setup("--", str(tmp_path)), tmp_path, interrupt)
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(p.info)]


def test_requests_ignore_the_proxy_of_the_environment(serving, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert serving.failure(token_within_s=30.0) is None


def test_an_external_server_is_used_and_left_alone(serving, tmp_path):
    theirs = external.start(ExternalEngine(url=f"{serving.url}/v1/"), tmp_path / "launch")
    assert (theirs.url, theirs.model, theirs.pid) == (serving.url, "fake", None)
    assert theirs.facts.max_model_len == 2048
    theirs.settle()
    assert theirs.stop().needed == "not ours"
    assert "fake:settled 0" in http.page(f"{serving.url}/metrics")
    assert serving.failure() is None


def test_every_page_of_an_external_server_is_asked_for_with_its_key(monkeypatch, tmp_path):
    keys = {}

    def request(url, *, headers=None, **_):
        keys[url.removeprefix("http://theirs")] = (headers or {}).get("Authorization")
        told = {"data": [{"id": "m"}], "choices": [{}], "usage": {"completion_tokens": 1}}
        return http.Answer(status=200, body=json.dumps(told))

    monkeypatch.setattr(http, "request", request)
    monkeypatch.setenv("MY_KEY", "sk-secret")
    external.start(ExternalEngine(url="http://theirs", api_key_env="MY_KEY"), tmp_path)
    assert set(keys) == {*PAGES, "/v1/completions"}
    assert set(keys.values()) == {"Bearer sk-secret"}


def test_an_external_server_that_does_not_answer_is_named(tmp_path, taken_port):
    engine = ExternalEngine(url=f"http://127.0.0.1:{taken_port}", first_token_timeout_s=0.2)
    with pytest.raises(EngineFailed, match=f"127.0.0.1:{taken_port}") as caught:
        external.start(engine, tmp_path)
    assert caught.value.failure.kind is FailureKind.HANGS


def test_an_external_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EngineFailed, match=r"check engine\.url"):
        external.start(ExternalEngine(url="http://127.0.0.1:1"), tmp_path)
