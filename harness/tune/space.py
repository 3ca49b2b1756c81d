"""The settings that may be tried: finite, in a fixed order, none that is sure to fail.

The space is the product of the axes without what is forbidden, what this machine cannot start, and
duplicates. An axis whose `when` does not hold is left to vLLM. Settings that are then equal, or
equal once the tensor parallel size is decided, count as one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from math import prod
from typing import Annotated, Any, Self

from pydantic import TypeAdapter, ValidationError

from harness.engines.config import ServeSettings, SimEngine, VllmEngine
from harness.engines.flags import flag_of, knows
from harness.errors import UserError
from harness.grid import copied, leaves, put
from harness.overrides import did_you_mean
from harness.sentences import shown
from harness.tune.condition import hold, is_none_of, names_in
from harness.tune.config import Axis, Tune
from harness.tune.trial import Setting, chosen
from harness.units import value_text
from loadgen.wording import rule_of

Served = VllmEngine | SimEngine
MOST = 100_000  # combinations; more cannot be ranked within seconds
FREE = ("extra.", "env.")  # any name may follow these prefixes
SERVE = tuple(f.name for f in fields(ServeSettings) if f.name != "extra")
OURS = ("replicas",)  # settings of the harness that are not flags of vLLM


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The settings of a search space around a pinned engine.

    `dropped` holds sentences on what was left out and why, and on entries without effect.
    """

    names: tuple[str, ...]
    dropped: tuple[str, ...]
    pinned: Served
    _settings: tuple[Setting, ...] = field(repr=False)

    @classmethod
    def of(
        cls,
        tune: Tune,
        engine: Served,
        *,
        fits: Callable[[Served], str | None] = lambda _: None,
        flags: frozenset[str] | None = None,
        decide: Callable[[Served], Served] = lambda engine: engine,
    ) -> Self:
        """The space of `tune` around `engine`, whose own settings are pinned.

        `fits` says why a setting cannot start here (engines/feasible.obstacle), `flags` are those
        that the server knows (None if that cannot be found out), and `decide` fills in what the
        harness decides itself (engines/parallel.decided). Raises UserError for a value of the wrong
        type, an unknown name, a space that is too large, and one with nothing but the defaults.
        """
        axes = {name: axis for name, axis in tune.space.items() if axis is not None}
        _check_names(tune, axes, engine)
        dropped = []
        for name in list(axes):
            if (why := _needless(name, engine, flags)) is not None:
                dropped.append(f"tune.space.{name} is left out: {why}")
                del axes[name]
        if (size := prod(len(axis.choices) for axis in axes.values())) > MOST:
            raise UserError(
                f"tune.space has {size:,} combinations, over {MOST:,}: take out an axis or values."
            )
        choices = {name: _checked(name, axis, engine) for name, axis in axes.items()}
        dropped += _without_effect(tune.forbidden, choices)
        around = _values_of(engine)
        default = tuple((name, None) for name in axes)
        found = list(_allowed(choices, axes, tune.forbidden, around))
        if found == [default] and any(s != default for s in _allowed(choices, axes, [], around)):
            raise UserError(
                "tune.forbidden leaves nothing but the defaults: take out or narrow an entry."
            )
        settings, told = _startable(found, engine, fits, decide)
        if not [setting for setting in settings if setting != default]:
            never = _never_tried(axes, settings)
            reasons = " ".join(f"{text}." for text in (*dropped, *told, *never))
            raise UserError(f"tune.space holds nothing but the defaults. {reasons}".rstrip())
        return cls(
            names=tuple(axes),
            dropped=(*dropped, *told, *_never_tried(axes, settings)),
            pinned=engine,
            _settings=(default, *(setting for setting in settings if setting != default)),
        )

    @property
    def default(self) -> Setting:
        """The setting with every name left to vLLM."""
        return self._settings[0]

    def settings(self) -> list[Setting]:
        """All settings that are allowed, the defaults first."""
        return list(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def choices(self, name: str) -> list[Any]:
        """The values that a name takes among the allowed settings, the default first."""
        index = self.names.index(name)
        found = dict.fromkeys(setting[index][1] for setting in self._settings)
        return [None, *(value for value in found if value is not None)]

    def engine(self, setting: Setting) -> Served:
        """The pinned engine with the setting's values."""
        return engine_of(self.pinned, setting)


def engine_of(pinned: Served, setting: Setting) -> Served:
    """`pinned` with a setting's values, also in `extra` and `env`; None keeps what is pinned."""
    changed: dict[str, Any] = {}
    for name, value in setting:
        if value is None:
            continue
        group, _, key = name.partition(".")
        if not key:
            changed[name] = value
            continue
        changed.setdefault(group, copied(getattr(pinned, group)))
        put(changed[group], key.split(".") if group == "extra" else [key], value)
    return replace(pinned, **changed) if changed else pinned


def without(setting: Setting, name: str) -> Setting:
    """The setting with one name left to vLLM."""
    return tuple((n, None if n == name else value) for n, value in setting)


def _check_names(tune: Tune, axes: Mapping[str, Axis], engine: Served) -> None:
    for name in axes:
        if name not in SERVE and not (name.startswith(FREE) and name.partition(".")[2]):
            hint = did_you_mean(name, SERVE)
            raise UserError(
                f"tune.space: there is no engine setting '{name}'.{hint} Other flags are"
                " extra.NAME, variables env.NAME."
            )
    known = {*axes, *tune.space, *_values_of(engine)}
    conditions = [("when", axis.when) for axis in axes.values()]
    conditions += [("forbidden", entry) for entry in tune.forbidden]
    for where, condition in conditions:
        for name in names_in(condition):
            if name not in known and not name.startswith(FREE):
                raise UserError(
                    f"tune {where}: there is no setting '{name}'.{did_you_mean(name, known)}"
                )


def _needless(name: str, engine: Served, flags: frozenset[str] | None) -> str | None:
    """Why an axis cannot be searched, or need not be."""
    if name.startswith("env."):
        return None if isinstance(engine, VllmEngine) else "the simulator reads no environment"
    pinned = _values_of(engine).get(name)
    if pinned is not None:
        return f"engine.{name}={value_text(pinned)} pins it"
    if name in OURS or flags is None:
        return None
    flag = flag_of(name.removeprefix("extra."))
    if isinstance(engine, SimEngine):
        return None if flag in flags else "it has no effect on the simulator"
    return None if knows(flags, flag) else f"this vLLM has no flag {flag.partition('.')[0]}"


def _checked(name: str, axis: Axis, engine: Served) -> tuple[Any, ...]:
    """The choices of an axis, each of the type that the engine wants."""
    if name.startswith(FREE):
        return axis.choices
    of_engine: Any = type(engine)
    schema = of_engine.__pydantic_fields__[name]
    annotated: Any = Annotated[schema.annotation, schema]
    adapter: TypeAdapter[Any] = TypeAdapter(annotated)
    checked = []
    for value in axis.choices:
        try:
            checked.append(adapter.validate_python(value, strict=True))
        except ValidationError as error:
            rule = rule_of(error.errors()[0])
            raise UserError(f"tune.space.{name}={shown(value)}: {rule}.") from None
    return tuple(dict.fromkeys(checked))


def _without_effect(
    forbidden: Iterable[dict[str, Any]], choices: Mapping[str, tuple[Any, ...]]
) -> Iterator[str]:
    """Sentences on entries that forbid a value which its axis does not have.

    This is no error: the value may have been removed on purpose, for this kind of machine or on the
    command line.
    """
    for entry in forbidden:
        for name, wanted in entry.items():
            if name in choices and is_none_of(wanted, choices[name]):
                values = ", ".join(map(shown, choices[name]))
                yield f"tune.forbidden {shown(entry)} forbids nothing: {name} is one of {values}"
                break


def _never_tried(axes: Mapping[str, Axis], settings: Sequence[Setting]) -> Iterator[str]:
    """Sentences on axes of which no value is left, e.g. because their condition holds nowhere."""
    tried = {name for setting in settings for name in chosen(setting)}
    for name in [name for name in axes if name not in tried]:
        when = f" (when: {shown(axes[name].when)})" if axes[name].when else ""
        yield f"tune.space.{name} is never tried: no setting that is left has a value of it{when}"


def _values_of(engine: Served) -> dict[str, Any]:
    """The engine's values by the space's names; None for those that are not pinned."""
    named = {name: getattr(engine, name) for name in SERVE}
    return named | dict(leaves(engine.extra, "extra."))


def _allowed(
    choices: Mapping[str, tuple[Any, ...]],
    axes: Mapping[str, Axis],
    forbidden: list[dict[str, Any]],
    around: Mapping[str, Any],
) -> Iterator[Setting]:
    """Each combination that is not forbidden, once, after its conditions were applied."""
    conditional = {name: axis.when for name, axis in axes.items() if axis.when}
    seen: set[Setting] = set()
    for values in product(*choices.values()):
        chosen = dict(zip(choices, values, strict=True))
        _leave_out(chosen, conditional, around)
        setting = tuple(chosen.items())
        if setting in seen:
            continue
        seen.add(setting)
        is_default = all(value is None for value in chosen.values())
        there = {**around, **{n: v for n, v in chosen.items() if v is not None}}
        if is_default or not any(hold(entry, there) for entry in forbidden):
            yield setting


def _leave_out(
    chosen: dict[str, Any], conditional: Mapping[str, dict[str, Any]], around: Mapping[str, Any]
) -> None:
    """Set values whose condition does not hold to None, until all that remain have theirs."""
    while True:
        there = {**around, **{n: v for n, v in chosen.items() if v is not None}}
        idle = [
            name
            for name, when in conditional.items()
            if chosen[name] is not None and not hold(when, there)
        ]
        if not idle:
            return
        chosen |= dict.fromkeys(idle)


def _startable(
    settings: Iterable[Setting],
    pinned: Served,
    fits: Callable[[Served], str | None],
    decide: Callable[[Served], Served],
) -> tuple[list[Setting], list[str]]:
    """The settings that may start here, each server once, and sentences on those that cannot."""
    obstacles: Counter[str] = Counter()
    found: dict[str, Setting] = {}
    for setting in settings:
        try:
            engine = engine_of(pinned, setting)
            why = fits(engine)
        except ValidationError as error:
            why = rule_of(error.errors()[0])
        if why is None:
            found.setdefault(repr(decide(engine)), setting)
        else:
            obstacles[why] += 1
    told = [
        f"{n} setting{'s are' if n > 1 else ' is'} left out: {why}" for why, n in obstacles.items()
    ]
    return list(found.values()), told
