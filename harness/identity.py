"""What identifies a measurement: digests of everything that it depends on. Pure.

Thanks to them a study can be continued, and unlike measurements are never mixed.
"""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from harness.engines.config import Engine

MEASUREMENT_VERSION = 2  # raised whenever a stored or reported number changes its meaning

# Settings that determine how a server is run, not what it does.
OPERATIONAL = ("python", "port", "start_timeout_s", "first_token_timeout_s", "stop_timeout_s")


def digest_of(*parts: Any) -> str:
    """Ten hexadecimal digits that stand for these parts."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def what_it_does(engine: Engine) -> dict[str, Any]:
    """The settings of an engine that a measurement depends on."""
    return {name: value for name, value in asdict(engine).items() if name not in OPERATIONAL}


def setting_of(launch: str) -> str:
    """The part of a launch's id, or of its folder's name, that stands for the engine setting."""
    return launch.partition("-")[0]
