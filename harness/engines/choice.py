"""Which engine this machine can run: what `engine=auto` means."""

from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Literal

from harness.environment import num_gpus, vllm_installed
from harness.errors import UserError

Kind = Literal["vllm", "sim", "external"]
Place = Literal["gpu", "cpu", "sim"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The engine that is used, and why. `place` selects the sweep's `on_<place>` part."""

    kind: Kind
    place: Place
    num_gpus: int
    vllm_version: str | None
    why: str
    vllm_folder: Path | None = None  # the folder of its package


def choose(requested: str, python: str | None) -> Choice:
    """Resolve `auto`, and find out what vLLM would run on here.

    `python` is the interpreter that has vLLM; None is this one. Raises UserError if vLLM is missing
    although it was asked for: by `vllm`, or by `auto` with a `python`.
    """
    gpus = num_gpus()
    if requested == "external":
        return Choice(
            kind="external", place="gpu", num_gpus=gpus, vllm_version=None, why="as asked for"
        )
    build = vllm_installed(python) if requested in ("auto", "vllm") else None
    if build is None:
        if python is not None and requested in ("auto", "vllm"):
            raise UserError(
                f"engine.python={python}: {_lacking(python)}: name the interpreter that has vLLM,"
                " or take engine=sim."
            )
        if requested == "vllm":
            raise UserError(
                "engine=vllm: vLLM is not installed for this Python: pip install 'vllm>=0.25', name"
                " the interpreter that has it by engine.python=PATH, or take engine=sim."
            )
        why = "as asked for" if requested == "sim" else "vLLM is not installed in this Python"
        return Choice(kind="sim", place="sim", num_gpus=gpus, vllm_version=None, why=why)
    if not build.is_cpu and not gpus and requested == "auto":
        return Choice(
            kind="sim",
            place="sim",
            num_gpus=0,
            vllm_version=None,
            why="vLLM is installed, but there is no GPU",
        )
    where = "its CPU build" if build.is_cpu else f"{gpus} GPU{'s' if gpus != 1 else ''}"
    return Choice(
        kind="vllm",
        place="cpu" if build.is_cpu or not gpus else "gpu",
        num_gpus=0 if build.is_cpu else gpus,
        vllm_version=build.version,
        why=f"vLLM {build.version} is installed, with {where}",
        vllm_folder=build.folder,
    )


def _lacking(python: str) -> str:
    return "vLLM is not installed there" if which(python) else "there is no such program"
