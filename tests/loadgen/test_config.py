from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from loadgen.config import Load, LogNormal, Uniform

CLOSED = {"arrival": "closed", "concurrency": 4}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arrival": "closed"}, "concurrency is required for a closed loop"),
        ({"arrival": "poisson"}, "rate_rps is required for poisson arrivals"),
        (CLOSED | {"rate_rps": 1.0}, "rate_rps is for poisson arrivals"),
        ({"arrival": "poisson", "rate_rps": 1.0, "concurrency": 2}, "is for a closed loop"),
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
    ],
)
def test_a_load_that_makes_no_sense_is_refused_in_one_sentence(fields, message):
    with pytest.raises(ValidationError, match=message) as caught:
        TypeAdapter(Load).validate_python(fields)
    assert caught.value.error_count() == 1


def test_lengths_are_a_number_or_one_of_two_distributions():
    lengths = {"dist": "lognormal", "median": 100, "sigma": 0.5, "max": 200}
    load = Load(
        **CLOSED, input_tokens={"dist": "uniform", "min": 1, "max": 3}, output_tokens=lengths
    )
    assert isinstance(load.input_tokens, Uniform)
    assert isinstance(load.output_tokens, LogNormal)
    assert Load(**CLOSED).input_tokens == 512


@pytest.mark.parametrize("name", ["closed", "poisson"])
def test_the_loads_of_the_configuration_are_loads(name):
    path = Path(__file__).parents[2] / "conf/load" / f"{name}.yaml"
    load = TypeAdapter(Load).validate_python(yaml.safe_load(path.read_text()))
    assert load.arrival == name
