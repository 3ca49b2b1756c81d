"""What was run: the command, the resolved configuration, and every life of a server."""

from collections.abc import Iterator, Mapping
from typing import Any

from harness.instrument import Instrument
from harness.report.blocks import Block, Cell, Facts, Head, Log, Part, Section, Table, number
from harness.report.contents import Contents
from harness.units import number as decimals
from harness.units import value_text, whole

_NO_SETTINGS = ("kind", "extra", "env")  # shown separately


def setup(contents: Contents) -> Section:
    blocks: list[Block] = [Log(text=contents.command), Facts(rows=tuple(_facts(contents)))]
    if contents.launches:
        launches = tuple(contents.launches.values())
        settings = _settings([launch.get("engine") or {} for launch in launches], value_text(None))
        resolved = _settings([(x.get("facts") or {}).get("resolved") or {} for x in launches])
        if settings:
            blocks.append(Part(title="Engine settings", blocks=(Facts(rows=settings),)))
        if resolved:
            title = "As the server resolved them"
            blocks.append(Part(title=title, blocks=(Facts(rows=resolved),)))
        blocks.append(Part(title="Launches and their start-up, s", blocks=(_launches(contents),)))
    return Section(id="run", title="What was run", blocks=tuple(blocks))


def _facts(contents: Contents) -> Iterator[tuple[str, Cell]]:
    about = contents.about
    environment = about.get("environment") or {}
    options = about.get("options") or {}
    told: dict[str, Any] = {
        "begun": f"{about['begun_utc']} UTC" if about.get("begun_utc") else None,
        "engine": about.get("engine"),
        "model": _model(about.get("model") or {}),
        "load": about.get("load"),
        "grid": _grid(about.get("axes") or {}),
        "repeats": _repeats(contents, options.get("repeats") or {}),
        "order": options.get("order"),
        "seed": options.get("seed"),
        "load generator": _instrument(about.get("instrument")),
        "harness": _version(environment),
        "measurement version": about.get("measurement_version"),
    }
    yield from ((name, Cell(text=str(value))) for name, value in told.items() if value is not None)


def _model(model: Mapping[str, Any]) -> str | None:
    if not model:
        return None
    shape = model.get("shape")
    if shape is None:
        return str(model.get("path") or model.get("name"))
    return (
        f"{model.get('name')}, its shape with dummy weights: {shape['num_hidden_layers']} layers,"
        f" hidden size {shape['hidden_size']}, {shape['num_attention_heads']} heads"
        f" ({shape['num_key_value_heads']} for KV), {shape['dtype']}"
    )


def _grid(axes: Mapping[str, list[Any]]) -> str | None:
    parts = [f"{name} = {', '.join(map(value_text, values))}" for name, values in axes.items()]
    return "; ".join(parts) or None


def _repeats(contents: Contents, asked: Mapping[str, int]) -> str | None:
    """How often each point was measured; with against=, launches are added until it is settled."""
    if not asked:
        return None
    launches, most = asked["launches"], ""
    if "looks" in contents.about:
        most = f", of at most {launches} launches"
        launches = int(contents.runs["launch_repeat"].max())
    return f"{launches} × {asked['runs']} (launches × runs in each){most}"


def _instrument(told: Mapping[str, Any] | None) -> str | None:
    if not told or "client" not in told:
        return None
    return Instrument.from_study(dict(told)).line().removeprefix("client: ")


def _version(environment: Mapping[str, Any]) -> str | None:
    version, commit = environment.get("harness_version"), environment.get("git_commit")
    if version is None and commit is None:
        return None
    dirty = ", with changes that are in no commit" if environment.get("git_dirty") else ""
    return f"{version or 'unknown version'}" + (f", commit {commit[:12]}{dirty}" if commit else "")


def _settings(
    each: list[Mapping[str, Any]], absent: str | None = None
) -> tuple[tuple[str, Cell], ...]:
    """Each setting with its distinct values over the launches, in their order.

    `absent` is the text for a launch that lacks a setting; with None such launches add no value.
    """
    flat = [_flat(one) for one in each]
    names = dict.fromkeys(name for one in flat for name in one)
    values = {n: dict.fromkeys(v for one in flat if (v := one.get(n, absent))) for n in names}
    return tuple((name, Cell(text=", ".join(told))) for name, told in values.items())


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings as text by name, without those left to the server."""
    plain = {n: value_text(v) for n, v in settings.items() if v is not None}
    extra = {f"extra.{n}": str(v) for n, v in (settings.get("extra") or {}).items()}
    env = {f"env.{n}": str(v) for n, v in (settings.get("env") or {}).items()}
    return {n: v for n, v in plain.items() if n not in _NO_SETTINGS} | extra | env


def _launches(contents: Contents) -> Table:
    launches = contents.launches
    phases = list(dict.fromkeys(p for x in launches.values() for p in x.get("startup_s") or {}))
    heads = (
        Head(title="launch", is_text=True),
        Head(title="settings", is_text=True),
        *(Head(title=phase.replace("_", " ")) for phase in phases),
        Head(title="total"),
        Head(title="KV cache tokens"),
        Head(title="end", is_text=True),
    )
    return Table(
        heads=heads,
        rows=tuple(_launch(contents, name, told, phases) for name, told in launches.items()),
    )


def _launch(
    contents: Contents, name: str, told: Mapping[str, Any], phases: list[str]
) -> tuple[Cell, ...]:
    one, phase_s = decimals(1), told.get("startup_s") or {}
    total_s = sum(phase_s.values()) if phase_s else None
    tokens = (told.get("facts") or {}).get("kv_cache_tokens")
    log = f"launches/{name}/server.log"
    has_log = (contents.folder / log).is_file()
    return (
        Cell(text=name, file=log if has_log else None, is_code=True),
        Cell(text=str(told.get("label", ""))),
        *(number(phase_s.get(phase), one) for phase in phases),
        number(total_s, one),
        number(tokens, whole),
        _end(told),
    )


def _end(told: Mapping[str, Any]) -> Cell:
    if failure := told.get("failure"):
        return Cell(text=str(failure.get("kind")), tone="bad")
    ended = told.get("exit") or {}
    if ended.get("gpu_memory_released") is False:
        return Cell(text="GPU memory not released", tone="doubt")
    return Cell(text="clean" if ended else "–", tone="muted")
