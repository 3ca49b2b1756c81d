"""What profiling can be told."""

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass


@dataclass(kw_only=True, config=ConfigDict(extra="forbid"))
class Profile:
    """No profiler can be chosen yet: `profile=none` is the only choice."""
