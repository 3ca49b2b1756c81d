"""Values as objects of a schema: pydantic's dataclasses, but true and false are no numbers."""

from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails


def validated(schema: Any, values: Any) -> Any:
    """The values as an object of the schema. Raises ValidationError.

    pydantic takes true for 1 where a number is wanted; here that is an error like any other.
    """
    made = TypeAdapter(schema).validate_python(values)
    if wrong := list(_switches(values, made, ())):
        raise ValidationError.from_exception_data(str(schema), wrong)
    return made


def _switches(given: Any, made: Any, place: tuple[str | int, ...]) -> Iterator[InitErrorDetails]:
    """The places at which true or false was given, and a number made of it."""
    if isinstance(given, bool) and type(made) in (int, float):
        yield InitErrorDetails(type=f"{type(made).__name__}_type", loc=place, input=given)
    elif isinstance(given, dict):
        for name, value in given.items():
            inner = made.get(name) if isinstance(made, dict) else getattr(made, str(name), None)
            yield from _switches(value, inner, (*place, name))
    elif isinstance(given, list) and isinstance(made, list):
        for index, (value, inner) in enumerate(zip(given, made, strict=False)):
            yield from _switches(value, inner, (*place, index))
