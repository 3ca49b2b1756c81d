"""What is said of wrong settings, at every setting that there is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from harness.config import compose
from harness.errors import UserError
from harness.overrides import Words, parse
from harness.sentences import Origin, sentence, shown
from harness.settings import ENGINES, SCHEMAS, Options, known_names

# Of pydantic: words for programmers.
FOREIGN = re.compile(
    r"[Ii]nput should|valid (integer|string|number|boolean|list|dictionary)|unable to|[Ss]tring "
    r"should|[Ll]ist should|instance of|greater than|less than or|after validation|fractional"
)
WRONG = (-1, 0, 1e9, 0.5, float("nan"), "", "a b", "abc", [], [1, "x"], {}, {"x": 1}, True, None)
HERE = Origin(words=Words(choices={}, settings={}), study="sweep/mine", kind="sim")
GROUPS = [*(("engine", cls) for cls in ENGINES.values()), *SCHEMAS.items(), ("", Options)]


def refusals(group: str, cls: type, path: list[str], value: Any) -> Iterator[str]:
    """What is said of one value at one place of a group."""
    tree: Any = value
    for name in reversed(path):
        tree = {name: tree}
    prefix = f"{group}." if group else ""
    engine = cls if group == "engine" else ENGINES["sim"]
    known = [name for name in known_names(engine) if name.startswith(prefix)]
    try:
        TypeAdapter(cls).validate_python(tree)
    except ValidationError as error:
        yield from (sentence(each, group, known, HERE) for each in error.errors())


@pytest.mark.parametrize(("group", "cls"), GROUPS, ids=lambda one: getattr(one, "__name__", one))
def test_no_sentence_has_pydantics_words_whatever_is_wrong_where(group: str, cls: type) -> None:
    prefix = f"{group}." if group else ""
    engine = cls if group == "engine" else ENGINES["sim"]
    groups = tuple(f"{name}." for name in ("engine", *SCHEMAS))
    mine = [
        name
        for name in known_names(engine)
        if (name.startswith(prefix) if group else not name.startswith(groups))
    ]
    said = [
        told
        for name in mine
        for value in WRONG
        for told in refusals(group, cls, name.removeprefix(prefix).split("."), value)
    ]
    assert len(said) > len(mine), "nearly every setting can be wrong in some way"
    assert [told for told in said if FOREIGN.search(told) or "\n" in told] == []


def refused(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        compose(parse(["sweep=single", "engine=sim", *words]))
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("engine.max_num_seqs=1.5", "engine.max_num_seqs=1.5: must be a whole number"),
        ("engine.max_num_seqs={a: 1}", "engine.max_num_seqs={a: 1}: must be a whole number"),
        ("engine.enforce_eager=maybe", "engine.enforce_eager=maybe: must be true or false"),
        ("engine.dtype=7", "engine.dtype=7: must be text"),
        ("engine.extra=5", "engine.extra=5: must be names with values: {NAME: VALUE}"),
        ("engine.gpu=h300", "engine.gpu=h300: must be b200, h200, h100, a100, l40s, l4 or a10g"),
        ("load.output_tokens=abc", "abc: must be a number of tokens, or have dist: uniform,"),
        ("load.output_tokens={dist: uniform, min: x, max: 4}", "load.output_tokens.min=x: must"),
        ("load.prompts=foo", "load.prompts=foo: must have kind: unique, shared_prefix or"),
        ("load.prompts={kind: unique, groups: 3}", "load.prompts.groups=3: does not go with uniq"),
        ("load.prompts={kind: shared_prefix, hit_frac: 0}", "load.prompts.groups is needed: set"),
        ("load.conversation=foo", "must be names with values, of: turns, think_s"),
        ("load.rate_rps=3", "load: rate_rps is for arrival=constant"),
        ("load.duration_s=nan", "load.duration_s=nan: must be a finite number"),
        ("checks.offline=7", "checks.offline=7: must be names with values, of: prompts, timeout_s"),
        ("checks.accuracy.reference=[]", "must have 1 or more entries"),
        ("client.workers=0", "client.workers=0: must be 1 or more"),
        ("client=5", "client=5: must be names with values, of: transport, workers, calibrate"),
        ("plots.a={x: concurrency, y: 5}", "plots.a.y=5: must be a name, or a list of names"),
        ("plots.a={x: concurrency, y: knee, z: 1}", "there is no setting 'plots.a.z'"),
        ("plots={a b: {x: concurrency, y: knee}}", "plots.a b: a name may have letters, digits,"),
        ("columns={a: b}", "columns={a: b}: must be a name, or a list of names"),
        ("seed=1,2", "seed=[1, 2]: must be one value, a whole number; only engine.* and load.* s"),
        ("out=", "out=: must not be empty"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_says_what_where_and_how(word: str, said: str) -> None:
    told = refused(word)
    assert said in told
    assert "\n" not in told
    assert "(on the command line)" in told or "is needed" in told


def test_a_url_that_is_none_is_told_what_one_looks_like() -> None:
    with pytest.raises(UserError, match=r"engine.url=foo: must be the address of a server, e\.g\."):
        compose(parse(["sweep=single", "engine=external", "engine.url=foo"]))


def test_a_plot_can_be_named_on_the_command_line() -> None:
    words = ["sweep=single", "engine=sim", "plots.mine={x: concurrency, y: output_tok_per_s}"]
    assert "mine" in compose(parse(words)).options.plots


def test_values_are_shown_as_they_are_written() -> None:
    value = {"a": [1, None, True], "b": "x", "c": {"d": 0.5}}
    assert shown(value) == "{a: [1, null, true], b: x, c: {d: 0.5}}"


def test_a_place_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "tune").mkdir()
    text = "tune: {maximise: output_tok_per_s, space: {max_num_seqs: [1, 2]}, spce: 1}"
    (tmp_path / "tune" / "mine.yaml").write_text(f"# @package _global_\n# Mine.\n{text}\n")
    with pytest.raises(UserError, match=r"\(in tune/mine.yaml\)"):
        compose(parse(["engine=sim", "tune=mine"]), tmp_path)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("tune.budget.launches=x", "tune.budget.launches=x: must be a whole number"),
        ("tune.budget={minuets: 3}", "there is no setting 'tune.budget.minuets'"),
        ("tune.proof.launches=1", "tune.proof.launches=1: must be 2 or more"),
        ("tune.screen=5", "tune.screen=5: must be names with values, of: duration_s, below_frac"),
        ("tune.maximise=7", "tune.maximise=7: must be a name, or a list of names"),
        ("tune.space.max_num_seqs={from: 1, to: 8, times: 1}", "times=1: must be more than 1"),
        (
            "tune.space.max_num_seqs={from: a, to: 8, times: 2}",
            "max_num_seqs.from=a: must be a num",
        ),
        ("tune.space.max_num_seqs={values: 5}", "tune.space.max_num_seqs.values=5: must be a"),
        ("tune.space.max_num_seqs={first: 5}", "there is no setting 'tune.space.max_num_seqs.fir"),
        ("tune.forbidden=[5]", "tune.forbidden=5: must be names with values: {NAME: VALUE}"),
    ],
)
def test_a_tunings_wrong_value_is_one_sentence_too(word: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        compose(parse(["tune=throughput", "engine=sim", word]))
    told = str(caught.value)
    assert said in told
    assert "\n" not in told
    assert "(on the command line)" in told
    assert not FOREIGN.search(told)


def test_the_file_of_a_tunings_wrong_value_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune/mine.yaml").write_text(
        "# @package _global_\n# Mine.\ntune: {maximise: output_tok_per_s, cost_per_gpu_hour: 0}\n"
    )
    with pytest.raises(UserError) as caught:
        compose(parse(["tune=mine", "engine=sim"]), tmp_path)
    said = "tune.cost_per_gpu_hour=0: must be more than 0 (in tune/mine.yaml)"
    assert said in str(caught.value).splitlines()
