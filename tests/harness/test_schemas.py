from dataclasses import field

import pytest
from pydantic import ValidationError
from pydantic.dataclasses import dataclass

from harness.schemas import validated


@dataclass(kw_only=True)
class Inner:
    number: float = 0.5
    switch: bool = False


@dataclass(kw_only=True)
class Outer:
    count: int | None = None
    inner: Inner = field(default_factory=Inner)
    numbers: list[float] = field(default_factory=list)
    by_name: dict[str, int | Inner] = field(default_factory=dict)
    free: dict[str, object] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("values", "place", "kind"),
    [
        ({"count": True}, ("count",), "int_type"),
        ({"inner": {"number": False}}, ("inner", "number"), "float_type"),
        ({"numbers": [1, True]}, ("numbers", 1), "float_type"),
        ({"by_name": {"a": {}, "b": True}}, ("by_name", "b"), "int_type"),
    ],
)
def test_a_switch_is_no_number(values: object, place: tuple[str | int, ...], kind: str) -> None:
    with pytest.raises(ValidationError) as caught:
        validated(Outer, values)
    (error,) = caught.value.errors()
    assert (error["loc"], error["type"]) == (place, kind)


def test_all_else_is_as_pydantic_takes_it() -> None:
    values = {
        "count": "8",
        "inner": {"number": 1, "switch": True},
        "numbers": ["0.5"],
        "free": {"a": True},
    }
    made = validated(Outer, values)
    assert made == Outer(
        count=8, inner=Inner(number=1.0, switch=True), numbers=[0.5], free={"a": True}
    )
