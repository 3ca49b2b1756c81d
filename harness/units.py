"""Display units. Everything in the harness is in base units; they are scaled only here."""

import math
from collections.abc import Callable, Mapping
from typing import Any

Format = Callable[[float], str]


def number(digits: int = 0) -> Format:
    """Format with `digits` decimals and separators: 12,345.6."""
    return lambda value: f"{value:,.{digits}f}"


def scaled(factor: float, digits: int) -> Format:
    """Format the value times a factor, e.g. seconds as milliseconds."""
    return lambda value: f"{value * factor:,.{digits}f}"


def significant(factor: float) -> Format:
    """Format the value times a factor, with at least three significant digits: 2.31, 5,210."""

    def text(value: float) -> str:
        shown = value * factor
        before_point = math.floor(math.log10(abs(shown))) + 1 if shown else 1
        return f"{shown:,.{max(0, 3 - max(1, before_point))}f}"

    return text


milliseconds = significant(1e3)
percent = scaled(100, 1)
gibibytes = scaled(1 / 2**30, 1)
megahertz = scaled(1e-6, 0)
cores = number(2)
rate = number(2)
whole = number(0)


_DISPLAYS: tuple[tuple[str, str, float, Format], ...] = (  # suffix, for people: unit, factor, form
    ("_tok_per_s", "tok/s", 1, whole),
    ("_tok_per_s_per_gpu", "tok/s per GPU", 1, significant(1)),
    ("_tok_per_s_per_user", "tok/s per user", 1, significant(1)),
    ("_bytes_per_s", "GB/s", 1e-9, scaled(1e-9, 2)),
    ("_per_s", "per s", 1, significant(1)),
    ("_cpu_frac", "CPU", 1, cores),
    ("_rps", "req/s", 1, rate),
    ("_frac", "%", 100, percent),
    ("_bytes", "GiB", 1 / 2**30, gibibytes),
    ("_tokens", "tokens", 1, whole),
    ("_nats", "nats", 1, lambda value: f"{value:.2g}"),
    ("_hz", "MHz", 1e-6, scaled(1e-6, 0)),
    ("_w", "W", 1, whole),
    ("_j", "J", 1, whole),
    ("_c", "°C", 1, whole),
    ("_s", "ms", 1e3, milliseconds),
)
_WORDS = {
    **{
        word: word.upper()
        for word in ("ttft", "tpot", "itl", "e2e", "kv", "gpu", "cpu", "api", "slo")
    },
    **{word: word.upper() for word in ("mfu", "mbu", "sm", "kl")},
    "gpus": "GPUs",
    "top1": "top-1",
    "j": "J",
    "usd": "USD",
    "mtok": "Mtok",
}


def display_of(name: str) -> tuple[str, Format]:
    """A column's title and format, by the unit in its name: ttft_p50_s is "TTFT p50 ms"."""
    for suffix, unit, _, shown in _DISPLAYS:
        if name.endswith(suffix):
            return f"{_words(name.removesuffix(suffix))} {unit}".strip(), shown
    return _words(name), significant(1)


def unit_of(name: str) -> str:
    """A column's display unit; empty for a count, and if its name does not tell."""
    return next((unit for suffix, unit, _, _ in _DISPLAYS if name.endswith(suffix)), "")


def scale_of(name: str) -> float:
    """The factor from a column's base unit to its display unit."""
    return next((factor for suffix, _, factor, _ in _DISPLAYS if name.endswith(suffix)), 1.0)


def told(name: str, value: float) -> str:
    """A value with the unit from the column's name: 1980000000.0 of sm_clock_hz is "1,980 MHz"."""
    for suffix, unit, _, shown in _DISPLAYS:
        if name.endswith(suffix):
            return f"{shown(value)} {unit}"
    return str(value)


_MEASURED = {  # a measurement's unit -> (display unit, factor)
    "FLOP/s": ("TFLOP/s", 1e-12),
    "op/s": ("Top/s", 1e-12),
    "B/s": ("GB/s", 1e-9),
    "B": ("GB", 1e-9),
    "s": ("µs", 1e6),
    "Hz": ("MHz", 1e-6),
    "share": ("%", 100.0),
    "1": ("", 1.0),
}


def quantity(value: float, unit: str) -> str:
    """A probe's measurement in its display unit, e.g. "790 TFLOP/s"; a count has no unit."""
    shown, factor = _MEASURED.get(unit, (unit, 1.0))
    if unit == "FLOP/s" and value < 1e12:  # of a CPU
        shown, factor = "GFLOP/s", 1e-9
    return f"{significant(factor)(value)} {shown}" if shown else whole(value)


def _words(name: str) -> str:
    return " ".join(_WORDS.get(word, word) for word in name.split("_"))


def value_text(value: Any) -> str:
    """A setting's value as people write it; None, left to the server, is "default"."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "default"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():  # an integer column with gaps is float
        return str(int(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def named_values(values: Mapping[str, Any], separator: str = ", ") -> str:
    """Settings as text, e.g. "max_num_seqs=256, enforce_eager=true"; empty without any."""
    return separator.join(f"{name}={value_text(value)}" for name, value in values.items())


def span(seconds: float) -> str:
    """A duration for people: 45 s, 12 min, 1 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def between(least_s: float, most_s: float) -> str:
    """A range of durations: "45 s to 2 min", or "2 min" if both read the same."""
    least, most = span(least_s), span(most_s)
    return least if least == most else f"{least} to {most}"


def plural(count: int, word: str) -> str:
    """A count with its noun: 1 launch, 2 launches, 3 runs."""
    ending = "es" if word.endswith("ch") else "s"
    return f"{count:,} {word}{ending * (count != 1)}"
