import shlex
from pathlib import Path

import pytest
import yaml

from harness.config import compose
from harness.engines.config import SimEngine, VllmEngine
from harness.model import Model
from harness.overrides import parse
from harness.tune.deployment import Deployment

WEIGHTS = Model(name="Qwen3-8B", path="Qwen/Qwen3-8B", revision="main")


def engine() -> VllmEngine:
    return VllmEngine(
        tensor_parallel_size=2,
        max_num_seqs=512,
        enable_prefix_caching=False,
        extra={"max_cudagraph_capture_size": 1024, "compilation_config": {"mode": 3}},
        env={"VLLM_USE_X": "1", "HF_TOKEN": "abc"},
        python="/opt/vllm/bin/python",
        start_timeout_s=100.0,
    )


def test_the_command_line_is_vllm_serve_with_what_was_set() -> None:
    told = Deployment.of(engine(), WEIGHTS, "0.25.1")
    words = shlex.split(told.command)
    assert words[:4] == ["VLLM_USE_X=1", words[1], "vllm", "serve"]
    assert words[4:] == list(told.arguments)
    assert told.arguments[:3] == ("Qwen/Qwen3-8B", "--revision", "main")
    assert {"--max-num-seqs", "--no-enable-prefix-caching"} <= set(words)
    assert words[words.index("--max-cudagraph-capture-size") + 1] == "1024"
    assert words[words.index("--compilation-config") + 1] == '{"mode": 3}'
    assert told.image == "vllm/vllm-openai:v0.25.1"


def test_secrets_are_in_neither() -> None:
    told = Deployment.of(engine(), WEIGHTS, None)
    assert "abc" not in told.command
    assert "HF_TOKEN" not in told.engine_yaml


def test_a_shapes_weights_are_left_to_their_owner() -> None:
    (shape,) = {compose(parse(["engine=sim", "model=tiny"])).model.name}
    model = compose(parse(["engine=sim", "model=tiny"])).model
    assert Deployment.of(SimEngine(), model, None).arguments[0] == f"/path/to/{shape}"


def test_what_only_the_simulator_has_is_not_offered_to_vllm() -> None:
    simulated = SimEngine(max_num_seqs=64, extra={"cpu_slowdown": 2.5, "seed": 3})
    told = Deployment.of(simulated, WEIGHTS, None)
    assert {"--max-num-seqs", "--seed"} <= set(told.arguments)
    assert "slowdown" not in told.command
    assert "cpu_slowdown: 2.5" in told.engine_yaml


@pytest.mark.parametrize("gpu", ["h200", "l4"])
def test_the_engines_yaml_gives_the_same_engine_back(tmp_path: Path, gpu: str) -> None:
    chosen = SimEngine(gpu=gpu, max_num_seqs=64, api_server_count=4, extra={"seed": 3})  # type: ignore[arg-type]
    (tmp_path / "engine").mkdir()
    text = Deployment.of(chosen, WEIGHTS, None).engine_yaml
    (tmp_path / "engine" / "tuned.yaml").write_text(text)
    words = parse(["sweep=single", "engine=tuned", "model=tiny"])
    assert compose(words, tmp_path).engines == [chosen]


def test_how_a_server_is_run_on_this_machine_is_not_in_the_yaml() -> None:
    tree = yaml.safe_load(Deployment.of(engine(), WEIGHTS, None).engine_yaml)
    assert not {"python", "start_timeout_s", "port"} & set(tree)
    assert tree["kind"] == "vllm"
    assert tree["extra"]["compilation_config"] == {"mode": 3}
