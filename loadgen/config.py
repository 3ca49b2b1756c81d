"""What load to send. The names are the YAML names under `load.`; every check is here."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(kw_only=True, config=STRICT)
class Uniform:
    """Lengths drawn evenly from `min` to `max`, both included."""

    dist: Literal["uniform"] = "uniform"
    min: int = Field(ge=1, description="tokens")
    max: int = Field(ge=1, description="tokens")

    @model_validator(mode="after")
    def check(self) -> "Uniform":
        if self.min > self.max:
            raise ValueError(f"min must be <= max, got {self.min} > {self.max}")
        return self


@dataclass(kw_only=True, config=STRICT)
class LogNormal:
    """Lengths median·exp(sigma·z), z standard normal, rounded and clipped to `min` .. `max`."""

    dist: Literal["lognormal"] = "lognormal"
    median: float = Field(gt=0, description="tokens")
    sigma: float = Field(ge=0, description="standard deviation of the logarithm")
    min: int = Field(default=1, ge=1, description="tokens")
    max: int = Field(ge=1, description="tokens")

    @model_validator(mode="after")
    def check(self) -> "LogNormal":
        if not self.min <= self.median <= self.max:
            raise ValueError(
                f"min <= median <= max must hold, got {self.min}, {self.median:g}, {self.max}"
            )
        return self


def _dist(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("dist", "missing"))
    return str(getattr(value, "dist", "fixed"))


# A tag instead of a plain union: a wrong `min` is then one error, not one for each variant.
Length = Annotated[
    Annotated[int, Field(ge=1), Tag("fixed")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogNormal, Tag("lognormal")],
    Discriminator(
        _dist,
        custom_error_type="length",
        custom_error_message="must be a number of tokens, or have dist: uniform or lognormal",
    ),
]


@dataclass(kw_only=True, config=STRICT)
class Load:
    """How the server is driven."""

    arrival: Literal["closed", "poisson"] = Field(
        description="closed: streams that wait for their reply; poisson: arrivals that do not"
    )
    concurrency: int | None = Field(
        default=None, ge=1, description="closed: streams kept in flight"
    )
    rate_rps: float | None = Field(
        default=None, gt=0, description="poisson: mean arrivals a second"
    )
    input_tokens: Length = Field(
        default=512, description="prompt length: a number or a distribution"
    )
    output_tokens: Length = Field(
        default=128, description="reply length: a number or a distribution"
    )
    endpoint: Literal["completions", "chat"] = Field(
        default="completions", description="completions sends token ids, chat sends text"
    )
    ignore_eos: bool = Field(default=True, description="replies are exactly as long as asked")
    temperature: float = Field(default=0.0, ge=0, description="sampling temperature; 0 is greedy")
    warmup_s: float = Field(default=5.0, ge=0, description="load before the window, at least")
    warmup_max_s: float = Field(
        default=30.0, ge=0, description="closed: longest wait for every stream's first reply"
    )
    ramp_s: float = Field(
        default=1.0, ge=0, description="closed: streams start spread over this time"
    )
    duration_s: float = Field(default=20.0, gt=0, description="the window that is measured")
    drain_s: float = Field(
        default=30.0,
        ge=0,
        description="poisson: longest wait for requests that were due in the window",
    )
    request_timeout_s: float = Field(
        default=600.0, gt=0, description="one request, from start to end"
    )

    @model_validator(mode="after")
    def check(self) -> "Load":
        match self.arrival:
            case "closed":
                if self.concurrency is None:
                    raise ValueError("concurrency is required for a closed loop")
                if self.rate_rps is not None:
                    raise ValueError("rate_rps is for poisson arrivals, a closed loop has none")
                if self.warmup_max_s < max(self.warmup_s, self.ramp_s):
                    raise ValueError("warmup_max_s must be >= warmup_s and >= ramp_s")
            case "poisson":
                if self.rate_rps is None:
                    raise ValueError("rate_rps is required for poisson arrivals")
                if self.concurrency is not None:
                    raise ValueError("concurrency is for a closed loop, poisson arrivals have none")
        return self

    @property
    def planned_s(self) -> float:
        """Warm-up and window, without what a slow first generation or a drain may add."""
        return self.warmup_s + self.duration_s
