"""Display units. Inside the harness everything is in base units; here alone they are scaled."""

import math
from collections.abc import Callable

Format = Callable[[float], str]


def number(digits: int = 0) -> Format:
    """12,345.6"""
    return lambda value: f"{value:,.{digits}f}"


def scaled(factor: float, digits: int) -> Format:
    """The value times a factor, e.g. seconds as milliseconds."""
    return lambda value: f"{value * factor:,.{digits}f}"


def significant(factor: float, digits: int = 3) -> Format:
    """The value times a factor, with at least this many significant digits: 2.31, 14.2, 5,210."""

    def text(value: float) -> str:
        shown = value * factor
        before_point = math.floor(math.log10(abs(shown))) + 1 if shown else 1
        return f"{shown:,.{max(0, digits - max(1, before_point))}f}"

    return text


milliseconds = significant(1e3)
percent = scaled(100, 1)
gibibytes = scaled(1 / 2**30, 1)
megahertz = scaled(1e-6, 0)
cores = number(2)
rate = number(2)
whole = number(0)


def span(seconds: float) -> str:
    """45 s, 12 min, 1 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def plural(count: int, word: str) -> str:
    """1 launch, 2 launches, 3 runs."""
    ending = "es" if word.endswith("ch") else "s"
    return f"{count:,} {word}{ending * (count != 1)}"
