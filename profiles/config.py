"""What to profile: `profile.*` of the configuration."""

import re
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

POINTS = ("all", "best", "worst", "knee")
_FILTER = re.compile(r"[\w.]+=[^,=\s]+(,[\w.]+=[^,=\s]+)*")


@dataclass(kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Profile:
    """A short extra run after the measured ones; no measured number comes from it."""

    kind: Literal["none", "nsys", "torch"] = Field(
        default="none",
        description="nsys: Nsight Systems, for GPUs; torch: PyTorch's profiler, also on a CPU",
    )
    points: str = Field(
        default="knee",
        description="all, best, worst, knee, or values of axes: max_num_seqs=64,concurrency=8",
    )
    seconds: float = Field(
        default=1.5, gt=0, le=60, description="seconds of the steady window to capture"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.points not in POINTS and not _FILTER.fullmatch(self.points):
            raise ValueError(
                f"profile.points is {self.points!r}, expected {', '.join(POINTS)},"
                " or name=value[,name=value]"
            )
        return self
