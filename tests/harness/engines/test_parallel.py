import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engines.config import VllmEngine
from harness.engines.parallel import decided, ranks, tensor_parallel_size
from harness.model import Model, Shape


def model(heads, kv_heads):
    shape = Shape(
        hidden_size=8 * heads,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=8,
        vocab_size=8,
        max_position_embeddings=8,
    )
    return Model(name="m", shape=shape)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "gpus", "expected"),
    [
        (12, 2, 2, 2),  # qwen2.5-1.5b
        (28, 4, 8, 4),  # qwen2.5-7b: 7 and 14 divide its heads, 8 does not
        (32, 8, 16, 16),  # key-value heads are copied
        (28, 4, 7, 4),  # 7 GPUs cannot share 4 key-value heads
        (32, 8, 3, 2),
        (32, 8, 0, 1),  # a CPU
    ],
)
def test_size_is_the_most_that_the_heads_allow(heads, kv_heads, gpus, expected):
    assert tensor_parallel_size(model(heads, kv_heads), gpus) == expected


@given(st.integers(1, 16), st.integers(1, 8), st.integers(0, 16))
def test_heads_are_always_spread_evenly(kv_heads, group, gpus):
    size = tensor_parallel_size(model(kv_heads * group, kv_heads), gpus)
    assert 1 <= size <= max(1, gpus)
    assert kv_heads * group % size == 0
    assert kv_heads % size == 0 or size % kv_heads == 0


def test_heads_of_a_folder_with_weights_are_read(tmp_path):
    config = {"text_config": {"num_attention_heads": 6, "num_key_value_heads": 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert tensor_parallel_size(Model(name="m", path=str(tmp_path)), 4) == 3


@pytest.mark.parametrize("heads", [None, 0, "8", [8], 0.5])
def test_a_config_without_a_number_of_heads_gets_all_gpus(tmp_path, heads):
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": heads}))
    assert tensor_parallel_size(Model(name="m", path=str(tmp_path)), 4) == 4


def test_a_model_that_is_not_on_this_machine_gets_all_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert tensor_parallel_size(Model(name="m", path="somebody/something"), 4) == 4


@pytest.mark.parametrize(
    ("settings", "size", "gpus"),
    [
        ({}, 4, 4),
        ({"data_parallel_size": 2}, 2, 4),
        ({"replicas": 2}, 2, 4),
        ({"replicas": 2, "data_parallel_size": 2}, 1, 4),
        ({"replicas": 3}, 1, 3),
        ({"replicas": 8}, 1, 8),  # more than there are: not for this function to say
        ({"tensor_parallel_size": 1}, 1, 1),
        ({"tensor_parallel_size": 2, "replicas": 2}, 2, 4),
    ],
)
def test_all_gpus_are_divided_by_the_copies_of_the_model(settings, size, gpus):
    engine = decided(VllmEngine(**settings), model(heads=8, kv_heads=4), 4)
    assert engine.tensor_parallel_size == size
    assert ranks(engine) == gpus
