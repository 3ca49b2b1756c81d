"""A study's load in a sentence: what all of its runs have in common. Pure."""

from pathlib import Path
from typing import Any

from harness.config import Config
from loadgen.config import Dataset, Empirical, Load, LogNormal, SharedPrefix

ARRIVALS = {
    "closed": "closed loop",
    "constant": "even arrivals",
    "poisson": "Poisson arrivals",
    "gamma": "gamma arrivals",
    "ramp": "Poisson arrivals",
    "trace": "arrivals and lengths",
}


def load_text(config: Config) -> str:
    """How requests arrive, how many, and how long they are."""
    load, loads = config.loads[0], config.loads

    def same(name: str) -> bool:
        return all(getattr(other, name) == getattr(load, name) for other in loads)

    parts = [" and ".join(dict.fromkeys(ARRIVALS[other.arrival] for other in loads))]
    if load.concurrency is not None and same("concurrency"):
        parts.append(f"concurrency {load.concurrency}")
    if load.rate_rps is not None and same("rate_rps"):
        to = f" to {load.rate_end_rps:g}" if load.rate_end_rps is not None else ""
        parts.append(f"{load.rate_rps:g}{to} req/s")
    if load.trace is not None:
        return f"{parts[0]} of {Path(load.trace.path).name}, speed {load.trace.speed:g}"
    if load.conversation is not None:
        parts.append(f"{load.conversation.turns} turns, {load.conversation.think_s:g} s between")
    if same("prompts"):
        parts += _shared(load)
    is_text = isinstance(load.prompts, Dataset)
    for name, unit in (("input_tokens", "tokens in"), ("output_tokens", "out")):
        value = getattr(load, name)
        if same(name) and not (name == "input_tokens" and is_text):
            parts.append(
                f"{value} {unit}" if isinstance(value, int) else f"{_spread(value)} {unit}"
            )
    if not load.stream and same("stream"):
        parts.append("replies not streamed")
    return ", ".join(parts)


def _shared(load: Load) -> list[str]:
    match load.prompts:
        case SharedPrefix(groups=groups, hit_frac=hit_frac):
            return [f"{hit_frac * 100:g} % of each prompt shared in {groups} groups"]
        case Dataset(path=path):
            return [f"prompts of {Path(path).name}"]
    return []


def _spread(length: Any) -> str:
    """A distribution of lengths in a word or two."""
    if isinstance(length, Empirical):
        return f"as in {Path(length.path).name}"
    if isinstance(length, LogNormal):
        return f"{length.dist} around {length.median:g}, {length.min} to {length.max}"
    return f"{length.dist} {length.min} to {length.max}"
