"""Whether Python compiles vLLM anew at each start.

Python keeps a module's bytecode beside it, unless PYTHONDONTWRITEBYTECODE is set, as some container
images do. Every process of every server then compiles the same thousand modules: on two H200s,
imports took 15 to 21 s instead of 9 to 14 (results/reference/README.md).
"""

from collections.abc import Mapping
from pathlib import Path

VARIABLE = "PYTHONDONTWRITEBYTECODE"


def recompiled(package: Path | None, environment: Mapping[str, str]) -> str | None:
    """A sentence saying why starts are slower than they need be, and what to do; None if they are
    not. `package` is vLLM's folder, None if it is unknown; `environment` is the server's."""
    if package is None or not environment.get(VARIABLE):
        return None
    if any((package / "__pycache__").glob("*.pyc")):
        return None
    return (
        f"{VARIABLE} is set and vLLM has no bytecode, so each process of each server compiles its"
        f" Python again: unset it, or run `python -m compileall -q {package}` once"
    )
