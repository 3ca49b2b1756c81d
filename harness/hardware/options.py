"""The settings of `python -m harness validate`, as name=value words."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, get_args

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from harness.errors import UserError
from harness.hardware.families import FAMILIES, Family
from harness.overrides import did_you_mean
from harness.sentences import shown
from loadgen.config import STRICT
from loadgen.wording import rule_of

LISTS = ("probes", "drift")


@dataclass(kw_only=True, config=STRICT)
class Options:
    """What to validate, and how."""

    python: str | None = Field(None, description="interpreter that has PyTorch; default: this one")
    out: str = Field(
        "results", min_length=1, description="results go to OUT/validation/<date>-<id>/"
    )
    probes: list[Family] = Field(
        default_factory=lambda: list(FAMILIES),
        min_length=1,
        description=f"which probes, of {', '.join(get_args(Family))}; default: all",
    )
    seconds: float = Field(60.0, ge=1, le=3600, description="length of the steady-state probe [60]")
    model: str = Field(
        "qwen2.5-7b", description="model whose matrix products gemm measures [qwen2.5-7b]"
    )
    drift: list[str] = Field(
        default_factory=list,
        max_length=2,
        description="A: compare with that validation or study; A,B: compare these two only",
    )
    rehearsal: bool = Field(
        False,
        description="run the GPU programs on the CPU, at tiny sizes: a dry run without numbers",
    )


def documented() -> Iterator[tuple[str, str]]:
    """Every setting with its meaning."""
    for field in fields(Options):
        yield field.name, str(getattr(field.default, "description", ""))


def parse(words: Sequence[str]) -> Options:
    """The options. Raises UserError with every rule that is broken, one per line."""
    values: dict[str, Any] = {}
    known = [field.name for field in fields(Options)]
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UserError(f"validate: '{word}' is not of the form name=value.")
        if name not in known:
            raise UserError(
                f"validate has no setting '{name}'.{did_you_mean(name, known)}"
                " All of them: python -m harness --help validate"
            )
        values[name] = [part for part in text.split(",") if part] if name in LISTS else text
    try:
        return TypeAdapter(Options).validate_python(values)
    except ValidationError as error:
        raise UserError("\n".join(dict.fromkeys(map(_rule, error.errors())))) from None


def _rule(error: Any) -> str:
    return f"{error['loc'][0]}={shown(error['input'])}: {rule_of(error)}"
