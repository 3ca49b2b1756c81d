from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from loadgen.config import (
    Client,
    Dataset,
    Empirical,
    Load,
    LogNormal,
    SharedPrefix,
    Slo,
    Uniform,
    Unique,
)

CLOSED = {"arrival": "closed", "concurrency": 4}
TRACE = {"arrival": "trace", "trace": {"path": "trace.jsonl"}}
PREFIX = {"kind": "shared_prefix", "groups": 2, "hit_frac": 0.5}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arrival": "closed"}, "concurrency is required for arrival=closed"),
        ({"arrival": "poisson"}, "rate_rps is required for arrival=poisson"),
        ({"arrival": "gamma", "rate_rps": 1.0}, "burstiness is required for arrival=gamma"),
        ({"arrival": "ramp", "rate_rps": 1.0}, "rate_end_rps is required for arrival=ramp"),
        ({"arrival": "trace"}, "trace is required for arrival=trace"),
        (CLOSED | {"rate_rps": 1.0}, "rate_rps is for arrival=constant, .*, not for closed"),
        (CLOSED | {"burstiness": 2.0}, "burstiness is for arrival=gamma, not for closed"),
        (
            {"arrival": "poisson", "rate_rps": 1.0, "concurrency": 2},
            "concurrency is for arrival=closed, not for poisson",
        ),
        ({"arrival": "poisson", "rate_rps": 0}, "rate_rps\n  Input should be greater than 0"),
        (CLOSED | {"warmup_s": 60.0}, "warmup_max_s must be >= warmup_s"),
        (CLOSED | {"ramp_s": 60.0}, "warmup_max_s must be >= warmup_s and >= ramp_s"),
        (CLOSED | {"input_tokens": 0}, "input_tokens"),
        (CLOSED | {"input_tokens": {"dist": "zipf"}}, "must be a number of tokens, or have dist"),
        (CLOSED | {"input_tokens": {"dist": "uniform", "min": 9, "max": 8}}, "min must be <= max"),
        (
            CLOSED | {"output_tokens": {"dist": "lognormal", "median": 9, "sigma": 1, "max": 8}},
            "min <= median <= max must hold",
        ),
        (CLOSED | {"duration": 3}, "duration"),
        (
            CLOSED | {"rate_frac": 0.5},
            "rate_frac is for arrival=constant, poisson, gamma, not for c",
        ),
        (
            TRACE | {"rate_frac": 0.5},
            "rate_frac is for arrival=constant, poisson, gamma, not for t",
        ),
        (
            {"arrival": "ramp", "rate_frac": 0.5, "rate_end_rps": 9.0},
            "rate_frac is for arrival=constant, poisson, gamma, not for ramp",
        ),
        ({"arrival": "poisson", "rate_frac": 0.0}, "rate_frac\n  Input should be greater than 0"),
        ({"arrival": "gamma", "rate_frac": 0.5}, "burstiness is required for arrival=gamma"),
        (CLOSED | {"prompts": {"kind": "text"}}, "kind: unique, shared_prefix or dataset"),
        (CLOSED | {"prompts": {"groups": 2, "hit_frac": 0.5}}, "kind: unique, shared_prefix or"),
        (CLOSED | {"prompts": PREFIX | {"hit_frac": 1.0}}, "hit_frac"),
        (CLOSED | {"conversation": {"turns": 2}}, "a conversation needs endpoint=chat"),
        (TRACE | {"prompts": PREFIX}, "a trace says itself what its prompts share"),
        (
            TRACE | {"endpoint": "chat", "conversation": {"turns": 2}},
            "a trace says itself what its prompts share",
        ),
    ],
)
def test_a_load_that_makes_no_sense_is_refused_in_one_sentence(fields, message):
    with pytest.raises(ValidationError, match=message) as caught:
        TypeAdapter(Load).validate_python(fields)
    assert caught.value.error_count() == 1


def test_lengths_are_a_number_or_one_of_three_distributions():
    lengths = {"dist": "lognormal", "median": 100, "sigma": 0.5, "max": 200}
    load = Load(
        **CLOSED, input_tokens={"dist": "uniform", "min": 1, "max": 3}, output_tokens=lengths
    )
    assert isinstance(load.input_tokens, Uniform)
    assert isinstance(load.output_tokens, LogNormal)
    lengths = {"dist": "empirical", "path": "lengths.txt"}
    assert isinstance(Load(**CLOSED, input_tokens=lengths).input_tokens, Empirical)
    assert Load(**CLOSED).input_tokens == 512


def test_prompts_are_unique_unless_they_say_something_else():
    assert isinstance(Load(**CLOSED).prompts, Unique)
    assert isinstance(Load(**CLOSED, prompts=PREFIX).prompts, SharedPrefix)
    prompts = {"kind": "dataset", "path": "chats.jsonl"}
    assert Load(**CLOSED, prompts=prompts).prompts == Dataset(path="chats.jsonl", unique=True)


@pytest.mark.parametrize(
    ("fields", "shares"),
    [
        (CLOSED, False),
        (CLOSED | {"prompts": PREFIX}, True),
        (CLOSED | {"prompts": PREFIX | {"hit_frac": 0.0}}, False),
        (CLOSED | {"prompts": {"kind": "dataset", "path": "f"}}, False),
        (CLOSED | {"prompts": {"kind": "dataset", "path": "f", "unique": False}}, True),
        (CLOSED | {"endpoint": "chat", "conversation": {"turns": 2}}, True),
        (TRACE, True),
    ],
)
def test_prompts_may_begin_alike_where_the_load_says_so(fields, shares):
    assert Load(**fields).shares_prompts is shares


def test_only_a_closed_loop_waits_for_replies():
    assert not Load(**CLOSED).is_open
    assert Load(**TRACE).is_open


@pytest.mark.parametrize(
    ("transport", "url", "meant"),
    [
        ("auto", "http://h", "direct"),
        ("auto", "https://h", "aiohttp"),
        ("aiohttp", "http://h", "aiohttp"),
        ("direct", "http://h", "direct"),
    ],
)
def test_the_transport_is_direct_where_it_can_be(transport, url, meant):
    assert Client(transport=transport).transport_for(url) == meant


def test_the_direct_transport_refuses_tls():
    with pytest.raises(ValueError, match="speaks plain http:// only: take aiohttp"):
        Client(transport="direct").transport_for("https://h")


@pytest.mark.parametrize("name", ["closed", "poisson"])
def test_the_loads_of_the_configuration_are_loads(name):
    path = Path(__file__).parents[2] / "conf/load" / f"{name}.yaml"
    load = TypeAdapter(Load).validate_python(yaml.safe_load(path.read_text()))
    assert load.arrival == name


def test_a_rate_may_be_a_share_of_a_capacity_that_is_found_later():
    share = Load(arrival="poisson", rate_frac=0.5)
    found = share.at_capacity(40.0)
    assert (found.rate_rps, found.rate_frac) == (20.0, 0.5)
    assert share.rate_rps is None, "the load that was asked for stays as it was"
    assert Load(**asdict(found)) == found, "as it is read back from disk"


def test_a_rate_of_its_own_does_not_follow_the_capacity():
    fixed = Load(arrival="poisson", rate_rps=3.0)
    assert fixed.at_capacity(40.0) == fixed
    assert Load(**CLOSED).at_capacity(40.0) == Load(**CLOSED)


@pytest.mark.parametrize(
    "fields",
    [
        CLOSED,
        {"arrival": "poisson", "rate_frac": 0.5},
        {"arrival": "gamma", "rate_rps": 5.0, "burstiness": 2.0},
        {"arrival": "ramp", "rate_rps": 1.0, "rate_end_rps": 5.0},
    ],
)
def test_the_same_requests_can_be_sent_one_at_a_time(fields):
    load = Load(**fields)
    assert (load.alone().arrival, load.alone().concurrency) == ("closed", 1)
    assert load.alone().asks_like(load)


@pytest.mark.parametrize("change", [{"concurrency": 9}, {"warmup_s": 1.0}, {"duration_s": 3.0}])
def test_requests_are_alike_at_every_intensity(change):
    assert Load(**CLOSED).asks_like(Load(**CLOSED | change))
    assert Load(**CLOSED).asks_like(Load(arrival="poisson", rate_rps=1.0))


@pytest.mark.parametrize(
    "change",
    [
        {"input_tokens": 9},
        {"output_tokens": 9},
        {"prompts": PREFIX},
        {"endpoint": "chat"},
        {"stream": False},
        {"ignore_eos": False},
    ],
)
def test_requests_that_cost_the_server_something_else_are_not_alike(change):
    assert not Load(**CLOSED).asks_like(Load(**CLOSED | change))


def test_limits_are_set_when_there_is_one():
    assert not Slo().is_set
    assert Slo(e2e_s=1.0).is_set
    with pytest.raises(ValidationError):
        Slo(ttft_s=0)
