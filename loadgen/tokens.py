"""Random tokens, and their text: JSON numbers for completions, words for chat. Pure and seeded.

No two draws begin alike: the first tokens spell the draw's number in base `vocabulary`, plus an
offset that depends on its kind and the seed. A server caches prefixes in blocks whose hash covers
all tokens before them, so no block is shared, neither inside a run nor between runs of different
seeds.
"""

from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen.records import Target

# With a vocabulary of 500, four digits spell 6·10^10 numbers. They fit the smallest KV block (8).
NUMBER_TOKENS = 4
# 2^64 divided by the golden ratio, as in Knuth's multiplicative hash: it spreads seeds 0, 1, 2 …
GOLDEN = 0x9E3779B97F4A7C15

Digits = npt.NDArray[np.int64]  # token ids minus the first allowed one


class Kind(IntEnum):
    """What is drawn. Draws of different kinds have nothing in common."""

    PROMPT = 0
    PREFIX = 1  # of a group of prompts
    BLOCK = 2  # of a trace
    ORDER = 3  # of a dataset


class Tokens:
    """The random tokens of one seed."""

    def __init__(self, target: Target, seed: int) -> None:
        self._seed, self._first, self._end = seed, target.first_token_id, target.vocab_size

    def random(self, kind: Kind, number: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, kind, number))

    def draw(
        self, kind: Kind, number: int, size: int, random: np.random.Generator | None = None
    ) -> Digits:
        """`size` tokens; a shorter draw is the beginning of a longer one."""
        random = random or self.random(kind, number)
        base = self._end - self._first
        digits = random.integers(base, size=size)
        spelled = (self._seed * len(Kind) + kind) * GOLDEN + number
        for place in range(min(NUMBER_TOKENS, size)):
            spelled, digits[place] = divmod(spelled, base)  # lowest first: neighbours differ
        return digits

    def json(self, digits: Digits) -> bytes:
        """[17,4711,…]"""
        return b"".join((b"[", memoryview(self._text(b"%d,", digits))[:-1], b"]"))

    def words(self, digits: Digits) -> str:
        """t17 t4711 …"""
        return self._text(b"t%d ", digits)[:-1].decode()

    def _text(self, form: bytes, digits: Digits) -> bytes:
        texts = texts_of(form, self._first, self._end)[digits]
        return texts.tobytes().translate(None, b"\0")


@lru_cache(maxsize=2)
def texts_of(form: bytes, first: int, end: int) -> npt.NDArray[Any]:
    """Each token's text, zero-padded to a power of two, which numpy gathers fastest.

    This is ten times as fast as `json.dumps`, and matters: bodies are made while replies arrive.
    """
    texts = [form % token for token in range(first, end)]
    return np.array(texts, f"S{1 << (len(texts[-1]) - 1).bit_length()}")
