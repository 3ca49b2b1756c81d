"""Spaces and objectives in short."""

from typing import Any

from harness.engines.config import SimEngine
from harness.tune.config import Tune
from harness.tune.objective import Objective
from harness.tune.space import Space

SPACE = {"max_num_seqs": [64, 128, 256], "stream_interval": [4, 8]}


def tune(space: dict[str, Any] | None = None, **said: Any) -> Tune:
    goals = {} if "minimise" in said else {"maximise": "output_tok_per_s"}
    return Tune(**(goals | {"space": SPACE if space is None else space} | said))


def space_of(space: dict[str, Any] | None = None, *, engine=None, of=None, **said: Any) -> Space:
    return Space.of(tune(space, **said), engine or SimEngine(), **(of or {}))


def objective(**said: Any) -> Objective:
    return Objective.of(tune(**said))
