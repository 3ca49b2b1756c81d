import pytest
from pydantic import ValidationError

from profiles.config import Profile


def test_nothing_is_profiled_unless_asked_for():
    assert Profile().kind == "none"


@pytest.mark.parametrize("points", ["all", "knee", "max_num_seqs=64", "engine.max_num_seqs=64,b=1"])
def test_points_are_a_word_or_a_filter(points):
    assert Profile(kind="nsys", points=points).points == points


@pytest.mark.parametrize(
    "fields",
    [{"points": "fastest"}, {"points": "a="}, {"points": "a=1,"}, {"seconds": 0}, {"kind": "ncu"}],
)
def test_what_cannot_be_meant_is_refused(fields):
    with pytest.raises(ValidationError):
        Profile(**fields)
