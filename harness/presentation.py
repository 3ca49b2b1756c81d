"""How a sweep is presented: the plots that its YAML asks for."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from loadgen.config import STRICT


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, str | list):
        raise ValueError("must be a name, or a list of names: [a, b]")
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_listed)]


@dataclass(kw_only=True, config=STRICT)
class Plot:
    """Columns `y` against column `x`, one panel each, with a line for each value of `by`."""

    x: str = Field(description="column on the x axis")
    y: Names = Field(min_length=1, description="columns to plot, one panel each")
    by: str | None = Field(None, description="column with one line per value")
    cases: Names | None = Field(None, description="only these cases")
    log_x: bool = False
    log_y: bool = False

    def columns(self) -> Iterator[str]:
        """Every column that the plot names."""
        yield from (self.x, *self.y, *([self.by] if self.by else []))
