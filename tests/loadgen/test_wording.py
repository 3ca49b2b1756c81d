import pytest
from pydantic import TypeAdapter, ValidationError

from loadgen.config import Load
from loadgen.wording import rule_of


def test_a_rule_is_said_in_words_for_people() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Load).validate_python({"arrival": "closed", "concurrency": 0})
    assert [rule_of(error) for error in caught.value.errors()] == ["must be 1 or more"]


def test_an_error_that_has_no_words_of_ours_keeps_pydantics() -> None:
    error = {"type": "new", "input": 1, "msg": "Input should be new"}
    assert rule_of(error) == "must be new"
