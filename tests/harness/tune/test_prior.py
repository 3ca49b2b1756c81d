from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines.config import SimEngine, VllmEngine
from harness.model import Model
from harness.sim.gpus import GPUS
from harness.tune.prior import Prior, gpu_name, server_of
from harness.tune.steady import Traffic, at_capacity, estimated
from loadgen.config import Load, Search, Slo, Trace, Uniform
from tests.harness.models import QWEN
from tests.harness.sim.virtual import QWEN_DECODER, Clients, VirtualTime
from tests.harness.tune.spaces import space_of

LOAD = Load(
    arrival="closed",
    concurrency=1024,
    input_tokens=512,
    output_tokens=Uniform(min=64, max=192),
    warmup_max_s=60,
)
TRAFFIC = Traffic(
    input_tokens=512,
    output_tokens=128,
    shared_frac=0.0,
    concurrency=64,
    rate_rps=None,
    duration_s=10,
)


def server(gpu="h200", **said):
    return server_of(SimEngine(**({"tensor_parallel_size": 2} | said)), QWEN_DECODER, GPUS[gpu])


def prior(**changes):
    return Prior(
        **{"model": QWEN, "loads": [LOAD], "gpu": "h200", "num_gpus": 2, "slo": Slo()} | changes
    )


def row(server, **changes):
    return estimated(server, replace(TRAFFIC, **changes))


@pytest.mark.parametrize(
    ("said", "concurrency"),
    [({}, 16), ({}, 64), ({"max_num_seqs": 16}, 64), ({"api_server_count": 4}, 128)],
)
def test_the_arithmetic_is_near_the_simulator(said, concurrency):
    clients = Clients(
        time=VirtualTime(
            max_num_seqs=said.get("max_num_seqs", 1024),
            api_server_count=said.get("api_server_count", 1),
        ),
        warmup_s=2,
        window_s=2,
        concurrency=concurrency,
    ).run()
    found = row(server(**said), concurrency=concurrency)
    assert found["output_tok_per_s"] == pytest.approx(clients.output_tok_per_s, rel=0.25)
    assert found["tpot_p50_s"] == pytest.approx(clients.tpot_s, rel=0.25)


def test_the_api_server_is_the_wall_at_a_thousand_streams_as_it_was_measured_to_be():
    """docs/perf-story.md: 4 API servers, or a chunk for 8 tokens, give 1.8 times the tokens."""
    base = row(server(), concurrency=1024)["output_tok_per_s"]
    for said in ({"api_server_count": 4}, {"stream_interval": 8}):
        gain = row(server(**said), concurrency=1024)["output_tok_per_s"] / base
        assert 1.3 < gain < 2.5


@settings(max_examples=40)
@given(st.integers(1, 2048), st.integers(1, 512), st.integers(1, 4))
def test_littles_law_holds_in_a_closed_loop(concurrency, seqs, api_servers):
    found = row(server(max_num_seqs=seqs, api_server_count=api_servers), concurrency=concurrency)
    inside = found["requests_per_s"] * found["e2e_mean_s"]
    assert inside >= 0.95 * min(concurrency, seqs)
    assert found["output_tok_per_s"] > 0


@settings(max_examples=40)
@given(st.floats(0.1, 2000))
def test_an_open_loop_gives_what_is_asked_or_lets_a_queue_grow(rate_rps):
    found = row(server(), concurrency=None, rate_rps=rate_rps)
    assert found["requests_per_s"] <= rate_rps * 1.001
    if found["requests_per_s"] < 0.9 * rate_rps:
        assert found["ttft_p50_s"] > row(server(), concurrency=None, rate_rps=1.0)["ttft_p50_s"]


def test_what_does_not_fit_has_no_row():
    space = space_of({"gpu_memory_utilization": [0.02, 0.9]})
    expected = prior(gpu=space.pinned.gpu).forecast(space)
    fits = {dict(setting)["gpu_memory_utilization"]: rows for setting, rows in expected.items()}
    assert fits[0.02] is None
    assert fits[0.9] is not None
    assert fits[None] is not None


def test_replicas_and_engines_halve_the_streams_of_each():
    one = row(server(tensor_parallel_size=1), concurrency=64)
    two = row(server(tensor_parallel_size=1, replicas=2), concurrency=128)
    assert two["output_tok_per_s"] == pytest.approx(2 * one["output_tok_per_s"])
    assert two["num_gpus"] == 2 * one["num_gpus"]


def test_a_prefix_that_is_cached_is_not_computed():
    cold = row(server(enable_prefix_caching=False), shared_frac=0.9, input_tokens=4096.0)
    warm = row(server(), shared_frac=0.9, input_tokens=4096.0)
    assert warm["output_tok_per_s"] > 1.5 * cold["output_tok_per_s"]


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_gpus_are_known_by_their_names(told, name):
    assert gpu_name(told) == name


def test_where_nothing_is_known_it_says_why_and_there_is_no_forecast():
    space = space_of(engine=VllmEngine())
    assert "peaks" in prior(gpu=None).unknown()
    assert prior(gpu=None).forecast(space) is None
    hub = Model(name="m", path="nobody/nothing")
    assert "dense decoder" in prior(model=hub).unknown()
    trace = Load(arrival="trace", trace=Trace(path="x"))
    assert "steady state" in prior(loads=[LOAD, trace]).unknown()
    assert prior().unknown() is None


SEARCHED = replace(LOAD, arrival="poisson", concurrency=None, search=Search())


@pytest.mark.parametrize("load", [LOAD, SEARCHED])
@pytest.mark.parametrize("slowdown", [1.0, 1.5, 2.5])
def test_a_host_is_known_by_the_speed_of_the_defaults(load, slowdown):
    """Nearer to 1 than it is, because an odd measurement may have other reasons."""
    space = space_of(engine=VllmEngine())
    known = prior(loads=[load], slo=Slo(ttft_s=0.5, tpot_s=0.03))
    there = replace(known, cpu_slowdown=slowdown)
    rows = there.forecast(space, only=space.default)[space.default]
    found = known.fitted(space, rows).cpu_slowdown
    assert found == pytest.approx(slowdown**0.86, rel=0.08)
    guess = known.fitted(space, rows).forecast(space, only=space.default)
    column = "capacity_rps" if load.search else "output_tok_per_s"
    assert guess[space.default][0][column] == pytest.approx(rows[0][column], rel=0.2)


def test_a_gap_that_no_cpu_explains_leaves_the_host_as_it_is():
    """One stream is bound by what does not depend on the host."""
    space, known = space_of(engine=VllmEngine()), prior(loads=[replace(LOAD, concurrency=1)])
    (row,) = known.forecast(space, only=space.default)[space.default]
    slower = row | {"output_tok_per_s": row["output_tok_per_s"] * 0.7}
    assert known.fitted(space, [slower]).cpu_slowdown < 1.3
    for nothing in ([], [{}], [{"output_tok_per_s": None}]):
        assert known.fitted(space, nothing).cpu_slowdown == 1.0
    assert prior(gpu=None).fitted(space, [slower]).cpu_slowdown == 1.0


def test_a_slow_host_gains_more_from_what_spares_its_cpu():
    name, gains = "extra.max_cudagraph_capture_size", []
    space, load = space_of({name: [8192]}, engine=VllmEngine()), replace(LOAD, concurrency=32)
    for slowdown in (1.0, 2.0):
        found = prior(cpu_slowdown=slowdown, loads=[load]).forecast(space)
        rates = {dict(s)[name]: rows[0]["output_tok_per_s"] for s, rows in found.items()}
        gains.append(rates[8192] / rates[None])
    assert 1.1 * gains[0] < gains[1]


@pytest.mark.parametrize("sought", ["capacity_rps", "capacity_concurrency"])
def test_a_capacity_keeps_its_limits_and_a_tighter_limit_gives_less(sought):
    asked = replace(TRAFFIC, concurrency=None, rate_rps=None, sought=sought)
    loose = at_capacity(server(), asked, Slo(ttft_s=1.0, tpot_s=0.01))
    tight = at_capacity(server(), asked, Slo(ttft_s=1.0, tpot_s=0.005))
    assert loose["tpot_p50_s"] <= 0.01
    assert tight["tpot_p50_s"] <= 0.005
    assert 0 < tight[sought] < loose[sought]


def test_every_setting_has_a_row_for_each_load():
    space = space_of(engine=VllmEngine())
    expected = prior(loads=[LOAD, replace(LOAD, concurrency=8)]).forecast(space)
    assert set(expected) == set(space.settings())
    assert all(len(rows) == 2 for rows in expected.values())
