"""From command-line words to a checked configuration.

Hydra composes the YAML of conf/ (one file per group, the sweep last), the command line is applied
on top, and pydantic's dataclasses define what is allowed. Everything, including every point of the
grid, is checked before anything starts.

harness/settings.py defines which settings there are, harness/grid.py how lists and cases expand,
and harness/rules.py the rules that involve several settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from harness.conf_files import conf_dirs, options, read
from harness.engines.choice import Choice, choose
from harness.engines.config import Engine
from harness.errors import UserError
from harness.grid import SWEPT, expand, joined_axes, merge, put
from harness.model import Model
from harness.overrides import GROUPS, Words, did_you_mean, not_there
from harness.rules import check
from harness.schemas import validated
from harness.sentences import Origin, sentence, shown
from harness.settings import AXIS, ENGINES, Options, check_names, known_names, names_of
from harness.tune.config import Tune
from loadgen.config import Load
from monitors.config import Monitor
from profiles.config import Profile

GLOBAL = "# @package _global_"
TREES = tuple(group for group in GROUPS if group != "sweep")  # what a sweep's file may change
PLACES = ("on_gpu", "on_cpu", "on_sim")  # a sweep's overlays for kinds of machines
TUNED = "tuned"  # the engine that a tuning writes (harness/tune/answer.py)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A grid: `engines` (outer) x `loads` (inner). A sweep without cases has one without a name."""

    name: str
    engines: tuple[Engine, ...]
    loads: tuple[Load, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A checked configuration."""

    sweep: str
    choice: Choice
    model: Model
    monitor: Monitor
    profile: Profile
    options: Options
    axes: dict[str, list[Any]]
    cases: tuple[Case, ...]
    tune: Tune | None = None  # if tune=NAME was asked for instead of sweep=NAME
    columns_asked: tuple[str, ...] = ()  # on the command line: shown even if empty

    @property
    def engines(self) -> list[Engine]:
        """The engine settings of all cases."""
        return [engine for case in self.cases for engine in case.engines]

    @property
    def loads(self) -> list[Load]:
        """The loads of all cases."""
        return [load for case in self.cases for load in case.loads]


def compose(words: Words, extra_conf_dir: Path | None = None) -> Config:
    """Compose, merge and check. Raises UserError with every broken rule, one per line."""
    folders = conf_dirs(extra_conf_dir)
    choices = {"sweep": "single", "engine": "auto"} | words.choices
    _check_choices(choices, folders)
    _check_tune(words)
    python = words.settings.get("engine.python")
    if not isinstance(python, str | None):
        raise UserError("engine.python names one interpreter: it cannot be an axis.")
    kind = _kind_of(choices["engine"], folders)
    choice = choose(kind, python=python)
    check_names(words.settings, choice, is_chosen=kind == "auto")

    engine = choice.kind if choices["engine"] == kind else choices["engine"]
    tree = _compose_tree(choices | {"engine": engine}, choice.place, folders)
    for name, value in words.settings.items():
        if name.partition(".")[0] not in SWEPT:  # `expand` places those
            parts = 2 if name.startswith(AXIS) else -1  # an axis may be called extra.NAME
            put(tree, name.split(".", parts), value)
    return _checked(tree, words, choices, choice)


def _checked(
    tree: dict[str, Any], words: Words, choices: Mapping[str, str], choice: Choice
) -> Config:
    study = "tune" if "tune" in choices else "sweep"
    origin = Origin(words=words, study=f"{study}/{choices[study]}", kind=choice.kind)
    groups = {group: tree.pop(group, None) or {} for group in TREES}
    cases = tree.pop("cases", None) or {}
    if study == "tune" and cases:
        raise UserError(
            f"{origin.study}.yaml: a tuning has no cases; it tries what tune.space holds."
        )
    options = _build(Options, tree, "", origin)
    grids = expand(groups, cases, options.case, words.settings)
    engine_type: Any = ENGINES[choice.kind]
    config = Config(
        sweep=choices[study] if study == "sweep" else f"tune-{choices[study]}",
        choice=choice,
        model=_build(Model, groups["model"], "model", origin),
        monitor=_build(Monitor, groups["monitor"], "monitor", origin),
        profile=_build(Profile, groups["profile"], "profile", origin),
        options=options,
        axes=joined_axes(grids),
        cases=tuple(
            Case(
                name=grid.case,
                engines=tuple(_build(engine_type, t, "engine", origin) for t in grid.engines),
                loads=tuple(_build(Load, t, "load", origin) for t in grid.loads),
            )
            for grid in grids
        ),
        tune=_build(Tune, groups["tune"], "tune", origin) if study == "tune" else None,
        columns_asked=tuple(options.columns) if "columns" in words.settings else (),
    )
    if config.tune is not None and len(config.engines) != 1:
        raise UserError(
            f"{origin.study}.yaml: a tuning pins one engine; choose from values in tune.space."
        )
    check(config, settings=known_names(engine_type), cases=list(cases))
    return config


def _compose_tree(choices: dict[str, str], place: str, conf_dirs: list[Path]) -> dict[str, Any]:
    """conf/ composed for these choices, with the sweep's overlay for this kind of machine."""
    tree = _hydra_tree(choices, conf_dirs)
    overlay = tree.get(f"on_{place}") or {}
    choosing = {g: v for g, v in overlay.items() if g in GROUPS and isinstance(v, str)}
    if chosen := {group: name for group, name in choosing.items() if group not in choices}:
        _check_choices(chosen, conf_dirs)
        tree = _hydra_tree(choices | chosen, conf_dirs)
    for key in [key for key in tree if key.startswith("on_")]:
        if key not in PLACES:
            what = "tuning" if "tune" in choices else "sweep"
            raise UserError(f"there is no '{key}' in a {what}.{did_you_mean(key, PLACES)}")
        del tree[key]
    there = tree.get("cases") or {}
    for name, case in (overlay.get("cases") or {}).items():
        if case is None and name not in there:
            hint = did_you_mean(str(name), there)
            raise UserError(f"on_{place} takes out the case '{name}', which is not there.{hint}")
    merge(tree, {key: value for key, value in overlay.items() if key not in choosing})
    return tree


def _hydra_tree(choices: dict[str, str], conf_dirs: list[Path]) -> dict[str, Any]:
    model = choices.get("model", "")
    is_file = not model or model in options("model", conf_dirs)
    words = [f"{g}={name}" for g, name in choices.items() if g != "model" or is_file]
    words += [f"hydra.searchpath=['file://{folder.resolve()}']" for folder in conf_dirs[1:]]
    try:
        with initialize_config_dir(str(conf_dirs[0]), version_base="1.3"):
            composed = hydra_compose("config", overrides=words)
            tree: Any = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise UserError(f"the configuration cannot be composed: {_one_line(error)}") from None
    _check_form(tree, "the configuration")
    if not is_file:  # real weights: a folder or a hub id
        tree["model"] = {"name": model.rstrip("/").rpartition("/")[2], "path": model}
    elif not model and (tree.get("engine") or {}).get("kind") == "external":
        # The server decides what it serves.
        tree["model"] = {"name": "external", "path": "external"}
    return dict(tree)


def _check_form(tree: Any, where: Path | str) -> None:
    """Raises UserError if there is something else where settings or branches of them belong."""
    if not isinstance(tree, dict | None):
        raise UserError(f"{where}: it must be names with values: {{NAME: VALUE}}.")
    for name, value in (tree or {}).items():
        if not isinstance(name, str):  # YAML reads on and off as booleans, and 8 as a number
            raise UserError(f"{where}: the name {name} is no text: quote it.")
        if name in (*TREES, "cases", *PLACES) and not isinstance(value, dict | None):
            raise UserError(
                f"{where}: {name}={shown(value)}: must be names with values: {{NAME: VALUE}}"
            )
        if name in PLACES and value:  # there a group may also be chosen by its name
            choosing = [key for key in value if key in GROUPS and isinstance(value[key], str)]
            inner = {key: value[key] for key in value if key not in choosing}
            _check_form(inner, f"{where}: {name}")


def _check_choices(choices: Mapping[str, str], conf_dirs: Sequence[Path]) -> None:
    for group, name in choices.items():
        known = ["auto"] if group == "engine" else []
        known += options(group, conf_dirs)
        if len(homes := [d for d in conf_dirs if (d / group / f"{name}.yaml").is_file()]) > 1:
            raise UserError(
                f"{group} '{name}' comes with the harness: rename the one in {homes[-1]}."
            )
        if (path := options(group, conf_dirs).get(name)) is not None:
            _check_form(read(path), path)
            if group in ("sweep", "tune") and not path.read_text().startswith(GLOBAL):
                what = "tuning" if group == "tune" else group
                raise UserError(f"{path}: a {what}'s first line must be '{GLOBAL}'.")
        is_folder = name.startswith(("/", ".", "~"))
        if group == "model" and is_folder and not (Path(name) / "config.json").is_file():
            lacks = "config.json in that folder" if Path(name).is_dir() else "such folder"
            raise UserError(f"model={name}: there is no {lacks}.")
        is_weights = group == "model" and name and ("/" in name or Path(name).exists())
        if name in known or is_weights:
            continue
        also = ""
        if group == "model":
            also = ", or a folder with weights, or a hub id like Qwen/Qwen3-8B"
        elif (group, name) == ("engine", TUNED):
            also = "; a tuning's is found with --config-dir STUDY/conf before all else"
        raise not_there(group, name, known, also)


def _kind_of(engine: str, conf_dirs: Sequence[Path]) -> str:
    """The kind of engine (vllm, sim or external) that an engine's YAML is for."""
    if engine in ("auto", *ENGINES):
        return engine
    path = options("engine", conf_dirs)[engine]
    kind = (read(path) or {}).get("kind")
    if kind not in tuple(ENGINES):  # it may be anything
        raise UserError(f"{path}: an engine says its kind: {', '.join(ENGINES)}.")
    return str(kind)


def _check_tune(words: Words) -> None:
    """Raises UserError for words that do not fit a tuning, or that need one.

    A tuning takes the place of a sweep, and chooses the engine's settings itself.
    """
    name = words.choices.get("tune")
    if name is None:
        if said := [setting for setting in words.settings if setting.startswith("tune.")]:
            raise UserError(f"{said[0]} is for a tuning: name one, tune=NAME.")
        return
    if (sweep := words.choices.get("sweep")) is not None:
        raise UserError(f"tune={name} and sweep={sweep} are two commands: take one.")
    if "against" in words.settings:
        raise UserError("against= is for sweeps: a tuning compares with the defaults by itself.")
    if words.settings.get("case") is not None:
        raise UserError("case= is for sweeps: a tuning has no cases.")
    if words.choices.get("engine") == "external":
        raise UserError(f"tune={name} starts servers of its own: engine=external has none.")
    for setting, value in words.settings.items():
        if setting.startswith("engine.") and isinstance(value, list):
            leaf = setting.removeprefix("engine.")
            raise UserError(
                f"{setting}: under tune= an engine setting has one value, which pins it; values to"
                f" choose from are {AXIS}{leaf}=[{','.join(map(str, value))}]."
            )


def _build(cls: type[T], values: dict[str, Any], group: str, origin: Origin) -> T:
    try:
        made: T = validated(cls, values)
    except ValidationError as error:
        known = [*names_of(cls, f"{group}." if group else "")]
        lines = [sentence(each, group, known, origin) for each in error.errors()]
        raise UserError("\n".join(dict.fromkeys(lines))) from None
    return made


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
