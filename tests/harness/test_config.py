from pathlib import Path

import pytest

from harness.conf_files import conf_dir, describe, options
from harness.config import Config, compose, documented_settings
from harness.errors import UserError
from harness.overrides import parse


def composed(*words: str, conf: Path | None = None) -> Config:
    return compose(parse(["engine=sim", *words]), conf)


def refused(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        composed(*words)
    return str(caught.value)


def test_a_list_where_one_value_is_wanted_is_an_axis() -> None:
    config = composed("sweep=single", "engine.max_num_seqs=4,8", "load.concurrency=1,2,3")
    assert config.axes == {"engine.max_num_seqs": [4, 8], "load.concurrency": [1, 2, 3]}
    assert [e.max_num_seqs for e in config.engines] == [4, 8]
    assert [load.concurrency for load in config.loads] == [1, 2, 3]


def test_the_last_axis_varies_fastest() -> None:
    config = composed("sweep=single", "engine.max_num_seqs=4,8", "engine.block_size=16,32")
    pairs = [(e.max_num_seqs, e.block_size) for e in config.engines]
    assert pairs == [(4, 16), (4, 32), (8, 16), (8, 32)]


def test_a_value_on_the_command_line_pins_the_setting_in_every_case() -> None:
    config = composed("sweep=batching", "engine.max_num_seqs=128")
    assert "engine.max_num_seqs" not in config.axes
    assert {e.max_num_seqs for e in config.engines} == {128}


def test_several_values_on_the_command_line_replace_the_axis_of_the_case_that_has_it() -> None:
    config = composed("sweep=batching", "engine.max_num_seqs=128,256")
    assert config.axes["engine.max_num_seqs"] == [128, 256]
    axes = {case.name: [e.max_num_seqs for e in case.engines] for case in config.cases}
    assert axes["max_num_seqs"] == [128, 256]
    assert axes["eager"] == [None]


def test_several_values_that_no_case_has_are_an_axis_of_all() -> None:
    config = composed("sweep=batching", "engine.block_size=16,32")
    assert all({e.block_size for e in case.engines} == {16, 32} for case in config.cases)


def test_what_a_case_does_without_stays_away() -> None:
    config = composed("sweep=baseline", "load.concurrency=3")
    loads = {case.name: {load.concurrency for load in case.loads} for case in config.cases}
    assert loads == {"closed": {3}, "open": {None}}


def test_a_sweep_is_scaled_to_the_simulator() -> None:
    config = composed("sweep=batching")
    assert max(e.max_num_seqs or 0 for e in config.engines) < 2048
    assert config.model.name == "llama-3.1-8b"


def test_the_command_line_beats_the_scaling() -> None:
    config = composed("sweep=batching", "model=tiny", "load.concurrency=7")
    assert config.model.name == "tiny"
    assert config.loads[0].concurrency == 7


def test_batching_on_gpus_goes_to_2048() -> None:
    text = (conf_dir() / "sweep" / "batching.yaml").read_text()
    assert "max_num_seqs: [16, 64, 256, 512, 1024, 2048]" in text


def test_a_length_can_be_a_distribution() -> None:
    config = composed("sweep=single", "load.input_tokens={dist:uniform,min:8,max:32}")
    assert config.loads[0].input_tokens.max == 32
    config = composed("sweep=single", "load.input_tokens=64,128")
    assert [load.input_tokens for load in config.loads] == [64, 128]


def test_any_vllm_flag_goes_through_extra() -> None:
    config = composed("sweep=single", "engine.extra.some_flag=1,2")
    assert [e.extra for e in config.engines] == [{"some_flag": 1}, {"some_flag": 2}]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("engine.max_num_seq=3", "Did you mean 'engine.max_num_seqs'?"),
        ("max_num_seqs=3", "Did you mean 'engine.max_num_seqs'?"),
        ("load.concurency=3", "Did you mean 'load.concurrency'?"),
        ("repeats.launch=3", "Did you mean 'repeats.launches'?"),
        ("sweep=batchin", "Did you mean 'batching'?"),
        ("engine=simm", "Did you mean 'sim'?"),
        ("model=tinny", "Did you mean 'tiny'?"),
        ("engine.url=http://x", "engine=external only"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_right_one(word: str, says: str) -> None:
    assert says in refused(word)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["load.concurrency=-4"], "load.concurrency=-4: must be greater than or equal to 1"),
        (["load.concurrency=abc"], "load.concurrency=abc: must be a valid integer"),
        (["load.concurrency=0,4"], "load.concurrency=0: must be"),
        (["engine.gpu_memory_utilization=1.5"], "must be less than or equal to 1"),
        (["order=random"], "order=random: must be 'listed' or 'shuffled'"),
        (["repeats.launches=0"], "repeats.launches=0: must be greater"),
        (["load.input_tokens={dist:uniform,min:9,max:2}"], "min must be <= max"),
        (["load.rate_rps=3"], "rate_rps is for arrival=constant, poisson"),
        (["load=poisson"], "concurrency is for arrival=closed"),
        (["load.concurrency=[]"], "at least one value"),
        (["engine.max_model_len=128"], "over the 128 tokens of engine.max_model_len"),
        (["seed=1,2"], "seed"),
        (["load.concurrency=100000000"], "open files"),
    ],
)
def test_a_wrong_value_is_answered_with_the_rule_it_breaks(words: list[str], says: str) -> None:
    text = refused("sweep=single", "load.concurrency=4", *words)
    assert says in text
    assert "\n" not in text


def test_all_broken_rules_are_told_at_once() -> None:
    text = refused("sweep=single", "load.concurrency=0", "load.duration_s=-1")
    assert "load.concurrency=0" in text
    assert "load.duration_s=-1" in text


def test_a_message_says_where_the_value_came_from(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    sweep = "# @package _global_\n# Mine.\nload: {concurrency: [4, -1]}\n"
    (tmp_path / "sweep" / "mine.yaml").write_text(sweep)
    with pytest.raises(UserError, match=r"concurrency=-1: must be .*sweep/mine.yaml"):
        composed("sweep=mine", conf=tmp_path)
    assert "command line" in refused("load.concurrency=-1")


def test_a_typo_in_a_sweep_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    sweep = "# @package _global_\n# Mine.\nload: {concurency: [4]}\n"
    (tmp_path / "sweep" / "mine.yaml").write_text(sweep)
    with pytest.raises(UserError, match=r"'load.concurency'.*Did you mean 'load.concurrency'"):
        composed("sweep=mine", conf=tmp_path)


def test_own_configuration_folders_add_sweeps_and_models(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    sweep = "# @package _global_\n# Mine.\nload: {concurrency: [4, 5]}\n"
    (tmp_path / "sweep" / "mine.yaml").write_text(sweep)
    assert len(composed("sweep=mine", conf=tmp_path).loads) == 2


def test_a_model_can_be_a_folder_or_a_hub_id(tmp_path: Path) -> None:
    assert "config.json" in refused("sweep=single", f"model={tmp_path}")
    (tmp_path / "config.json").write_text('{"vocab_size": 512}')
    config = composed("sweep=single", f"model={tmp_path}", "load.concurrency=1")
    assert config.model.path == str(tmp_path)
    config = composed("sweep=single", "model=Qwen/Qwen3-8B", "load.concurrency=1")
    assert (config.model.name, config.model.path) == ("Qwen3-8B", "Qwen/Qwen3-8B")


def test_every_file_of_conf_describes_itself() -> None:
    for group in ("sweep", "model", "load", "engine", "monitor", "profile"):
        for path in options(group, [conf_dir()]).values():
            assert describe(path).endswith("."), path


def test_every_setting_is_documented() -> None:
    told = dict(documented_settings())
    for name in (
        "engine.max_num_seqs",
        "engine.gpu",
        "load.concurrency",
        "repeats.launches",
        "seed",
    ):
        assert told[name]
