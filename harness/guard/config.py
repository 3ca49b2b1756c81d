"""How a comparison is judged: `conf/guard/NAME.yaml`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from harness.conf_files import conf_dirs, options, read
from harness.direction import better
from harness.errors import UserError
from harness.grid import put
from harness.overrides import did_you_mean
from harness.schemas import validated
from harness.sentences import shown
from loadgen.config import STRICT
from loadgen.wording import rule_of


@dataclass(kw_only=True, config=STRICT)
class Guard:
    """Thresholds, error rate and launch budget."""

    alpha: float = Field(gt=0, lt=0.5, description="family-wise chance of a wrong verdict")
    first_look: int = Field(3, ge=2, description="launches per side before the first verdict")
    max_launches: int = Field(ge=2, description="maximum launches per side")
    metrics: list[str] = Field(min_length=1, description="columns to compare")
    thresholds_frac: dict[str, float] = Field(description="column -> smallest change that matters")

    @model_validator(mode="after")
    def _every_metric_has_a_threshold(self) -> "Guard":
        for metric in self.metrics:
            if metric not in self.thresholds_frac:
                hint = did_you_mean(metric, self.thresholds_frac)
                raise ValueError(f"metric '{metric}' has no threshold in thresholds_frac.{hint}")
            if better(metric) is None:
                raise ValueError(f"metric '{metric}' is better neither high nor low: leave it out")
        for metric, frac in self.thresholds_frac.items():
            if not 0 < frac < 1:
                raise ValueError(f"thresholds_frac.{metric}={frac}: must be above 0 and below 1")
        return self


def read_guard(
    name: str, changes: Mapping[str, Any] | None = None, extra_conf_dir: Path | None = None
) -> Guard:
    """A file of guard/ by its name, or any file by its path. Raises UserError.

    `changes` are settings from the command line, by dotted name below `guard`.
    """
    path, tree = read_yaml("guard", name, extra_conf_dir)
    guard: Guard = checked(Guard, tree, path)
    if changes:
        for setting, value in changes.items():
            put(tree, setting.split("."), value)
        guard = checked(Guard, tree, "guard on the command line")
    return guard


def read_yaml(group: str, name: str, extra_conf_dir: Path | None) -> tuple[Path, Any]:
    """Path and tree of GROUP/NAME.yaml, or of the file NAME. Raises UserError.

    A file in the user's own folder has precedence over one in conf/.
    """
    known = options(group, conf_dirs(extra_conf_dir))
    path = known.get(name, Path(name))
    if name not in known and not path.is_file():
        hint = did_you_mean(name, known)
        raise UserError(
            f"{group}={name}: there is no such file.{hint} By name there are: {', '.join(known)}."
        )
    return path, read(path)


def checked(schema: Any, tree: Any, where: Path | str) -> Any:
    """The tree as an object of the schema. Raises UserError with every rule it breaks."""
    try:
        return validated(schema, tree)
    except ValidationError as error:
        told = [f"{where}: {rule}" for rule in broken(error)]
        raise UserError("\n".join(told)) from None


def broken(error: ValidationError) -> list[str]:
    """One sentence for each rule that is broken, in our own words and naming the key."""
    return list(dict.fromkeys(_rule(one) for one in error.errors()))


def _rule(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"'{name}' is missing."
        case "unexpected_keyword_argument":
            return f"there is no key '{name}'."
        case "value_error":
            return f"{name}: {rule_of(error)}" if name else rule_of(error)
    return f"{name}={shown(error['input'])}: {rule_of(error)}." if name else f"it {rule_of(error)}."
