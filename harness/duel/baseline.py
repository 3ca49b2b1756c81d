"""The configuration meant by `against=BASELINE`: the defaults, or that of an earlier study.

Either way it is measured anew.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.config import Case, Config, compose
from harness.engines.choice import choose
from harness.engines.config import Engine, SimEngine
from harness.environment import MASK
from harness.errors import UserError
from harness.guard.config import broken
from harness.guard.evidence import engine_settings
from harness.identity import OPERATIONAL
from harness.overrides import Words
from harness.settings import ENGINES
from harness.study import SavedRun, Study
from loadgen.config import Load

DEFAULTS, AUTO = "defaults", "auto"
# How a server is run, and which GPU the simulator imitates, are not settings to be compared.
KEPT = tuple(f"engine.{name}" for name in (*OPERATIONAL, "gpu"))


def baseline_of(
    against: str,
    words: Words,
    candidate: Config,
    *,
    allow: Collection[str] = (),
    extra_conf_dir: Path | None = None,
) -> Config:
    """The baseline's configuration. Raises UserError if it is unavailable or not comparable."""
    if against == DEFAULTS:
        return _defaults(words, candidate, extra_conf_dir)
    if not Path(against).exists():
        raise UserError(
            f"against={against}: there is no such study; against={DEFAULTS} is the same command"
            " without its engine settings."
        )
    study = Study(Path(against))
    about, runs = study.about, list(study.runs())
    if not runs:
        raise UserError(f"against={against}: no run of it is there to say what it measured.")
    runs.sort(key=lambda run: run.record.get("place") or [0, 0, 0])
    if about.get("model") != json.loads(json.dumps(asdict(candidate.model))):
        theirs, ours = (about.get("model") or {}).get("name"), candidate.model.name
        told = f"{theirs}, and this is {ours}" if theirs != ours else f"another {ours}"
        raise UserError(f"against={against}: its model is {told}: speeds cannot be compared.")
    engines = [_engine(run.record["engine"], against, candidate) for run in runs]
    _check_kind(engines, against, candidate, allow)
    pythons = {getattr(engine, "python", None) for engine in engines}
    return replace(
        candidate,
        choice=choose(engines[0].kind, python=pythons.pop()),
        axes=about["axes"],
        cases=tuple(_cases(runs, engines, against)),
    )


def _defaults(words: Words, candidate: Config, extra_conf_dir: Path | None) -> Config:
    if candidate.choice.kind == "external":
        raise UserError(
            f"against={DEFAULTS}: a server that somebody else runs has no defaults here; name a"
            " study of the other one."
        )
    settings = {
        name: value
        for name, value in words.settings.items()
        if not name.startswith("engine.") or name in KEPT
    }
    choices = dict(words.choices)
    if choices.get("engine", AUTO) not in (AUTO, *ENGINES):  # a file with settings: engine=tuned
        choices["engine"] = candidate.choice.kind
        settings = _kept(candidate.engines[0]) | settings
    return compose(Words(choices=choices, settings=settings), extra_conf_dir)


def _kept(engine: Engine) -> dict[str, Any]:
    """How a server is run and which GPU is imitated, as settings of the command line."""
    found = {name: getattr(engine, name.removeprefix("engine."), None) for name in KEPT}
    return {name: value for name, value in found.items() if value is not None}


def _cases(runs: Sequence[SavedRun], engines: Sequence[Engine], against: str) -> list[Case]:
    """The study's cases, reconstructed from its runs."""
    found: dict[str, tuple[dict[str, Engine], dict[str, Load]]] = {}
    for run, engine in zip(runs, engines, strict=True):
        mine, loads = found.setdefault(run.record.get("case") or "", ({}, {}))
        mine[json.dumps(engine_settings(run.record["engine"]), sort_keys=True)] = engine
        # At a share of the capacity, each launch found its own rate, so its loads are its own.
        load = run.asked_load
        if load.get("rate_frac") is None:
            loads[json.dumps(load, sort_keys=True)] = _load(load, against)
    return [
        Case(name=name, engines=tuple(mine.values()), loads=tuple(loads.values()))
        for name, (mine, loads) in found.items()
    ]


def _engine(stored: dict[str, Any], against: str, candidate: Config) -> Engine:
    """An engine as a run stored it; masked variables take the candidate's value of that name."""
    env = dict(stored.get("env") or {})
    given = {n: v for e in candidate.engines for n, v in getattr(e, "env", {}).items()}
    for name in [name for name, value in env.items() if value == MASK]:
        if name not in given:
            raise UserError(
                f"against={against}: engine.env.{name} is masked in its files: set"
                f" engine.env.{name}=... here, for both sides."
            )
        env[name] = given[name]
    settings = stored | ({"env": env} if env else {})
    engine: Engine = _read(ENGINES.get(stored["kind"]), settings, against, "engine")
    return engine


def _load(stored: dict[str, Any], against: str) -> Load:
    load: Load = _read(Load, stored, against, "load")
    return load


def _read(schema: Any, stored: dict[str, Any], against: str, part: str) -> Any:
    try:
        return TypeAdapter(schema).validate_python(stored)
    except ValidationError as error:
        raise UserError(
            f"against={against}: its {part} cannot be set here: {broken(error)[0]}"
        ) from None


def _check_kind(
    engines: Sequence[Engine], against: str, candidate: Config, allow: Collection[str]
) -> None:
    """Refuse now what the comparison would refuse after everything was measured."""
    kinds = (engines[0].kind, candidate.choice.kind)
    if kinds[0] != kinds[1] and "sim" in kinds:
        words = ["simulated" if kind == "sim" else "measured" for kind in kinds]
        raise UserError(f"against={against}: it was {words[0]}, and this is {words[1]}.")
    mine, theirs = (
        sorted({engine.gpu for engine in side if isinstance(engine, SimEngine)})
        for side in (engines, candidate.engines)
    )
    if mine != theirs and "imitated_gpu" not in allow:
        raise UserError(
            f"against={against}: its simulator imitates {', '.join(mine)}, and this one"
            f" {', '.join(theirs)} (allow=imitated_gpu lets that through)."
        )
