import re
from pathlib import Path

import pytest

from harness import config as config_module
from harness.conf_files import conf_dir, describe, options
from harness.config import Config, compose
from harness.engines.choice import Choice
from harness.engines.config import ExternalEngine, SimEngine, VllmEngine
from harness.errors import UserError
from harness.overrides import parse
from harness.plan import make_plan
from harness.settings import documented_settings
from tests.harness.sim.process import write_model


def composed(*words: str, conf: Path | None = None) -> Config:
    return compose(parse(["engine=sim", *words]), conf)


def refused(*words: str, conf: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        composed(*words, conf=conf)
    return str(caught.value)


def sweep_file(folder: Path, text: str) -> Path:
    """A folder of one's own with a sweep `mine`."""
    (folder / "sweep").mkdir(exist_ok=True)
    (folder / "sweep" / "mine.yaml").write_text(f"# @package _global_\n# Mine.\n{text}\n")
    return folder


CHOICES = {
    "gpu": Choice(kind="vllm", place="gpu", num_gpus=2, vllm_version="0.25.1", why=""),
    "cpu": Choice(kind="vllm", place="cpu", num_gpus=0, vllm_version="0.32.0", why=""),
    "sim": Choice(kind="sim", place="sim", num_gpus=0, vllm_version=None, why=""),
}


@pytest.fixture(params=CHOICES)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind of machine in turn, as if this were one."""
    name = str(request.param)
    monkeypatch.setattr(config_module, "choose", lambda *_args, **_named: CHOICES[name])
    return name


SWEEPS = sorted(options("sweep", [conf_dir()]))


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_sweep_has_a_plan_on_every_kind_of_machine(place: str, sweep: str) -> None:
    config = compose(parse([f"sweep={sweep}"]))
    made = make_plan(config, ())
    assert made.launches
    assert config.choice.place == place
    assert made.span_s()[1] < {"gpu": 7200, "cpu": 600, "sim": 600}[place], "somebody waits for it"


@pytest.mark.parametrize("sweep", SWEEPS)
@pytest.mark.usefixtures("place")
def test_every_case_of_a_sweep_can_be_taken_alone(sweep: str) -> None:
    names = compose(parse([f"sweep={sweep}"])).axes.get("case", [])
    for name in names:
        if (sweep, name) == ("baseline", "open"):
            continue  # its rate is a share of what the other finds
        assert make_plan(compose(parse([f"sweep={sweep}", f"case={name}"])), ()).launches


@pytest.mark.usefixtures("place")
def test_a_share_of_a_capacity_alone_is_refused_on_every_kind_of_machine() -> None:
    with pytest.raises(UserError, match="add a case with arrival: closed"):
        make_plan(compose(parse(["sweep=baseline", "case=open"])), ())


def test_checks_that_look_into_vllm_are_not_asked_of_the_simulator() -> None:
    config = composed("sweep=baseline")
    assert config.options.checks.names == []
    assert "checks.offline needs engine=vllm" in refused("sweep=baseline", "checks.offline={}")


@pytest.mark.parametrize("place", ["gpu"], indirect=True)
@pytest.mark.usefixtures("place")
def test_several_engines_have_no_throughput_without_a_server() -> None:
    said = 'checks.offline: engine.data_parallel_size=2: .* "is not supported for single-process'
    with pytest.raises(UserError, match=said):
        compose(parse(["sweep=baseline", "engine.data_parallel_size=2"]))
    with pytest.raises(UserError, match=r"engine\.replicas=2.*set it to null"):
        compose(parse(["sweep=baseline", "engine.replicas=2"]))
    assert compose(parse(["sweep=baseline", "engine.replicas=1,2"])), "one of them has"
    assert compose(parse(["sweep=baseline", "engine.replicas=2", "checks.offline=null"]))


@pytest.mark.parametrize(
    ("word", "cases"),
    [
        ("case=closed", ["closed"]),
        ("case=open,closed", ["closed", "open"]),
        ("case=[closed]", ["closed"]),
        ("case=null", ["closed", "open"]),
    ],
)
def test_cases_are_chosen_on_the_command_line(word: str, cases: list[str]) -> None:
    assert composed("sweep=baseline", word).axes["case"] == cases


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["case=close"], "there is no case 'close'. Did you mean 'closed'? There are: closed, op"),
        (["case=open,x"], "there is no case 'x'. There are: closed, open."),
        (["case=3"], "case=3: must be a name, or a list of names"),
        (["sweep=single", "load.concurrency=1", "case=open"], "There are none."),
        (["case=open", "load.concurrency=3"], "load.concurrency has no effect: the case sets it"),
        (["load.rate_rps=3"], "load.rate_rps and load.rate_frac both say how fast"),
        (
            ["case=open", "load.rate_rps=3"],
            "load.rate_rps and load.rate_frac both say how fast requests come",
        ),
    ],
)
def test_a_case_that_is_not_there_is_one_sentence(words: list[str], says: str) -> None:
    text = refused("sweep=baseline", *words)
    assert says in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["slo.ttft_s=null", "slo.tpot_s=null"],
            "load.search looks for the largest load that keeps the limits of slo, and there is",
        ),
        (["case=rate", "load.rate_rps=3"], "looks for what load.rate_rps=3 says: set one to null"),
        (
            ["case=rate", "load.arrival=ramp", "load.rate_rps=1", "load.rate_end_rps=2"],
            "search is for a rate or a concurrency, not for arrival=ramp",
        ),
        (["load.search.resolution_frac=0"], "load.search.resolution_frac=0: must be more than"),
        (["load.search.probes=3"], "load.search.probes=3: must be 4 or more"),
        (["slo.share_frac=1"], "slo.share_frac=1: must be less than 1"),
        (["case=rate", "load.rate_frac=0.5"], "rate_frac and search both say"),
        (["load.stream=false"], "load.stream=false has no TTFT and no TPOT to keep a limit"),
    ],
)
def test_a_search_that_cannot_be_is_one_sentence(words: list[str], says: str) -> None:
    text = refused("sweep=capacity", *words)
    assert says in text
    assert "\n" not in text


def test_a_closed_loop_of_one_has_nothing_to_search() -> None:
    said = ["sweep=single", "load.concurrency=1", "load.search.probes=8", "slo.ttft_s=1"]
    assert "looks for what load.concurrency=1 says" in refused(*said)


def test_an_open_case_can_be_given_a_rate_instead_of_a_share() -> None:
    words = ["case=open", "load.rate_frac=null", "load.rate_rps=3,5"]
    config = composed("sweep=baseline", *words)
    assert [load.rate_rps for load in config.loads] == [3, 5]
    assert make_plan(config, ()).launches


def test_the_command_line_pins_a_setting_in_every_case() -> None:
    config = composed("sweep=baseline", "load.concurrency=7", "load.input_tokens=99")
    assert [load.concurrency for load in config.cases[0].loads] == [7]
    assert {load.concurrency for load in config.cases[1].loads} == {None}
    assert {load.input_tokens for load in config.loads} == {99}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cases: [a, b]", "mine.yaml: cases=[a, b]: must be names with values"),
        ("cases: {a: 5}", "case 'a' is not of the form"),
        ("load: 5", "mine.yaml: load=5: must be names with values"),
        ("engine: sim", "mine.yaml: engine=sim: must be names with values"),
        ("model: []", "mine.yaml: model=[]: must be names with values"),
        ("on_sim: 3", "mine.yaml: on_sim=3: must be names with values"),
        ("on_sim: {cases: [1]}", "mine.yaml: on_sim: cases=[1]: must be names with values"),
        ("on_sim: {engine: 7}", "mine.yaml: on_sim: engine=7: must be names with values"),
        ("on_sim: {load: poison}", "there is no load 'poison'. Did you mean 'poisson'?"),
        ("1: 5", "mine.yaml: the name 1 is no text: quote it"),
        ("load: {shape: {1: [2]}}", "there is no setting 'load.shape'"),
        ("slo: 3", "slo=3: must be names with values, of: ttft_s"),
        ("columns: 5", "columns=5: must be a name, or a list of names"),
        ("load: {", "mine.yaml cannot be read: while parsing"),
        ("cases: {a: {checks: {}}}", "case 'a' holds 'checks'"),
        ("cases: {on: {}}", "cases: the name True is no text: quote it."),
        ("cases: {a: {load: {concurency: 3}}}", "Did you mean 'load.concurrency'?"),
        (
            "columns: [ttft_p50]",
            "columns: there is no column 'ttft_p50'. Did you mean 'ttft_p50_s'",
        ),
        ("plots: {one: {x: concurrency, y: [tps]}}", "plots.one: there is no column 'tps'."),
        ("plots: {a/b: {x: concurrency, y: [knee]}}", "plots.a/b: a name may have letters, digits"),
        ("plots: {one: {x: concurrency, y: []}}", "plots.one.y"),
        (
            "cases: {closed: {}}\nplots: {one: {x: concurrency, y: [knee], cases: [close]}}",
            "plots.one.cases: there is no case 'close'. Did you mean 'closed'?",
        ),
        ("slo: {ttft: 3}", "slo.ttft"),
        ("checks: {longest: {}}", "there is no setting 'checks.longest'"),
        ("plots: {one: {x: knee, y: [knee], log: true}}", "there is no setting 'plots.one.log'"),
        ("checks: {longest_context: {start_tokens: 1}}", "start_tokens=1: must be 2 or more"),
    ],
)
def test_a_mistake_in_a_sweep_file_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    told = refused("sweep=mine", "load.concurrency=2", conf=sweep_file(tmp_path, text))
    assert says in told
    assert "\n" not in told


@pytest.mark.parametrize("content", [b"5\n", b"[1]\n", b"# Gr\xfc\xdfe\n", b"\xff\xfe"])
@pytest.mark.parametrize("group", ["sweep", "tune", "engine", "load", "model"])
def test_a_file_without_settings_is_named(tmp_path: Path, group: str, content: bytes) -> None:
    (tmp_path / group).mkdir()
    head = b"# @package _global_\n" if group in ("sweep", "tune") else b""
    (tmp_path / group / "mine.yaml").write_bytes(head + content)
    with pytest.raises(UserError, match=f"^{tmp_path}/{group}/mine.yaml[: ]") as caught:
        compose(parse([f"{group}=mine"]), tmp_path)
    assert "\n" not in str(caught.value)


def test_nothing_said_of_a_group_leaves_its_defaults(tmp_path: Path) -> None:
    conf = sweep_file(tmp_path, "engine: null\nmonitor: null\non_sim: null\ncases: null")
    (engine,) = composed("sweep=mine", "load.concurrency=2", conf=conf).engines
    assert engine == SimEngine()


@pytest.mark.parametrize(
    "words",
    [
        ["engine.env.HF_TOKEN=hunter2,hunter3"],
        ["engine.env={HF_TOKEN:hunter2},{HF_TOKEN:hunter3}"],
        ["tune=throughput", "tune.space.env.HF_TOKEN=[hunter2,hunter3]"],
    ],
)
def test_an_axis_has_no_secrets(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setattr(config_module, "choose", lambda *_args, **_named: CHOICES["cpu"])
    with pytest.raises(UserError, match=r"^engine\.env\.HF_TOKEN may be a secret") as caught:
        compose(parse([*words, "load.concurrency=2"]))
    assert "hunter" not in str(caught.value)
    assert compose(parse(["engine.env.HF_TOKEN=hunter2", "load.concurrency=2"])).engines
    assert compose(parse(["engine.env.OMP_NUM_THREADS=1,2", "load.concurrency=2"])).engines


def test_a_case_cannot_change_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_module, "choose", lambda *_args, **_named: CHOICES["cpu"])
    conf = sweep_file(tmp_path, "cases: {a: {}, b: {engine: {python: /other}}}")
    with pytest.raises(UserError, match="names one interpreter: it cannot differ between cases"):
        compose(parse(["sweep=mine", "load.concurrency=2"]), conf)


def test_a_kind_of_machine_may_change_anything_in_a_sweep(tmp_path: Path) -> None:
    text = """
columns: [ttft_p50_s]
slo: {ttft_s: 1.0}
cases: {a: {}, b: {load: {concurrency: [1, 2]}}}
on_sim:
  columns: [tpot_p50_s]
  order: shuffled
  cases: {b: null}
"""
    config = composed("sweep=mine", "load.concurrency=2", conf=sweep_file(tmp_path, text))
    assert config.options.columns == ["tpot_p50_s"]
    assert config.options.order == "shuffled"
    assert config.options.slo.ttft_s == 1.0
    assert [case.name for case in config.cases] == ["a"]


def test_a_plot_may_be_of_a_case_that_this_kind_of_machine_leaves_out(tmp_path: Path) -> None:
    text = """
load: {concurrency: 2}
cases: {a: {}, b: {load: {prompts: {kind: shared_prefix, groups: 2, hit_frac: [0.0, 0.5]}}}}
plots: {reuse: {x: hit_frac, y: [prefix_cache_hit_frac], by: input_tokens, cases: [b]}}
on_sim: {cases: {b: null}}
"""
    conf = sweep_file(tmp_path, text)
    assert list(composed("sweep=mine", conf=conf).options.plots) == ["reuse"]


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


@pytest.mark.parametrize("load", sorted(options("load", [conf_dir()])))
def test_every_file_of_loads_stands_alone(load: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    entry = '{"timestamp": %d, "input_length": 20, "output_length": 5}\n'
    trace.write_text("".join(entry % at_ms for at_ms in range(0, 100_000, 1000)))
    words = [f"load.trace.path={trace}"] if load == "trace" else []
    (one,) = composed("sweep=single", "model=tiny", f"load={load}", *words).loads
    assert one.arrival == load


def test_one_column_is_a_list_of_one() -> None:
    config = composed("sweep=single", "columns=output_tok_per_s")
    assert config.options.columns == ["output_tok_per_s"]


def test_a_number_is_text_in_an_environment() -> None:
    values = VllmEngine(env={"OMP_NUM_THREADS": 1, "X": "y"})  # type: ignore[dict-item]
    assert values.env == {"OMP_NUM_THREADS": "1", "X": "y"}


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
        ("load.concurrency=true", "load.concurrency=true: must be a whole number"),
        ("load.concurrency=1,true", "load.concurrency=true: must be a whole number"),
        (
            "load.input_tokens={dist:uniform,min:true,max:9}",
            "load.input_tokens.min=true: must be a",
        ),
        ("slo.ttft_s=true", "slo.ttft_s=true: must be a number"),
        ("monitor.gpu_interval_s=true", "monitor.gpu_interval_s=true: must be a number"),
        ("engine.ur=http://x", "Did you mean 'engine.url'?"),
        ("engine.url=http://x", "engine=external only"),
        ("engine.env.OMP_NUM_THREADS=1", "'engine.env' exists for engine=vllm only"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_right_one(word: str, says: str) -> None:
    assert says in refused(word)


@pytest.mark.parametrize(
    "url", ["http://h", "https://h:1/x/v1", "http://[::1]:8000", "http://[fe80::1.2.3.4]/v1"]
)
def test_the_address_of_a_server_is_taken_as_it_is_written(url: str) -> None:
    (engine,) = composed("sweep=single", "engine=external", f"engine.url={url}").engines
    assert isinstance(engine, ExternalEngine)
    assert engine.url == url


@pytest.mark.parametrize(
    "url",
    [
        "h:8000",
        "http://",
        "http://::1:8000",
        "http://[::::]",
        "http://[h]",
        "http://[::1",
        "http://h:0",
        "http://h:99999",
        "http://[::1]:x",
        "http://[::1]:1,http://h",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    assert "must be the address of a server" in refused(
        "sweep=single", "engine=external", f"engine.url={url}"
    )


@pytest.mark.parametrize("engine", ["auto", "vllm"])
@pytest.mark.parametrize("python", ["/no/such/python", "/bin/sh"])
def test_an_interpreter_without_vllm_is_named_not_passed_over(engine: str, python: str) -> None:
    with pytest.raises(UserError, match=f"engine.python={python}: .*name the interpreter"):
        compose(parse([f"engine={engine}", "sweep=single", f"engine.python={python}"]))


@pytest.mark.usefixtures("place")
def test_a_setting_of_another_engine_is_told_which_one_auto_has_taken() -> None:
    with pytest.raises(UserError, match=r"engine=external only. Here engine=auto is (sim|vllm): "):
        compose(parse(["sweep=single", "engine.url=http://x"]))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["load.concurrency=-4"], "load.concurrency=-4: must be 1 or more"),
        (["load.concurrency=abc"], "load.concurrency=abc: must be a whole number"),
        (["load.concurrency=0,4"], "load.concurrency=0: must be"),
        (["engine.gpu_memory_utilization=1.5"], "must be 1 or less"),
        (["order=random"], "order=random: must be listed or shuffled"),
        (["repeats.launches=0"], "repeats.launches=0: must be 1 or more"),
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


def test_a_model_can_be_a_folder_or_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "config.json" in refused("sweep=single", f"model={tmp_path}")
    assert "no such folder" in refused("sweep=single", f"model={tmp_path}/nowhere")
    write_model(tmp_path)
    config = composed("sweep=single", f"model={tmp_path}", "load.concurrency=1")
    assert config.model.path == str(tmp_path)
    words = ["sweep=single", "model=Qwen/Qwen3-8B", "load.concurrency=1"]
    assert "model=Qwen/Qwen3-8B: the simulator downloads nothing" in refused(*words)
    monkeypatch.setattr(config_module, "choose", lambda *_args, **_named: CHOICES["gpu"])
    config = composed(*words, "engine=vllm")
    assert (config.model.name, config.model.path) == ("Qwen3-8B", "Qwen/Qwen3-8B")


@pytest.mark.parametrize("content", [b"{", b"[]", b"5", b'{"text_config": 5}', b"\xff\xfe"])
@pytest.mark.parametrize("engine", ["sim", "vllm"])
def test_a_model_s_config_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, content: bytes
) -> None:
    place = {"sim": "sim", "vllm": "cpu"}[engine]
    monkeypatch.setattr(config_module, "choose", lambda *_args, **_named: CHOICES[place])
    (tmp_path / "config.json").write_bytes(content)
    told = refused("sweep=single", f"engine={engine}", f"model={tmp_path}", "load.concurrency=1")
    assert f"{tmp_path}/config.json is no model's configuration: " in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_attention_heads": None}, "is not a dense decoder's configuration"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"hidden_size": "wide"}, "is not a dense decoder's configuration"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
    ],
)
def test_the_simulator_needs_a_dense_decoder(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    write_model(tmp_path, **changes)
    told = refused("sweep=single", f"model={tmp_path}", "load.concurrency=1")
    assert told.startswith(f"model={tmp_path}: ")
    assert says in told


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


CONTRIBUTING = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(# @package _global_.*?)```", CONTRIBUTING, flags=re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES)
@pytest.mark.usefixtures("place")
def test_the_sweeps_that_contributing_shows_have_a_plan(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(text)
    words = ["sweep=mine", "model=qwen2.5-7b"]
    assert make_plan(compose(parse(words), tmp_path), ()).launches


def test_contributing_shows_sweeps() -> None:
    assert len(EXAMPLES) == 2


def test_an_engine_of_ones_own_is_taken_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "tuned.yaml").write_text("kind: sim\ngpu: l4\nmax_num_seqs: 7\n")
    (engine,) = compose(parse(["engine=tuned", "sweep=single", "model=tiny"]), tmp_path).engines
    assert (engine.kind, engine.gpu, engine.max_num_seqs) == ("sim", "l4", 7)


@pytest.mark.parametrize("text", ["max_num_seqs: 7\n", "kind: other\n", "kind: []\n"])
def test_an_engine_of_ones_own_says_its_kind(tmp_path: Path, text: str) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "tuned.yaml").write_text(text)
    told = refused("engine=tuned", conf=tmp_path)
    assert told.endswith("tuned.yaml: an engine says its kind: vllm, sim, external.")
