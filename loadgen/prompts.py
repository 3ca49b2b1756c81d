"""What is sent: request bodies, made of random tokens. Pure and seeded.

No two prompts begin alike: the first tokens spell the request's number in base `vocabulary`, from
an origin that the seed sets. A server caches prefixes in blocks whose hash covers all tokens before
them, so no block is shared, neither inside a run nor between runs of different seeds.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadgen.config import Length, Load, LogNormal, Uniform
from loadgen.records import Target

# Four digits are 6·10^10 numbers with a vocabulary of 500, and fit into the smallest KV block (8).
NUMBER_TOKENS = 4
# Knuth's multiplicative hash, 2^64 divided by the golden ratio: seeds 0, 1, 2 … lie far apart.
GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    index: int
    input_tokens: int
    output_tokens: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """The requests of one run, by number."""

    load: Load
    target: Target
    seed: int

    def request(self, index: int) -> Request:
        random = np.random.default_rng((self.seed, index))
        input_tokens = draw_length(self.load.input_tokens, random)
        output_tokens = draw_length(self.load.output_tokens, random)
        prompt = self._prompt(index, input_tokens, random)
        payload = {
            "model": self.target.model,
            **self._content(prompt),
            "max_tokens": output_tokens,
            "temperature": self.load.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.load.ignore_eos:
            payload["ignore_eos"] = True
        return Request(
            index=index,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            body=json.dumps(payload, separators=(",", ":")).encode(),
        )

    def _prompt(self, index: int, num_tokens: int, random: np.random.Generator) -> list[int]:
        first, end = self.target.first_token_id, self.target.vocab_size
        prompt: list[int] = random.integers(first, end, size=num_tokens).tolist()
        number = self.seed * GOLDEN + index
        for position in range(min(NUMBER_TOKENS, num_tokens)):
            number, digit = divmod(number, end - first)
            prompt[position] = first + digit  # lowest digit first: neighbours differ at once
        return prompt

    def _content(self, prompt: list[int]) -> dict[str, Any]:
        if self.load.endpoint == "completions":
            return {"prompt": prompt}
        text = " ".join(f"t{token}" for token in prompt)
        return {"messages": [{"role": "user", "content": text}]}


def draw_length(length: Length, random: np.random.Generator) -> int:
    match length:
        case Uniform():
            return int(random.integers(length.min, length.max, endpoint=True))
        case LogNormal():
            drawn = length.median * np.exp(length.sigma * random.standard_normal())
            return int(np.clip(round(drawn), length.min, length.max))
        case _:
            return length
