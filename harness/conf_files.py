"""Where the YAML of conf/ is, which choices it offers, and what a file of it holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import UserError


def conf_dir() -> Path:
    """The harness' own conf/: inside the package in a wheel, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return next(d for d in (here / "conf", here.parent / "conf") if (d / "config.yaml").is_file())


def conf_dirs(extra: Path | None) -> list[Path]:
    """All configuration folders: the harness' own, and the one that the user named."""
    return [conf_dir(), *([extra] if extra else [])]


def options(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """The choices of a group by name, in all configuration folders; later folders override."""
    found: dict[str, Path] = {}
    for folder in folders:
        found |= {path.stem: path for path in sorted((folder / group).glob("*.yaml"))}
    return found


def read(path: Path) -> Any:
    """The contents of a YAML file. Raises UserError if it cannot be read."""
    import yaml  # not needed for help

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def describe(path: Path) -> str:
    """A YAML file's first comment line that is not a directive."""
    lines = (
        line.lstrip("# ").strip()
        for line in path.read_text(errors="replace").splitlines()
        if line[:1] == "#"
    )
    return next((line for line in lines if not line.startswith("@package")), "")
