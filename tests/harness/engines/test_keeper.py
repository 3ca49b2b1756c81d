import os
import signal
import subprocess
import sys
from pathlib import Path
from time import perf_counter, sleep

import psutil
import pytest

from harness.engines.process import Process

STUBBORN = Path(__file__).parent / "stubborn.py"
HARNESS = """
import signal, sys
from pathlib import Path
from harness.engines.process import Process
process = Process([sys.executable, *sys.argv[2:]], {}, Path(sys.argv[1]))
signal.pause()
"""


def until(condition, limit_s=30.0):
    """Poll for what another process does; False if it takes too long."""
    deadline_s = perf_counter() + limit_s
    while not condition():
        if perf_counter() > deadline_s:
            return False
        sleep(0.02)
    return True


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def start(tmp_path):
    """Starts a command below a keeper; what the test leaves running is killed."""
    started = []

    def start(*command, env=()):
        process = Process([sys.executable, *command], dict(env), tmp_path / "server.log")
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop(0.0)


@pytest.fixture
def stubborn(start, tmp_path):
    """A stubborn server that is up: its process, its own pid and its worker's."""

    def stubborn(*ignored):
        process = start(str(STUBBORN), str(tmp_path / "pids"), *ignored)
        assert until((tmp_path / "pids").exists)
        return process, *map(int, (tmp_path / "pids").read_text().split())

    return stubborn


def test_a_server_that_heeds_sigint_needs_no_more(start, tmp_path):
    process = start("-c", "import signal; print('up', flush=True); signal.pause()")
    assert until(lambda: "up" in (tmp_path / "server.log").read_text())
    ended = process.stop(30.0)
    assert (ended.code, ended.needed, ended.survivors) == (-signal.SIGINT, "sigint", ())


def test_stop_ends_a_worker_in_its_own_session_that_ignores_sigterm(stubborn):
    process, server, worker = stubborn()
    ended = process.stop(2.0)
    assert ended.needed == "sigkill"
    assert ended.code == 0, "the server itself heeded SIGINT"
    assert not alive(server)
    assert not alive(worker)


def test_stop_escalates_when_the_server_ignores_sigint(stubborn):
    process, server, _ = stubborn("SIGINT")
    ended = process.stop(0.2)
    assert ended.code == -signal.SIGTERM
    assert not alive(server)


def test_stop_escalates_to_sigkill_when_the_server_ignores_all_else(stubborn):
    process, server, _ = stubborn("SIGINT", "SIGTERM")
    assert process.stop(0.2).code == -signal.SIGKILL
    assert not alive(server)


def test_stop_is_idempotent(start):
    process = start("-c", "import signal; signal.pause()")
    assert process.stop(0.2) == process.stop(0.2)


def test_the_log_holds_all_output_of_the_server(stubborn, tmp_path):
    process, *_ = stubborn()
    process.stop(1.0)
    lines = (tmp_path / "server.log").read_text().splitlines()
    assert lines == ["line one", "line two", "interrupted"]


def test_an_exit_is_noticed_and_its_code_kept(start):
    process = start("-c", "raise SystemExit(7)")
    assert process.has_exited(within_s=30.0)
    assert process.exit_code == 7
    assert process.stop(30.0).needed == "already dead"


def test_what_a_dead_server_leaves_behind_is_ended(stubborn):
    process, server, worker = stubborn()
    os.kill(server, signal.SIGKILL)
    assert until(lambda: not alive(worker))
    assert process.exit_code is None, "nobody has asked yet"
    assert process.has_exited(within_s=30.0)
    assert process.exit_code == -signal.SIGKILL


def test_nothing_lives_5_s_after_the_harness_was_killed(tmp_path):
    pids = tmp_path / "pids"
    harness = subprocess.Popen(
        [sys.executable, "-c", HARNESS, tmp_path / "server.log", STUBBORN, pids, "SIGTERM"]
    )
    assert until(pids.exists)
    server, worker = map(int, pids.read_text().split())
    keeper = psutil.Process(server).ppid()
    harness.kill()
    harness.wait()
    assert until(lambda: not any(map(alive, (server, worker, keeper))), limit_s=5.0)


def test_nothing_lives_5_s_after_the_harness_was_killed_while_it_stopped_the_server(tmp_path):
    pids = tmp_path / "pids"
    stopping = HARNESS.replace("signal.pause()", "sys.stdin.readline(); process.stop(60.0)")
    harness = subprocess.Popen(
        [sys.executable, "-c", stopping, tmp_path / "server.log", STUBBORN, pids, "SIGINT"],
        stdin=subprocess.PIPE,
    )
    assert until(pids.exists)
    server, worker = map(int, pids.read_text().split())
    harness.stdin.close()
    assert not until(lambda: not alive(server), limit_s=0.5), "it is to be in its grace"
    harness.kill()
    harness.wait()
    assert until(lambda: not alive(server) and not alive(worker), limit_s=5.0)


def test_the_server_dies_with_its_keeper(stubborn):
    _, server, worker = stubborn("SIGTERM")
    psutil.Process(server).parent().kill()
    try:
        assert until(lambda: not alive(server), limit_s=5.0)
    finally:
        os.kill(worker, signal.SIGKILL)  # nobody is left to do it


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(stubborn):
    _, server, _ = stubborn()
    assert os.getsid(server) != os.getsid(0)


def test_a_command_that_does_not_exist_is_an_exit_with_its_reason_in_the_log(tmp_path):
    process = Process(["/no/such/python"], {}, tmp_path / "server.log")
    assert process.has_exited(within_s=30.0)
    assert "/no/such/python" in (tmp_path / "server.log").read_text()
    process.stop(0.0)


def test_the_wrapped_process_is_found_below_its_wrapper(start, tmp_path):
    inner = f"import signal; print('up', flush=True); signal.pause()  # {tmp_path}"
    wrapper = ["/bin/sh", "-c", '"$0" -c "$1"; exit 3', sys.executable, inner]
    process = start("-c", f"import os; os.execv('/bin/sh', {wrapper})")
    assert until(lambda: "up" in (tmp_path / "server.log").read_text())
    serving = process.topmost(sys.executable)
    assert serving != process.pid
    ended = process.stop(30.0, interrupt=serving)
    assert (ended.code, ended.needed) == (3, "sigint"), "the wrapper ended by itself"
