"""What a comparison is judged by: `conf/guard/NAME.yaml`."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from harness.conf_files import conf_dir, options
from harness.errors import UserError
from harness.overrides import did_you_mean

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(kw_only=True, config=STRICT)
class Guard:
    """Thresholds, error rate and budget."""

    alpha: float = Field(gt=0, lt=0.5, description="family-wise chance of a wrong verdict")
    max_launches: int = Field(ge=2, description="launches of each side, at most")
    metrics: list[str] = Field(min_length=1, description="columns that are compared")
    thresholds_frac: dict[str, float] = Field(description="column -> change that matters")

    @model_validator(mode="after")
    def _every_metric_has_a_threshold(self) -> "Guard":
        for metric in self.metrics:
            if metric not in self.thresholds_frac:
                hint = did_you_mean(metric, self.thresholds_frac)
                raise ValueError(f"metric '{metric}' has no threshold in thresholds_frac.{hint}")
        for metric, frac in self.thresholds_frac.items():
            if not 0 < frac < 1:
                raise ValueError(f"thresholds_frac.{metric}={frac}: must be above 0 and below 1")
        return self


def higher_is_better(metric: str) -> bool:
    """Rates are to be high; times and joules are to be low."""
    return metric.endswith("_per_s")


def read_guard(name: str) -> Guard:
    """A file of conf/guard/ by its name, or any file by its path. Raises UserError."""
    path, tree = read_yaml("guard", name)
    guard: Guard = checked(Guard, tree, path)
    return guard


def read_yaml(group: str, name: str) -> tuple[Path, Any]:
    """The tree of conf/GROUP/NAME.yaml, or of the file NAME. Raises UserError."""
    known = options(group, [conf_dir()])
    path = known.get(name, Path(name))
    if name not in known and not path.is_file():
        hint = did_you_mean(name, known)
        raise UserError(
            f"{group}={name}: there is no such file.{hint} By name there are: {', '.join(known)}."
        )
    try:
        return path, yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def checked(schema: Any, tree: Any, where: Path | str) -> Any:
    """The tree as an object of the schema. Raises UserError with every rule that is broken."""
    try:
        return TypeAdapter(schema).validate_python(tree)
    except ValidationError as error:
        rules = []
        for rule in error.errors():
            name = ".".join(str(part) for part in rule["loc"])
            message = rule["msg"].removeprefix("Value error, ")
            rules.append(f"{where}: {name + ': ' if name else ''}{message}")
        raise UserError("\n".join(dict.fromkeys(rules))) from None
