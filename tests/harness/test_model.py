import json
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.model import SAFE_VOCAB_SIZE, TOKENIZER, Model, config_of, materialise
from tests.harness import models
from tests.harness.models import CONF, shipped

TINY = models.TINY.shape


def read(folder, name):
    return json.loads((Path(folder) / name).read_text())


@pytest.mark.parametrize("choice", [{}, {"path": "p", "shape": TINY}])
def test_a_model_has_exactly_one_of_path_and_shape(choice):
    with pytest.raises(ValidationError, match="exactly one of path and shape"):
        Model(name="m", **choice)


def test_a_shape_has_no_revision():
    with pytest.raises(ValidationError, match="no revision"):
        Model(name="m", shape=TINY, revision="main")


@pytest.mark.parametrize("name", ["", "a/b", "a b", "../x"])
def test_a_name_is_fit_for_a_folder(name):
    with pytest.raises(ValidationError):
        Model(name=name, shape=TINY)


def test_query_heads_share_key_value_heads_evenly():
    with pytest.raises(ValidationError, match="multiple of"):
        replace(TINY, num_attention_heads=3, num_key_value_heads=2)


@pytest.mark.parametrize("name", sorted(file.stem for file in CONF.glob("*.yaml")))
def test_the_shapes_of_conf_can_be_served(name, tmp_path):
    model = shipped(name)
    if model.shape is not None:
        config = read(materialise(model, tmp_path), "config.json")
        assert config["vocab_size"] == model.vocab_size() == model.shape.vocab_size


def test_weights_are_served_from_where_they_are(tmp_path):
    assert materialise(Model(name="m", path="somebody/something"), tmp_path) == "somebody/something"
    assert not list(tmp_path.iterdir())


def test_a_shape_becomes_one_folder_however_often_it_is_asked_for(tmp_path):
    model = Model(name="m", shape=TINY)
    assert materialise(model, tmp_path / "models") == materialise(model, tmp_path / "models")
    assert len(list((tmp_path / "models").iterdir())) == 1


def test_another_shape_becomes_another_folder(tmp_path):
    one = materialise(Model(name="m", shape=TINY), tmp_path)
    other = materialise(Model(name="m", shape=replace(TINY, num_hidden_layers=3)), tmp_path)
    assert one != other


def test_many_at_once_make_one_whole_folder(tmp_path):
    model, folders = Model(name="m", shape=TINY), []
    threads = [
        threading.Thread(target=lambda: folders.append(materialise(model, tmp_path)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 8
    assert len(set(folders)) == 1
    assert [str(path) for path in tmp_path.iterdir()] == folders[:1]


def test_who_comes_second_takes_the_first_one_s_folder(tmp_path, monkeypatch):
    model, make_draft = Model(name="m", shape=TINY), tempfile.mkdtemp

    def outrun(**options):
        monkeypatch.undo()
        materialise(model, tmp_path)
        return make_draft(**options)

    monkeypatch.setattr("tempfile.mkdtemp", outrun)
    folder = materialise(model, tmp_path)
    assert [str(path) for path in tmp_path.iterdir()] == [folder]


def test_the_config_has_the_shape_s_numbers(tmp_path):
    config = read(materialise(Model(name="m", shape=TINY), tmp_path), "config.json")
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert config["num_hidden_layers"] == 2
    assert config["head_dim"] == 64
    assert config["eos_token_id"] is None, "noise must not end by chance"


@given(st.integers(1, 5000))
def test_the_tokenizer_has_one_plain_word_for_each_id(vocab_size):
    from harness.model import _tokenizer

    tokenizer = _tokenizer(vocab_size)
    vocab = tokenizer["model"]["vocab"]
    assert sorted(vocab.values()) == list(range(vocab_size))
    assert tokenizer["model"]["unk_token"] in vocab
    words = " ".join(vocab).split()  # decoded: joined by spaces; encoded: split at them
    assert [vocab[word] for word in words] == list(vocab.values())


def test_the_tokenizer_lies_apart_from_the_model_s_config(tmp_path):
    folder = materialise(Model(name="m", shape=TINY), tmp_path)
    assert not (Path(folder) / "tokenizer.json").exists()
    assert read(folder, f"{TOKENIZER}/tokenizer.json")["added_tokens"] == []
    assert read(folder, f"{TOKENIZER}/config.json")["model_type"] != TINY.model_type


def test_a_hub_id_s_config_is_found_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--somebody--something"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots" / "abc").mkdir(parents=True)
    (repo / "snapshots" / "abc" / "config.json").write_text('{"vocab_size": 9}')
    model = Model(name="m", path="somebody/something")
    assert model.vocab_size() == 9
    assert config_of(replace(model, revision="other")) is None


@pytest.mark.parametrize("told", [None, "{}", '{"vocab_size": null}', "{", "[]"])
def test_of_a_vocabulary_that_is_not_known_few_tokens_are_taken(tmp_path, told):
    if told is not None:
        (tmp_path / "config.json").write_text(told)
    assert Model(name="m", path=str(tmp_path)).vocab_size() == SAFE_VOCAB_SIZE
