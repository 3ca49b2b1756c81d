"""A comparison as `compare` wrote it in JSON, read again."""

from pathlib import Path

from harness.errors import UserError
from harness.guard.outcome import Comparison


def from_json(text: str) -> Comparison:
    """Raises ValueError for what is no comparison."""
    from pydantic import TypeAdapter

    comparison: Comparison = TypeAdapter(Comparison).validate_json(text)
    return comparison


def read(path: Path) -> Comparison:
    """A comparison's file. Raises UserError."""
    try:
        return from_json(path.read_text())
    except OSError as error:
        raise UserError(f"comparison={path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise UserError(f"comparison={path}: is no comparison: {_why(error)}") from None


def _why(error: ValueError) -> str:
    """The first of the rules that it breaks: what is no comparison breaks many."""
    from pydantic import ValidationError

    from harness.guard.config import broken

    return broken(error)[0] if isinstance(error, ValidationError) else "it is no text."
