"""A command line to type at, and the shipped configuration composed once for each choice of its
files: Hydra takes a tenth of a second."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from harness import config
from tests.harness.whole_tool import Tool

SHIPPED = Path(__file__).resolve().parents[2] / "conf"
_compose = config._hydra_tree
_composed: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}


def composed_once(choices: dict[str, str], conf_dirs: list[Path]) -> dict[str, Any]:
    if [folder.resolve() for folder in conf_dirs] != [SHIPPED]:
        return _compose(choices, conf_dirs)
    key = tuple(sorted(choices.items()))
    if key not in _composed:
        _composed[key] = _compose(choices, conf_dirs)
    return deepcopy(_composed[key])


@pytest.fixture(autouse=True)
def _composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_hydra_tree", composed_once)


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool(tmp_path)
