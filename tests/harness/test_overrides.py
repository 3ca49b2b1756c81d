import re

import pytest

from harness.errors import UserError
from harness.overrides import nearest, parse


def test_words_are_split_into_choices_and_settings() -> None:
    words = parse(["sweep=batching", "engine=sim", "load.concurrency=64", "seed=3"])
    assert words.choices == {"sweep": "batching", "engine": "sim"}
    assert words.settings == {"load.concurrency": 64, "seed": 3}


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("engine.max_num_seqs=64,128", [64, 128]),
        ("engine.max_num_seqs=[64,128]", [64, 128]),
        ("engine.max_num_seqs=choice(64,128)", [64, 128]),
        ("engine.max_num_seqs=range(1,4)", [1, 2, 3]),
        ("engine.dtype=float16,bfloat16", ["float16", "bfloat16"]),
        ("engine.enforce_eager=true,false", [True, False]),
        ("engine.kv_cache_dtype=null,fp8", [None, "fp8"]),
        (
            "load.input_tokens={dist:uniform,min:1,max:9},64",
            [{"dist": "uniform", "min": 1, "max": 9}, 64],
        ),
    ],
)
def test_several_values_are_an_axis(word: str, values: list[object]) -> None:
    assert list(parse([word]).settings.values()) == [values]


def test_a_hub_id_or_a_path_needs_no_quotes() -> None:
    assert parse(["model=Qwen/Qwen3-8B"]).choices == {"model": "Qwen/Qwen3-8B"}
    assert parse(["model=/data/my model, v2"]).choices == {"model": "/data/my model, v2"}


def test_plain_text_needs_no_quotes_even_with_an_equals_sign() -> None:
    assert parse(["engine.env.OPTS=a=b"]).settings == {"engine.env.OPTS": "a=b"}


def test_plus_signs_of_hydra_are_accepted() -> None:
    assert parse(["++engine.extra.foo=1"]).settings == {"engine.extra.foo": 1}


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("batching", "name=value"),
        ("~load", "null"),
        ("load.rate_rps=interval(1,2)", "list of values"),
        ("load.concurrency=[1,", "cannot be read"),
        ("slo.ttft_s=1,slo.tpot_s=2", "cannot be read"),
        ("a=[b < 1, c < 2]", """quote what is text: 'a=["...", "..."]'"""),
        ("a={b: > 1}", """quote what is text: 'a={NAME: "..."}'"""),
        ("--multirun", "name=value"),
    ],
)
def test_a_malformed_word_is_one_sentence(word: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        parse([word])


@pytest.mark.parametrize(
    "words",
    [
        ["slo={ttft_s:", "1}"],
        ["slo=ttft_s:1", "slo=tpot_s:2"],  # what a shell makes of slo={ttft_s:1,tpot_s:2}
    ],
)
def test_a_value_that_the_shell_took_apart_is_told_to_be_quoted(words: list[str]) -> None:
    with pytest.raises(UserError, match="in quotes"):
        parse(words)


def test_the_last_of_two_values_counts() -> None:
    words = ["engine.url=http://a:1", "engine.url=http://b:2", "seed=1", "seed=2"]
    assert parse(words).settings == {"engine.url": "http://b:2", "seed": 2}


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("engine.max_num_seq", "engine.max_num_seqs"),
        ("max_num_seqs", "engine.max_num_seqs"),
        ("load.concurency", "load.concurrency"),
        ("concurrency", "load.concurrency"),
        ("zzz", None),
        ("load.max_num_seqs", "engine.max_num_seqs"),
        ("ttft", "ttft_p50_s"),
        ("tune.goal", None),  # "tune." alone makes no two names alike
        ("tune.proof.alow", "tune.proof.allow"),
    ],
)
def test_the_nearest_name_is_found(typo: str, meant: str | None) -> None:
    known = ["engine.max_num_seqs", "engine.max_num_batched_tokens", "load.concurrency", "seed"]
    known += ["tune.proof.allow", "ttft_p50_s", "ttft_p99_s"]
    assert nearest(typo, known) == meant
