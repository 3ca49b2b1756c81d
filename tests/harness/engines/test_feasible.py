import pytest

from harness.engines.config import ExternalEngine, SimEngine, VllmEngine
from harness.engines.feasible import obstacle
from monitors.nvml import Gpu
from tests.harness.engines.test_parallel import model

SHAPE = model(heads=8, kv_heads=4)
FLAGS = frozenset({"--tensor-parallel-size", "--max-num-seqs", "--seed", "--dtype"})


def gpus(number, name="NVIDIA H200", compute_capability=(9, 0)):
    return [
        Gpu(
            index=index,
            uuid=f"GPU-{index}",
            name=name,
            memory_total_bytes=1,
            power_limit_w=None,
            sm_clock_max_hz=None,
            memory_clock_max_hz=None,
            ecc=None,
            compute_capability=compute_capability,
        )
        for index in range(number)
    ]


def told(*, number=2, capability=(9, 0), flags=None, **settings):
    engine = VllmEngine(**({"tensor_parallel_size": 1} | settings))
    cards = gpus(number, "a card", capability)
    return obstacle(engine, SHAPE, cards, flags)


@pytest.mark.parametrize(
    "settings",
    [
        {"tensor_parallel_size": 2},
        {"data_parallel_size": 2},
        {"replicas": 2},
        {"quantization": "fp8", "kv_cache_dtype": "fp8", "dtype": "bfloat16"},
        {"quantization": "something new"},
    ],
)
def test_what_the_machine_has_is_no_obstacle(settings):
    assert told(**settings) is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"tensor_parallel_size": 4},
            "engine.tensor_parallel_size=4 wants 4 GPUs, and 2 GPUs are here",
        ),
        ({"data_parallel_size": 3}, "engine.data_parallel_size=3 wants 3 GPUs, and 2 GPUs are"),
        (
            {"tensor_parallel_size": 2, "replicas": 2},
            "engine.tensor_parallel_size=2 times engine.replicas=2 wants 4 GPUs",
        ),
    ],
)
def test_more_gpus_than_there_are_is_an_obstacle(settings, sentence):
    assert sentence in told(**settings)
    assert told(number=4, **settings) is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"replicas": 1000},
            "engine.replicas=1000 wants 1000 GPUs, and the simulator imitates a machine with 2",
        ),
        (
            {"tensor_parallel_size": 2, "replicas": 2},
            "engine.tensor_parallel_size=2 times engine.replicas=2 wants 4 GPUs",
        ),
    ],
)
def test_a_simulator_has_no_more_gpus_than_the_machine_that_it_imitates(settings, sentence):
    assert sentence in obstacle(SimEngine(**settings), SHAPE, [], None)
    assert obstacle(SimEngine(replicas=2), SHAPE, [], None) is None


def test_a_cpu_is_not_counted():
    assert told(number=0, tensor_parallel_size=2) is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dtype": "int4"}, "refuses argument --dtype: invalid choice: 'int4' (choose from"),
        ({"kv_cache_dtype": "int4"}, "refuses argument --kv-cache-dtype: invalid choice: 'int4'"),
        ({"extra": {"cpu_slowdown": 0}}, "refuses argument --cpu-slowdown: must be a number above"),
        ({"extra": {"cpu_slowdown": "x"}}, "refuses argument --cpu-slowdown: invalid factor value"),
        ({"extra": {"no_such_flag": 1}}, "refuses unrecognized arguments: --no-such-flag 1"),
        ({"extra": {"help": True}}, "refuses unrecognized arguments: --help"),
    ],
)
def test_what_the_simulator_refuses_is_an_obstacle(settings, sentence):
    told = obstacle(SimEngine(**settings), SHAPE, [], None)
    assert f"the simulator {sentence}" in told
    assert "vllm serve" not in told


def test_what_the_simulator_takes_is_no_obstacle():
    taken = {"dtype": "half", "kv_cache_dtype": "fp8", "max_num_seqs": 8, "enforce_eager": True}
    extra = {"cpu_slowdown": 1.35, "fault": "die_at_start", "hf_overrides": {"a": 1}}
    assert obstacle(SimEngine(**taken, extra=extra), SHAPE, [], None) is None


@pytest.mark.parametrize("kind", [VllmEngine, SimEngine])
def test_heads_that_cannot_be_spread_are_an_obstacle(kind):
    engine = kind(tensor_parallel_size=3)
    told = obstacle(engine, SHAPE, [], None)
    assert told is not None
    assert told.startswith(
        "engine.tensor_parallel_size=3: the heads of m cannot be spread over 3 GPUs, over 2 they"
        " can"
    )


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({"quantization": "fp8"}, (7, 5)),
        ({"quantization": "modelopt"}, (8, 9)),
        ({"kv_cache_dtype": "fp8"}, (8, 0)),
        ({"kv_cache_dtype": "fp8_e5m2"}, (8, 0)),
        ({"dtype": "bfloat16"}, (8, 0)),
    ],
)
def test_a_gpu_that_lacks_a_number_format_is_an_obstacle(settings, least):
    below = (least[0], least[1] - 1) if least[1] else (least[0] - 1, 9)
    ((name, value),) = settings.items()
    assert told(capability=least, **settings) is None
    assert told(capability=below, **settings) == (
        f"engine.{name}={value} wants compute capability {least[0]}.{least[1]}, and a card has"
        f" {below[0]}.{below[1]}"
    )


def test_a_gpu_that_does_not_say_what_it_can_is_none():
    assert told(capability=None, dtype="bfloat16", quantization="fp8") is None


def test_only_the_gpus_that_are_taken_count():
    cards = [*gpus(1), *gpus(1, "an old card", (7, 0))]
    one = VllmEngine(tensor_parallel_size=1, dtype="bfloat16")
    two = VllmEngine(tensor_parallel_size=2, dtype="bfloat16")
    assert obstacle(one, SHAPE, cards, None) is None
    assert "an old card has 7.0" in obstacle(two, SHAPE, cards, None)


def test_a_flag_that_this_vllm_does_not_know_is_an_obstacle():
    assert told(flags=FLAGS, extra={"seed": 1}) is None
    assert told(flags=FLAGS, extra={"sead": 1}) == (
        "engine.extra.sead: this vLLM has no flag --sead (did you mean --seed?)"
    )
    assert told(flags=FLAGS, stream_interval=2) == (
        "engine.stream_interval: this vLLM has no flag --stream-interval"
    )


def test_what_is_left_to_vllm_needs_no_flag():
    assert told(flags=FLAGS, stream_interval=None, extra={"sead": None}) is None


def test_flags_that_could_not_be_read_are_left_to_vllm():
    assert told(flags=None, extra={"no_such": 1}) is None


def test_all_obstacles_are_told():
    text = told(flags=FLAGS, extra={"x": 1}, tensor_parallel_size=4)
    assert "wants 4 GPUs" in text
    assert "no flag --x" in text


def test_of_a_server_that_somebody_else_runs_nothing_is_known():
    assert obstacle(ExternalEngine(url="http://a"), SHAPE, [], FLAGS) is None


@pytest.mark.parametrize("name", ["max_num_seqs", "max-num-seqs", "port", "tensor_parallel_size"])
def test_a_flag_that_is_a_setting_of_its_own_is_not_extra(name):
    """The server would obey the flag, and the row would show the setting."""
    with pytest.raises(ValueError, match=f"extra.{name}: say engine.{name.replace('-', '_')}"):
        VllmEngine(extra={name: 2})
