"""What load to send. Field names are the YAML names under `load.`; all checks are made here."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(kw_only=True, config=STRICT)
class Uniform:
    """Lengths drawn uniformly from `min` to `max`, both included."""

    dist: Literal["uniform"] = Field("uniform", description="uniform, lognormal or empirical")
    min: int = Field(ge=1, description="shortest length, in tokens")
    max: int = Field(ge=1, description="longest length, in tokens")

    @model_validator(mode="after")
    def check(self) -> "Uniform":
        if self.min > self.max:
            raise ValueError(f"min must be <= max, got {self.min} > {self.max}")
        return self


@dataclass(kw_only=True, config=STRICT)
class LogNormal:
    """Lengths median·exp(sigma·z), z standard normal, rounded and clipped to `min` .. `max`."""

    dist: Literal["lognormal"] = "lognormal"
    median: float = Field(gt=0, description="lognormal: median length, in tokens")
    sigma: float = Field(ge=0, description="lognormal: standard deviation of the logarithm")
    min: int = Field(default=1, ge=1, description="shortest length, in tokens")
    max: int = Field(ge=1, description="longest length, in tokens")

    @model_validator(mode="after")
    def check(self) -> "LogNormal":
        if not self.min <= self.median <= self.max:
            raise ValueError(
                f"min <= median <= max must hold, got {self.min}, {self.median:g}, {self.max}"
            )
        return self


@dataclass(kw_only=True, config=STRICT)
class Empirical:
    """Lengths drawn with replacement from a file with one number of tokens per line."""

    dist: Literal["empirical"] = "empirical"
    path: str = Field(
        min_length=1, description="empirical: text file with one length in tokens per line"
    )


def _dist(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("dist", "missing"))
    if isinstance(value, str):
        return "fixed" if value.isdecimal() else "missing"
    return str(getattr(value, "dist", "fixed"))


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind", "missing"))
    return str(getattr(value, "kind", "missing"))


# Tagged rather than a plain union, so that a wrong `min` is one error, not one per variant.
Length = Annotated[
    Annotated[int, Field(ge=1), Tag("fixed")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogNormal, Tag("lognormal")]
    | Annotated[Empirical, Tag("empirical")],
    Discriminator(
        _dist,
        custom_error_type="length",
        custom_error_message=(
            "must be a number of tokens, or have dist: uniform, lognormal or empirical"
        ),
    ),
]


@dataclass(kw_only=True, config=STRICT)
class Unique:
    """Random tokens; no two prompts of a study begin alike, so a prefix cache never hits."""

    kind: Literal["unique"] = Field("unique", description="unique, shared_prefix or dataset")


@dataclass(kw_only=True, config=STRICT)
class SharedPrefix:
    """Random tokens; the first `hit_frac` of each prompt is the prefix of one of the `groups`."""

    kind: Literal["shared_prefix"] = "shared_prefix"
    groups: int = Field(ge=1, description="shared_prefix: number of prefixes, all equally likely")
    hit_frac: float = Field(
        ge=0, lt=1, description="shared_prefix: share of each prompt that is its group's prefix"
    )


@dataclass(kw_only=True, config=STRICT)
class Dataset:
    """Text from people: the first user message; for chat, the messages up to the last answer."""

    kind: Literal["dataset"] = "dataset"
    path: str = Field(
        min_length=1, description="dataset: ShareGPT-like JSON, or JSONL with OpenAI `messages`"
    )
    unique: bool = Field(
        default=True, description="dataset: start each prompt with a number, so that none is cached"
    )


PromptSource = Annotated[
    Annotated[Unique, Tag("unique")]
    | Annotated[SharedPrefix, Tag("shared_prefix")]
    | Annotated[Dataset, Tag("dataset")],
    Discriminator(
        _kind,
        custom_error_type="prompts",
        custom_error_message="must have kind: unique, shared_prefix or dataset",
    ),
]


@dataclass(kw_only=True, config=STRICT)
class Conversation:
    """Several turns; each is sent after the reply to the last one, with all messages before it."""

    turns: int = Field(ge=1, le=1000, description="requests per conversation")
    think_s: float = Field(
        default=0.0, ge=0, description="pause from the end of a reply to the next turn"
    )


@dataclass(kw_only=True, config=STRICT)
class Trace:
    """Arrivals and lengths from a published or recorded trace."""

    path: str = Field(min_length=1, description="Mooncake JSONL or BurstGPT CSV")
    speed: float = Field(default=1.0, gt=0, description="replay speed: 2 is twice as fast")


@dataclass(kw_only=True, config=STRICT)
class Search:
    """Runs that search for the highest rate, or concurrency, at which the limits hold."""

    probes: int = Field(default=12, ge=4, le=100, description="maximum number of runs")
    resolution_frac: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="stop when the bracket between held and missed is this narrow (relative)",
    )
    tries: int = Field(
        default=3, ge=1, description="maximum runs at one value while its answer is unclear"
    )
    start_rps: float | None = Field(
        default=None,
        gt=0,
        description="first rate [derived from the launch's closed loops, or expected by a tuning]",
    )


@dataclass(kw_only=True, config=STRICT)
class Load:
    """How the server is driven."""

    arrival: Literal["closed", "constant", "poisson", "gamma", "ramp", "trace"] = Field(
        description="closed: streams wait for their replies; all others: arrivals do not wait"
    )
    concurrency: int | None = Field(
        default=None, ge=1, description="closed: streams kept in flight"
    )
    rate_rps: float | None = Field(
        default=None, gt=0, description="constant, poisson, gamma: mean arrivals per second"
    )
    rate_frac: float | None = Field(
        default=None,
        gt=0,
        description="instead of rate_rps: share of the capacity found by closed loops",
    )
    search: Search | None = Field(
        default=None,
        description="instead of a rate or concurrency: search for the highest that meets slo",
    )
    burstiness: float | None = Field(
        default=None, gt=0, description="gamma: shape; 1 is Poisson, below 1 is bursty"
    )
    rate_end_rps: float | None = Field(
        default=None,
        gt=0,
        description="ramp: Poisson arrivals, from rate_rps to this rate at the window's end",
    )
    trace: Trace | None = Field(default=None, description="trace: the recording to replay")
    input_tokens: Length = Field(
        default=512, description="prompt length: a number or a distribution"
    )
    output_tokens: Length = Field(
        default=128, description="reply length: a number or a distribution"
    )
    prompts: PromptSource = Field(
        default_factory=lambda: Unique(kind="unique"),
        description="what prompts consist of, and what they share",
    )
    conversation: Conversation | None = Field(
        default=None, description="chat: several turns instead of one"
    )
    endpoint: Literal["completions", "chat"] = Field(
        default="completions", description="completions sends token ids, chat sends text"
    )
    stream: bool = Field(
        default=True, description="false: replies arrive whole, so without TTFT and TPOT"
    )
    ignore_eos: bool = Field(default=True, description="make replies exactly as long as asked for")
    temperature: float = Field(default=0.0, ge=0, description="sampling temperature; 0 is greedy")
    warmup_s: float = Field(
        default=5.0, ge=0, description="minimum time under load before the window"
    )
    warmup_max_s: float = Field(
        default=30.0, ge=0, description="closed: maximum wait for every stream's first reply"
    )
    ramp_s: float = Field(
        default=1.0, ge=0, description="closed: time over which stream starts are spread"
    )
    duration_s: float = Field(default=20.0, gt=0, description="length of the measurement window")
    drain_s: float = Field(
        default=30.0,
        ge=0,
        description="open loop: maximum wait for requests that were due in the window",
    )
    request_timeout_s: float = Field(
        default=600.0, gt=0, description="limit for one request, from start to end"
    )
    ttft_timeout_s: float = Field(
        default=600.0,
        gt=0,
        description="limit for one request, from start to the first byte of its reply",
    )
    stall_timeout_s: float = Field(
        default=120.0, gt=0, description="limit for silence within a reply that has begun"
    )

    @model_validator(mode="after")
    def check(self) -> "Load":
        if problem := self._arrival_problem() or self._content_problem():
            raise ValueError(problem)
        return self

    def _arrival_problem(self) -> str | None:
        needed = {
            "closed": ["concurrency"],
            "constant": ["rate_rps"],
            "poisson": ["rate_rps"],
            "gamma": ["rate_rps", "burstiness"],
            "ramp": ["rate_rps", "rate_end_rps"],
            "trace": ["trace"],
        }
        mine = needed[self.arrival]
        found = self._found()
        for name in dict.fromkeys(name for names in needed.values() for name in names):
            is_set = getattr(self, name) is not None
            if name in mine and not is_set and name not in found:
                return f"{name} is required for arrival={self.arrival}"
            if name not in mine and is_set:
                users = [arrival for arrival, names in needed.items() if name in names]
                return f"{name} is for arrival={', '.join(users)}, not for {self.arrival}"
        if self.rate_frac is not None and self.arrival not in ("constant", "poisson", "gamma"):
            return f"rate_frac is for arrival=constant, poisson, gamma, not for {self.arrival}"
        if self.search is not None and self.arrival in ("ramp", "trace"):
            return f"search is for a rate or a concurrency, not for arrival={self.arrival}"
        if self.rate_frac is not None and self.search is not None:
            return "rate_frac and search both say how fast requests come: set one to null"
        if not self.is_open and self.warmup_max_s < max(self.warmup_s, self.ramp_s):
            return "warmup_max_s must be >= warmup_s and >= ramp_s"
        return None

    def _content_problem(self) -> str | None:
        if self.conversation is not None and self.endpoint != "chat":
            return "a conversation needs endpoint=chat: a next turn holds the reply's text"
        if self.arrival == "trace" and (self.conversation or self.prompts.kind != "unique"):
            return "a trace says itself what its prompts share: leave prompts and conversation out"
        return None

    def _found(self) -> tuple[str, ...]:
        """The fields that are not set beforehand, but found while the server is up."""
        if self.search is not None:
            return ("rate_rps", "concurrency")
        return ("rate_rps",) if self.rate_frac is not None else ()

    @property
    def is_found_late(self) -> bool:
        """Whether the rate follows from earlier measurements of the same server."""
        return self.rate_frac is not None or self.search is not None

    @property
    def is_open(self) -> bool:
        """Whether arrivals do not wait for replies."""
        return self.arrival != "closed"

    @property
    def shares_prompts(self) -> bool:
        """Whether requests may share prefixes by design, so that prefix cache hits are expected."""
        match self.prompts:
            case SharedPrefix(hit_frac=share) if share > 0:
                return True
            case Dataset(unique=False):
                return True
        return self.conversation is not None or self.trace is not None

    def asks_like(self, other: "Load") -> bool:
        """Whether both send the same kind of request, so that one's rate informs the other's."""
        return all(getattr(self, name) == getattr(other, name) for name in _KIND_OF_REQUEST)

    def at_capacity(self, capacity_rps: float) -> "Load":
        """This load at the rate `rate_frac` × capacity; unchanged without `rate_frac`."""
        if self.rate_frac is None:
            return self
        return replace(self, rate_rps=self.rate_frac * capacity_rps)

    def at_intensity(self, intensity: float) -> "Load":
        """This load at another rate, or a closed loop at another concurrency."""
        if self.is_open:
            return replace(self, rate_rps=intensity)
        return replace(self, concurrency=int(intensity))

    def alone(self) -> "Load":
        """The same requests, one at a time; not for a trace, whose lengths are its own."""
        return replace(
            self,
            arrival="closed",
            concurrency=1,
            rate_rps=None,
            rate_frac=None,
            rate_end_rps=None,
            burstiness=None,
            warmup_max_s=max(self.warmup_s, self.warmup_max_s, self.ramp_s),
        )

    @property
    def planned_s(self) -> float:
        """Warm-up and window, without what slow first replies or a drain may add."""
        return self.warmup_s + self.duration_s


_KIND_OF_REQUEST = (
    *("input_tokens", "output_tokens", "prompts", "conversation"),
    *("endpoint", "stream", "ignore_eos"),
)


@dataclass(kw_only=True, config=STRICT)
class Slo:
    """The latency limits that make a request useful; every request keeps a limit that is unset."""

    ttft_s: float | None = Field(default=None, gt=0, description="limit on the time to first token")
    tpot_s: float | None = Field(
        default=None, gt=0, description="limit on the time per output token"
    )
    e2e_s: float | None = Field(default=None, gt=0, description="limit on the whole request")
    share_frac: float = Field(
        default=0.99, gt=0, lt=1, description="search: share of requests that must meet all limits"
    )

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        told = {"ttft_s": self.ttft_s, "tpot_s": self.tpot_s, "e2e_s": self.e2e_s}
        return {name: limit_s for name, limit_s in told.items() if limit_s is not None}

    @property
    def is_set(self) -> bool:
        """Whether any limit is set."""
        return bool(self.limits)


@dataclass(kw_only=True, config=STRICT)
class Client:
    """How the load is sent: settings of the instrument, not of what is measured."""

    transport: Literal["auto", "direct", "aiohttp"] = Field(
        default="auto",
        description="direct: plain HTTP/1.1, least overhead; aiohttp: TLS; auto: by the URL",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        description="number of sending processes [as many as calibration finds necessary]",
    )
    calibrate: bool = Field(
        default=True, description="measure the client's own error before the study"
    )

    def transport_for(self, url: str) -> Literal["direct", "aiohttp"]:
        """The transport for this URL. Raises ValueError if `direct` is set and the URL is TLS."""
        is_tls = url.startswith("https://")
        if self.transport == "direct" and is_tls:
            raise ValueError("client.transport=direct speaks plain http:// only: take aiohttp")
        if self.transport == "auto":
            return "aiohttp" if is_tls else "direct"
        return self.transport
