"""Reads a comparison from the JSON that `compare` wrote."""

from pathlib import Path

from harness.errors import UserError
from harness.guard.outcome import Comparison


def from_json(text: str) -> Comparison:
    """The comparison in a JSON text. Raises ValueError if the text is not one."""
    from pydantic import TypeAdapter

    comparison: Comparison = TypeAdapter(Comparison).validate_json(text)
    return comparison


def read(path: Path) -> Comparison:
    """The comparison in a file. Raises UserError."""
    try:
        return from_json(path.read_text())
    except OSError as error:
        raise UserError(f"comparison={path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise UserError(f"comparison={path}: is no comparison: {_why(error)}") from None


def _why(error: ValueError) -> str:
    """The first broken rule; a file that is not a comparison breaks many."""
    from pydantic import ValidationError

    from harness.guard.config import broken

    return broken(error)[0] if isinstance(error, ValidationError) else "it is no text."
