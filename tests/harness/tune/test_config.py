from dataclasses import replace
from pathlib import Path

import pytest

from harness import config as config_module
from harness.conf_files import conf_dir, describe, options
from harness.config import compose
from harness.engines.config import SimEngine, VllmEngine
from harness.engines.feasible import obstacle
from harness.engines.parallel import decided
from harness.errors import UserError
from harness.overrides import parse
from harness.settings import documented_settings
from harness.sim.options import flags_with_effect
from harness.tune.objective import Objective
from harness.tune.prior import Prior
from harness.tune.space import Space
from harness.tune.strategy import Strategy
from tests.harness.test_config import CHOICES, composed, refused

TUNES = sorted(options("tune", [conf_dir()]))


def tune_file(folder: Path, text: str) -> Path:
    """A folder of one's own with a tuning `mine`."""
    (folder / "tune").mkdir(exist_ok=True)
    (folder / "tune" / "mine.yaml").write_text(f"# @package _global_\n# Mine.\n{text}\n")
    return folder


MINE = "tune: {maximise: output_tok_per_s, space: {max_num_seqs: [8, 16]}}"


@pytest.mark.parametrize("name", TUNES)
@pytest.mark.parametrize("kind", CHOICES)
def test_every_tuning_has_a_space_and_an_objective_on_every_kind_of_machine(
    kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_module, "choose", lambda *_args, **_named: CHOICES[kind])
    config = compose(parse([f"tune={name}"]))
    assert config.tune is not None
    assert config.sweep == f"tune-{name}"
    engine = config.engines[0]
    assert isinstance(engine, VllmEngine | SimEngine)
    num_gpus = 2 if kind != "cpu" else 1

    def decide(asked: VllmEngine | SimEngine) -> VllmEngine | SimEngine:
        return decided(asked, config.model, num_gpus)

    space = Space.of(
        config.tune,
        engine,
        fits=lambda asked: obstacle(asked, config.model, (), None),
        flags=flags_with_effect() if kind == "sim" else None,
        decide=decide,
    )
    assert len(space) >= 4
    assert kind != "gpu" or len(space) >= 100, "a space that singles the answer out"
    prior = Prior.of(config, config.loads, ())
    expected = (prior if kind == "sim" else replace(prior, gpu="h200", num_gpus=num_gpus)).forecast(
        space
    )
    assert kind == "cpu" or expected is not None
    Strategy(space, Objective.of(config.tune), expected, 0)


@pytest.mark.parametrize("name", TUNES)
def test_a_tuning_is_one_that_can_be_composed_and_says_what_it_is_for(name: str) -> None:
    path = options("tune", [conf_dir()])[name]
    assert path.read_text().startswith(config_module.GLOBAL)
    assert describe(path).endswith(".")


def test_a_sweep_has_no_tune() -> None:
    assert composed("sweep=batching").tune is None


def test_the_command_line_has_the_last_word() -> None:
    config = composed(
        "tune=throughput",
        "tune.budget.launches=12",
        "tune.constraints=ttft_p99_s < 0.5",
        "tune.space.max_num_seqs=[64,128]",
        "tune.space.extra.some_flag=[1,2]",
        "tune.space.stream_interval=null",
        "engine.api_server_count=2",
    )
    assert config.tune is not None
    assert config.tune.budget.launches == 12
    assert config.tune.constraints == ["ttft_p99_s < 0.5"]
    assert config.tune.space["stream_interval"] is None
    assert config.tune.space["extra.some_flag"] is not None
    assert config.engines[0].api_server_count == 2  # type: ignore[union-attr]


def test_a_tuning_of_ones_own_is_found_and_several_loads_are_one_configuration(
    tmp_path: Path,
) -> None:
    conf = tune_file(tmp_path, f"load: {{concurrency: [8, 32]}}\n{MINE}")
    assert len(composed("tune=mine", conf=conf).loads) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tune=throughputs"], "there is no tuning 'throughputs'. Did you mean 'throughput'?"),
        (["tune=throughput", "sweep=single"], "are two commands: take one"),
        (["sweep=single", "engine=tuned"], "found with --config-dir STUDY/conf before all else"),
        (["tune=throughput", "against=defaults"], "compares with the defaults by itself"),
        (["tune=throughput", "case=saturated"], "a tuning has no cases"),
        (["sweep=single", "tune.budget.launches=9"], "name one, tune=NAME"),
        (["tune=throughput", "tune.budget.launches=2"], "budget.launches=2 is too small"),
        (["tune=throughput", "tune.budget.launches=x"], "tune.budget.launches=x"),
        (["tune=throughput", "tune.bugdet.launches=9"], "Did you mean 'tune.budget.launches'"),
        (
            ["tune=throughput", "engine.max_num_seqs=64,128"],
            "tune.space.max_num_seqs=[64,128]",
        ),
        (
            ["tune=throughput", "tune.constraints=['tpot_p99_s < 1','tpot_p99_s > 2']"],
            "contradict each other",
        ),
        (
            ["tune=throughput", "tune.maximise=tpot_p99_s"],
            "'tpot_p99_s' is better low: name it under tune.minimise",
        ),
        (
            ["tune=throughput", "tune.maximise=[]", "tune.minimise=goodput_rps"],
            "'goodput_rps' is better high: name it under tune.maximise",
        ),
        (
            ["tune=throughput", "tune.minimise=output_tok_per_s"],
            "'output_tok_per_s' is named twice",
        ),
        (
            ["tune=throughput", "tune.space.max_num_seqs={form: 1}"],
            "there is no setting 'tune.space.max_num_seqs.form'",
        ),
        (["tune=throughput", "tune.space.max_num_seqs={from: 1}"], "tune.space.max_num_seqs="),
    ],
)
def test_bad_words_are_one_sentence(words: list[str], told: str) -> None:
    text = refused(*words)
    assert told in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("load: {concurrency: 8}", "tune.space is needed"),
        (f"cases: {{a: {{}}}}\n{MINE}", "a tuning has no cases"),
        (f"on_sims: {{model: tiny}}\n{MINE}", "there is no 'on_sims' in a tuning"),
        (f"engine: {{max_num_seqs: [1, 2]}}\n{MINE}", "a tuning pins one engine"),
        ("tune: {maximise: output_tok_per_s, space: {}}", "the space is empty"),
        ("tune: {maximise: speed, space: {max_num_seqs: [1]}}", "no column 'speed'"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    said = refused("tune=mine", conf=tune_file(tmp_path, text))
    assert told in said
    assert "\n" not in said


def test_a_file_without_hydras_line_is_called_a_tuning(tmp_path: Path) -> None:
    tune_file(tmp_path, MINE)
    (tmp_path / "tune" / "mine.yaml").write_text(MINE)
    assert "a tuning's first line must be" in refused("tune=mine", conf=tmp_path)


def test_external_servers_are_not_tuned() -> None:
    with pytest.raises(UserError, match="starts servers of its own"):
        compose(parse(["tune=throughput", "engine=external", "engine.url=http://localhost:1"]))


def test_what_can_be_said_of_a_tuning_is_in_the_help() -> None:
    told = dict(documented_settings())
    assert "maximum server starts" in told["tune.budget.launches"]
    assert "tune.space" in told
