import subprocess
import sys
from math import isnan

import psutil
import pytest

from monitors.host import ROLES, ProcessTree, role, tree_pids

# has a child, says its pid, ends the child at a line of input, and itself with its input
PARENT = """
import subprocess, sys
idle = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
child = subprocess.Popen(idle, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.readline()
child.communicate()
print("childless", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def parent():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()


def read(tree):
    return [dict(zip(tree.columns, row, strict=True)) for row in tree.sample(edge=False)]


@pytest.mark.parametrize(
    ("cmdline", "expected"),
    [
        ("VLLM::EngineCore", "engine_core"),
        ("VLLM::EngineCore_DP0", "engine_core"),
        ("VLLM::Worker_TP1", "worker"),
        ("VLLM::APIServer_3", "api_server"),
        ("python -m vllm.entrypoints.openai.api_server --model m", "api_server"),
        ("/opt/venv/bin/python /opt/venv/bin/vllm serve m --port 1", "api_server"),
        ("python -m vllm.entrypoints.cli.main serve m", "api_server"),
        ("/opt/nsys profile python -m vllm.entrypoints.openai.api_server", "other"),
        ("python -c from multiprocessing.resource_tracker import main;main(9)", "other"),
        ("python -c from multiprocessing.spawn import spawn_main; spawn_main(3)", "other"),
        ("VLLM::DPCoordinator", "other"),
        ("bash", "other"),
        ("", "other"),
    ],
)
def test_roles_by_command_line(cmdline, expected):
    assert role(cmdline.split()) == expected
    assert expected in ROLES


def test_children_appear_and_disappear(parent):
    child_pid = int(parent.stdout.readline())
    tree = ProcessTree([parent.pid], 0.5)
    rows = read(tree)
    assert {row["pid"] for row in rows} == {parent.pid, child_pid} == tree_pids(parent.pid)
    assert all(row["rss_bytes"] > 2**20 for row in rows)
    assert len({row["at_s"] for row in rows}) == 1
    parent.stdin.write("\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "childless\n"
    assert {row["pid"] for row in read(tree)} == {parent.pid}


def test_cpu_is_unknown_at_first_and_known_from_then_on(parent):
    parent.stdout.readline()
    tree = ProcessTree([parent.pid], 0.5)
    assert all(isnan(row["cpu_frac"]) for row in read(tree))
    assert all(row["cpu_frac"] >= 0 for row in read(tree))


def test_a_busy_process_has_more_cpu_than_an_idle_one():
    busy = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    with subprocess.Popen(busy, stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            tree = ProcessTree([process.pid], 0.5)
            read(tree)
            # CPU time counts in ticks of 10 ms: read until one has passed
            assert any(read(tree)[0]["cpu_frac"] > 0.05 for _ in range(100_000))
        finally:
            process.kill()


def test_the_trees_of_replicas_are_read_together_or_not_at_all(parent):
    child_pid = int(parent.stdout.readline())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        tree = ProcessTree([parent.pid, other.pid], 0.5)
        rows = read(tree)
        other.communicate()
    assert {row["pid"] for row in rows} == {parent.pid, child_pid, other.pid}
    assert len({row["at_s"] for row in rows}) == 1
    rows = []
    with pytest.raises(psutil.NoSuchProcess):
        rows.extend(tree.sample(edge=False))
    assert not rows


def test_a_tree_whose_root_is_gone_is_empty():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert tree_pids(process.pid) == frozenset()
