"""Every setting there is: the schema of each group, and what can be said of a name.

A group's schema lies with what it configures; what belongs to no group is here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field
from pydantic.dataclasses import dataclass as schema
from pydantic.fields import FieldInfo

from harness.checks.config import Checks
from harness.engines.choice import Choice
from harness.engines.config import ExternalEngine, SimEngine, VllmEngine
from harness.errors import UserError
from harness.model import Model
from harness.overrides import GROUPS, did_you_mean
from harness.presentation import Names, Plot
from harness.tune.config import Tune
from harness.units import value_text
from loadgen.config import STRICT, Client, Load, Slo
from monitors.config import Monitor
from profiles.config import Profile

ENGINES: dict[str, type] = {"vllm": VllmEngine, "sim": SimEngine, "external": ExternalEngine}
SCHEMAS: dict[str, type] = {
    "model": Model,
    "load": Load,
    "monitor": Monitor,
    "profile": Profile,
    "tune": Tune,
}
AXIS = "tune.space."


@schema(kw_only=True, config=STRICT)
class Repeats:
    """How often each point is measured."""

    launches: int = Field(1, ge=1, description="server starts per engine setting")
    runs: int = Field(1, ge=1, description="measurements per point within one launch")


@schema(kw_only=True, config=STRICT)
class Options:
    """What belongs to no group."""

    repeats: Repeats = Field(default_factory=lambda: Repeats(launches=1, runs=1))
    client: Client = Field(default_factory=Client)
    case: Names | None = Field(None, description="which of the sweep's cases to run [all]")
    checks: Checks = Field(default_factory=Checks)
    slo: Slo = Field(default_factory=Slo)
    columns: Names = Field(
        default_factory=list, description="columns of table.md besides the axes [the usual ones]"
    )
    plots: dict[Annotated[str, Field(pattern=r"^[\w.-]+$")], Plot] = Field(
        default_factory=dict, description="plots/NAME.png: x, y, by, cases, log_x, log_y"
    )
    order: Literal["listed", "shuffled"] = Field(
        "listed", description="order of launches and runs: listed or shuffled"
    )
    seed: int = Field(0, ge=0, description="seed of all random draws")
    out: str = Field("results", min_length=1, description="studies go to OUT/<sweep>/<study>/")
    plan: bool = Field(False, description="only print what would run")
    fresh: bool = Field(False, description="measure again even if the study is complete")
    retry: bool = Field(False, description="rerun the study's failed runs and checks")


def documented_settings() -> Iterator[tuple[str, str]]:
    """Every setting of every engine by its dotted name, with its meaning and default."""
    parts: list[tuple[str, Any]] = [*(("engine.", cls) for cls in ENGINES.values())]
    parts += [*((f"{group}.", cls) for group, cls in SCHEMAS.items()), ("", Options)]
    told = set()
    for prefix, cls in parts:
        for name, field in _fields(cls, prefix):
            if name not in told and field.description:
                told.add(name)
                default = field.get_default(call_default_factory=True)
                default = getattr(default, "kind", default)
                is_bare = field.is_required() or is_dataclass(default)
                shown = "" if is_bare or default in (None, {}, []) else f" [{value_text(default)}]"
                yield name, field.description + shown


def known_names(engine: type) -> list[str]:
    """Every setting by its dotted name, with those of one engine."""
    groups = {"engine": engine} | SCHEMAS
    return [*names_of(Options, ""), *(n for g, c in groups.items() for n in names_of(c, f"{g}."))]


def check_names(settings: Mapping[str, Any], choice: Choice, *, is_chosen: bool) -> None:
    """Raises UserError for a name that is no setting, with this engine; `is_chosen`: the engine was
    chosen for this machine, not asked for."""
    known = known_names(ENGINES[choice.kind])
    free = ("engine.extra.", "engine.env.", "plots.", AXIS)  # names are the user's
    known = [name for name in known if name != "engine.kind"]  # chosen by engine=, not set
    elsewhere: dict[str, list[str]] = {}
    for kind, other in ENGINES.items():
        for name in names_of(other, "engine."):
            elsewhere.setdefault(name, []).append(kind)
    for name in settings:
        home = _home(name) if name.startswith(free) else name
        if name in known or home in known:
            continue
        if home in elsewhere:
            why = f" Here engine=auto is {choice.kind}: {choice.why}." if is_chosen else ""
            raise UserError(
                f"'{home}' exists for engine={' and '.join(elsewhere[home])} only.{why}"
            )
        raise UserError(
            f"there is no setting '{name}'.{did_you_mean(name, [*known, *elsewhere, *GROUPS])}"
            " All settings: python -m harness --help settings"
        )


def _home(name: str) -> str:
    """Where a name of the user's lies: tune.space of tune.space.extra.NAME."""
    return AXIS[:-1] if name.startswith(AXIS) else name.rsplit(".", 1)[0]


def names_of(node: Any, prefix: str) -> Iterator[str]:
    """Every setting of a schema by its dotted name."""
    return (name for name, _ in _fields(node, prefix))


def _fields(node: Any, prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in node.__pydantic_fields__.items():
        yield f"{prefix}{name}", field
        for nested in _dataclasses_in(field.annotation):
            yield from _fields(nested, f"{prefix}{name}.")


def _dataclasses_in(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and is_dataclass(annotation):
        yield annotation
    elif get_origin(annotation) is not dict:
        for argument in get_args(annotation):
            yield from _dataclasses_in(argument)
