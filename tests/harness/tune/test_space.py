from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines.config import SimEngine, VllmEngine
from harness.engines.parallel import decided
from harness.errors import UserError
from harness.sim.options import flags_with_effect
from harness.tune.condition import hold
from harness.tune.space import engine_of, without
from harness.tune.trial import chosen, setting_text
from tests.harness.models import QWEN
from tests.harness.tune.spaces import SPACE, space_of

VALUES = "null, 64, 128, 256"
NAMES = ("max_num_seqs", "max_num_batched_tokens", "api_server_count", "stream_interval")
axes = st.dictionaries(
    st.sampled_from(NAMES), st.lists(st.integers(1, 9), min_size=1, max_size=2), min_size=1
)
conditions = st.dictionaries(
    st.sampled_from(NAMES),
    st.one_of(
        st.none(),
        st.integers(1, 9),
        st.lists(st.one_of(st.none(), st.integers(1, 9)), min_size=1, max_size=3),
        st.builds("{} {}".format, st.sampled_from(["<", "<=", ">", ">="]), st.sampled_from(NAMES)),
    ),
    min_size=1,
    max_size=2,
)


def settings_or_none(space, **said):
    try:
        return space_of(space, **said)
    except UserError:  # everything but the defaults is forbidden
        return None


@settings(max_examples=25)
@given(axes, st.lists(conditions, max_size=3))
def test_settings_are_distinct_begin_with_the_defaults_and_hold_nothing_forbidden(axes, forbidden):
    space = settings_or_none(axes, forbidden=forbidden)
    if space is None:
        return
    found = space.settings()
    assert found[0] == space.default
    assert all(value is None for _, value in space.default)
    assert len(set(found)) == len(found) == len(space)
    for setting in found[1:]:
        values = dict.fromkeys(NAMES) | dict(setting)
        assert not any(hold(entry, values) for entry in forbidden)


@settings(max_examples=25)
@given(axes, st.dictionaries(st.sampled_from(NAMES), conditions, max_size=3))
def test_an_axis_is_left_to_vllm_where_its_condition_does_not_hold(axes, when):
    space = {name: {"values": values, "when": when.get(name, {})} for name, values in axes.items()}
    found = settings_or_none(space)
    for setting in found.settings() if found else ():
        values = dict.fromkeys(NAMES) | dict(setting)
        for name, value in setting:
            assert value is None or hold(when.get(name, {}), values)


@settings(max_examples=25)
@given(axes)
def test_the_order_is_the_same_each_time(axes):
    one, two = settings_or_none(axes), settings_or_none(axes)
    assert one == two


def test_a_range_ends_where_it_says_and_the_default_is_always_there():
    space = space_of(
        {
            "max_num_batched_tokens": {"from": 1024, "to": 8192, "times": 2},
            "gpu_memory_utilization": {"from": 0.8, "to": 0.95, "step": 0.05},
        }
    )
    assert space.choices("max_num_batched_tokens") == [None, 1024, 2048, 4096, 8192]
    assert space.choices("gpu_memory_utilization") == [None, 0.8, 0.85, 0.9, 0.95]
    assert len(space) == 25


def test_a_range_that_is_not_met_exactly_ends_before_its_end():
    assert space_of({"max_num_seqs": {"from": 10, "to": 35, "step": 10}}).choices(
        "max_num_seqs"
    ) == [None, 10, 20, 30]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_num_seqs", 256),
        ("max_num_batched_tokens", 4096),
        ("api_server_count", 4),
        ("stream_interval", 8),
        ("gpu_memory_utilization", 0.9),
        ("kv_cache_dtype", "fp8"),
        ("enable_prefix_caching", False),
        ("async_scheduling", False),
        ("enforce_eager", True),
        ("block_size", 32),
        ("tensor_parallel_size", 1),
        ("data_parallel_size", 2),
        ("replicas", 2),
        ("dtype", "float16"),
        ("quantization", "fp8"),
    ],
)
def test_every_setting_that_is_worth_tuning_can_be_an_axis(name, value):
    space = space_of({name: [value]}, engine=VllmEngine())
    assert [getattr(space.engine(s), name) for s in space.settings()] == [None, value]


def test_the_mode_of_cuda_graphs_is_left_to_vllm_where_there_are_none():
    mode = "extra.compilation_config.cudagraph_mode"
    space = space_of(
        {
            "enforce_eager": [True],
            mode: {"values": ["FULL", "PIECEWISE"], "when": {"enforce_eager": [None, False]}},
        },
        engine=VllmEngine(),
    )
    assert [setting_text(chosen(setting)) for setting in space.settings()] == [
        "defaults",
        f"{mode}=FULL",
        f"{mode}=PIECEWISE",
        "enforce_eager=true",
    ]
    full = space.engine(space.settings()[1])
    assert full.extra == {"compilation_config": {"cudagraph_mode": "FULL"}}


def test_names_in_extra_and_env_meet_what_is_pinned_there():
    pinned = VllmEngine(extra={"compilation_config": {"mode": 3}}, env={"A": "1"})
    engine = engine_of(
        pinned, (("extra.compilation_config.cudagraph_mode", "FULL"), ("env.B", "2"))
    )
    assert engine.extra == {"compilation_config": {"mode": 3, "cudagraph_mode": "FULL"}}
    assert engine.env == {"A": "1", "B": "2"}
    assert pinned.extra == {"compilation_config": {"mode": 3}}


def test_a_name_that_is_pinned_is_left_out_with_a_sentence():
    space = space_of(engine=SimEngine(stream_interval=2))
    assert space.names == ("max_num_seqs",)
    assert space.dropped == (
        "tune.space.stream_interval is left out: engine.stream_interval=2 pins it",
    )
    assert all(space.engine(setting).stream_interval == 2 for setting in space.settings())


def test_a_flag_that_this_vllm_does_not_know_is_left_out_with_a_sentence():
    space = space_of(
        {"max_num_seqs": [64], "extra.new_flag": [1], "env.X": ["1"]},
        engine=VllmEngine(),
        of={"flags": frozenset({"--max-num-seqs"})},
    )
    assert space.names == ("max_num_seqs", "env.X")
    assert space.dropped == (
        "tune.space.extra.new_flag is left out: this vLLM has no flag --new-flag",
    )


def test_what_the_simulator_ignores_is_left_out_with_a_sentence():
    space = space_of(
        {
            "max_num_seqs": [64],
            "quantization": ["fp8"],
            "data_parallel_size": [2],
            "extra.compilation_config.cudagraph_mode": ["FULL"],
            "env.X": ["1"],
        },
        of={"flags": flags_with_effect()},
    )
    assert space.names == ("max_num_seqs",)
    assert len(space.dropped) == 4


def test_what_this_machine_cannot_start_is_left_out_and_counted():
    space = space_of(of={"fits": lambda e: "too many" if (e.max_num_seqs or 0) > 64 else None})
    assert space.choices("max_num_seqs") == [None, 64]
    assert space.dropped == ("6 settings are left out: too many",)


def test_the_same_server_is_tried_once():
    space = space_of(
        {"tensor_parallel_size": [1, 2], "replicas": [2]},
        of={"decide": lambda engine: decided(engine, QWEN, 2)},
    )
    assert [setting_text(chosen(setting)) for setting in space.settings()] == [
        "defaults",
        "replicas=2",
        "tensor_parallel_size=1",
        "tensor_parallel_size=2 replicas=2",
    ]


def test_without_a_name_a_setting_is_otherwise_the_same():
    setting = space_of().settings()[-1]
    assert setting_text(chosen(setting)) == "max_num_seqs=256 stream_interval=8"
    assert setting_text(chosen(without(setting, "stream_interval"))) == "max_num_seqs=256"


@pytest.mark.parametrize(
    ("entry", "is_told"),
    [
        ({"max_num_seqs": 300, "stream_interval": 4}, True),
        ({"stream_interval": 4, "max_num_seqs": [300, "128"]}, True),
        ({"max_num_seqs": [64, 300]}, False),
        ({"max_num_seqs": None}, False),
        ({"max_num_seqs": "> 300"}, False),
        ({"max_num_seqs": "< stream_interval"}, False),
        ({"max_num_seqs": 64, "dtype": "float32"}, False),
        ({"max_num_seqs": 64, "enforce_eager": True}, False),
    ],
)
def test_what_forbids_a_value_that_its_axis_does_not_have_is_told(entry, is_told):
    space = space_of({**SPACE, "enforce_eager": None}, forbidden=[entry])
    told = f"forbids nothing: max_num_seqs is one of {VALUES}"
    assert [told in text for text in space.dropped] == [True] * is_told


@pytest.mark.parametrize(
    ("when", "forbidden", "is_tried"),
    [
        ({"max_num_seqs": 64}, [], True),
        ({"max_num_seqs": 300}, [], False),
        ({"max_num_seqs": 64}, [{"stream_interval": [4, 8]}], False),
    ],
)
def test_an_axis_of_which_no_value_is_left_is_told(when, forbidden, is_tried):
    axes = {**SPACE, "stream_interval": {"values": [4, 8], "when": when}}
    space = space_of(axes, forbidden=forbidden)
    assert (space.choices("stream_interval") != [None]) == is_tried
    told = (
        "tune.space.stream_interval is never tried: no setting that is left has a value of it"
        f" (when: {{max_num_seqs: {when['max_num_seqs']}}})"
    )
    assert space.dropped == (() if is_tried else (told,))


@pytest.mark.parametrize(
    ("space", "said", "told"),
    [
        (
            {"max_num_seqs": ["many"]},
            {},
            "tune.space.max_num_seqs=many: must be a whole number",
        ),
        ({"max_num_seqs": [True]}, {}, "tune.space.max_num_seqs=true: must be a whole number"),
        ({"max_num_seqs": [0]}, {}, "must be 1 or more"),
        ({"gpu_memory_utilization": [1.5]}, {}, "must be 1 or less"),
        ({"max_num_sequences": [1]}, {}, "Did you mean 'max_num_seqs'"),
        ({"python": ["a"]}, {}, "there is no engine setting 'python'"),
        ({"max_num_seqs": [1]}, {"forbidden": [{"max_seqs": 1}]}, "Did you mean 'max_num_seqs'"),
        (
            {"max_num_seqs": {"values": [1], "when": {"eager": True}}},
            {},
            "tune when: there is no setting 'eager'",
        ),
        (
            {"max_num_seqs": [1]},
            {"forbidden": [{"max_num_seqs": 1}]},
            "tune.forbidden leaves nothing but the defaults",
        ),
        (
            {"max_num_seqs": {"values": [1], "when": {"max_num_seqs": 2}}},
            {},
            "tune.space.max_num_seqs is never tried",
        ),
        (
            {name: list(range(1, 40)) for name in NAMES},
            {},
            "has 2,560,000 combinations, over 100,000",
        ),
    ],
)
def test_a_space_that_cannot_be_is_one_sentence(space, said, told):
    with pytest.raises(UserError) as caught:
        space_of(space, **said)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_space_of_which_this_machine_can_start_nothing_says_why():
    with pytest.raises(UserError, match=r"nothing but the defaults.*no room"):
        space_of(of={"fits": lambda _: "no room"})


def test_a_thousand_settings_are_made_in_order():
    space = space_of({name: list(range(1, 6)) for name in NAMES})
    assert len(space) == 6**4
    choices = {name: space.choices(name) for name in NAMES}
    places = [[choices[n].index(v) for n, v in setting] for setting in space.settings()]
    assert all(one < two for one, two in pairwise(places))
