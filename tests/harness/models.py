"""The models of `conf/model/`, as tests take them: their numbers are written there only."""

from pathlib import Path

import yaml
from pydantic import TypeAdapter

from harness.model import Model

CONF = Path(__file__).parents[2] / "conf" / "model"


def shipped(name: str) -> Model:
    return TypeAdapter(Model).validate_python(yaml.safe_load((CONF / f"{name}.yaml").read_text()))


TINY, QWEN, LLAMA = (shipped(name) for name in ("tiny", "qwen2.5-1.5b", "llama-3.1-8b"))
