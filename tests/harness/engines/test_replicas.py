import os
import signal
from urllib.parse import urlsplit

import psutil
import pytest

from harness.engines import http
from harness.engines.failure import EngineFailed, FailureKind
from harness.engines.process import Exit
from harness.engines.replicas import Replicas, launch_all
from tests.harness.engines.test_server import setup


def left_running(folder):
    return [p for p in psutil.process_iter(["cmdline"]) if str(folder) in str(p.info)]


@pytest.fixture
def serving(tmp_path):
    """Two fake servers that are up."""
    replicas = launch_all([setup("--", str(tmp_path))] * 2, tmp_path)
    yield replicas
    replicas.stop()


def test_each_replica_is_a_server_of_its_own(serving, tmp_path):
    assert len({urlsplit(url).port for url in serving.urls}) == 2
    assert len(set(serving.root_pids)) == 2
    assert serving.failure(token_within_s=30.0) is None
    for number in (0, 1):
        assert (tmp_path / f"replica-{number}" / "server.log").is_file()
        assert (tmp_path / f"replica-{number}" / "command.txt").is_file()


def test_kv_caches_add_up_and_limits_do_not(serving):
    assert serving.facts.kv_cache_tokens == 3200
    assert serving.facts.max_num_seqs == 8
    assert serving.model == "fake"


def test_the_start_took_as_long_as_the_slowest(serving):
    spans = [sum(server.startup_s.values()) for server in serving.servers]
    assert sum(serving.startup_s.values()) == max(spans)


def test_when_one_dies_all_have_failed(serving):
    os.kill(serving.root_pids[1], signal.SIGKILL)
    failure = serving.failure(token_within_s=30.0)
    assert failure.kind is FailureKind.DIED_UNDER_LOAD
    assert failure.message.startswith("replica 1: ")


def test_stop_ends_them_all(serving, tmp_path):
    ended = serving.stop()
    assert (ended.code, ended.needed) == (0, "sigint")
    assert serving.stop() == ended
    assert not left_running(tmp_path)


def test_settle_resets_every_prefix_cache(serving):
    serving.settle()
    for url in serving.urls:
        assert "fake:settled 1" in http.page(f"{url}/metrics")


def test_when_one_does_not_start_none_is_left_running(tmp_path):
    setups = [setup("--", str(tmp_path)), setup("die", "--", str(tmp_path))]
    with pytest.raises(EngineFailed, match="replica 1: ") as caught:
        launch_all(setups, tmp_path)
    assert caught.value.failure.kind is FailureKind.MISSING_PACKAGE
    assert not left_running(tmp_path)


def test_they_start_side_by_side(tmp_path):
    """One that never is up does not keep the others from being found dead."""
    setups = [setup("slow", "--", str(tmp_path)), setup("die", "--", str(tmp_path))]
    with pytest.raises(EngineFailed, match="replica 1: "):
        launch_all(setups, tmp_path)


def test_an_interrupted_start_leaves_nothing_running(tmp_path):
    def interrupt(phase):
        if phase == "first_token":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch_all([setup("--", str(tmp_path))] * 2, tmp_path, interrupt)
    assert not left_running(tmp_path)


class Ended:
    """A server of which only the end is known."""

    def __init__(self, **end):
        self._end = Exit(**({"code": 0, "needed": "sigint", "took_s": 1.0} | end))

    def stop(self):
        return self._end


@pytest.mark.parametrize(
    ("first", "second", "whole"),
    [
        ({"took_s": 2.0}, {"took_s": 3.0}, {"took_s": 3.0, "needed": "sigint", "code": 0}),
        ({"needed": "sigkill", "code": -9}, {}, {"needed": "sigkill", "code": -9}),
        ({"survivors": (1,)}, {"survivors": (2,)}, {"survivors": (1, 2)}),
        (
            {"gpu_memory_released": True},
            {"gpu_memory_released": False},
            {"gpu_memory_released": False},
        ),
        ({"gpu_memory_released": True}, {}, {"gpu_memory_released": None}),
    ],
)
def test_the_worst_end_is_told(first, second, whole):
    ended = Replicas(servers=(Ended(**first), Ended(**second))).stop()
    assert {name: getattr(ended, name) for name in whole} == whole
