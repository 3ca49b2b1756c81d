"""How long prompts and replies should be: the drawing of lengths."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from loadgen.config import Empirical, Length, LogNormal, Uniform

Draw = Callable[[np.random.Generator], int]


def sampler(length: Length) -> Draw:
    """A function that draws lengths; if they come from a file, it is read now."""
    match length:
        case Uniform(min=low, max=high):
            return lambda random: int(random.integers(low, high, endpoint=True))
        case LogNormal():
            return lambda random: _lognormal(length, random)
        case Empirical():
            seen = read(length.path)
            return lambda random: seen[random.integers(len(seen))]
        case int():
            return lambda _: length


def _lognormal(length: LogNormal, random: np.random.Generator) -> int:
    drawn = length.median * np.exp(length.sigma * random.standard_normal())
    return int(np.clip(round(drawn), length.min, length.max))


def longest_tokens(length: Length) -> int:
    """The longest length that may be drawn."""
    match length:
        case Uniform() | LogNormal():
            return length.max
        case Empirical():
            return max(read(length.path))
        case int():
            return length


def read(path: str) -> tuple[int, ...]:
    """The lengths in a file: one per line; a # begins a comment."""
    return _read(path, Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=2)  # for input and output
def _read(path: str, _modified_ns: int) -> tuple[int, ...]:
    lengths = []
    for line, text in enumerate(Path(path).read_text(encoding="utf-8-sig").splitlines(), 1):
        number = text.partition("#")[0].strip()
        if number and not (number.isdecimal() and int(number) >= 1):
            raise ValueError(
                f"{path}:{line}: {number[:40]!r}, expected a number of tokens, 1 or more"
            )
        if number:
            lengths.append(int(number))
    if not lengths:
        raise ValueError(f"{path}: no length in it, expected one number of tokens a line")
    return tuple(lengths)
