"""A server's answers to a set of prompts: its next-token distributions and its continuations.

They are kept and stored raw, as received; every accuracy is computed from them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Logprobs = npt.NDArray[np.float32]
Columns = dict[str, npt.NDArray[Any]]

Prompt = tuple[int, ...]  # token ids


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """The answer to one prompt, at all its positions but the first, which nothing predicts.

    prompt        a hash of its token ids, to pair answers in whatever order
    token_ids     [positions] the prompt's own tokens
    logprobs      [positions] their logprobs, in nats
    top_ids       [positions, top] the likeliest tokens, likeliest first
    top_logprobs  [positions, top] their logprobs
    continued     [continuation tokens] the greedy continuation
    """

    prompt: int
    token_ids: Ids
    logprobs: Logprobs
    top_ids: Ids
    top_logprobs: Logprobs
    continued: Ids

    def __post_init__(self) -> None:
        shape = (len(self.token_ids), *self.top_ids.shape[1:])
        if self.logprobs.shape != shape[:1] or not self.top_ids.shape == shape == (
            self.top_logprobs.shape
        ):
            raise ValueError(f"the arrays of prompt {self.prompt} do not fit each other")


Answers = tuple[Answer, ...]  # one pass over the prompts


def key_of(prompt: Sequence[int]) -> int:
    """A hash of a prompt's token ids, below 2^63."""
    digest = hashlib.sha256(np.asarray(prompt, dtype="<i8").tobytes()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def columns(passes: Sequence[Answers]) -> dict[str, Columns]:
    """Two tables of one-dimensional columns.

    scored      one row per position: repeat, prompt, position, token_id, logprob,
                top_id_1 … and top_logprob_1 …
    continued   one row per generated token: repeat, prompt, position, token_id
    """
    found = [(repeat, one) for repeat, answers in enumerate(passes, 1) for one in answers]
    scored = _places([(repeat, one.prompt, len(one.token_ids)) for repeat, one in found], first=1)
    scored["token_id"] = np.concatenate([one.token_ids for _, one in found])
    scored["logprob"] = np.concatenate([one.logprobs for _, one in found])
    top_ids = np.concatenate([one.top_ids for _, one in found])
    top_logprobs = np.concatenate([one.top_logprobs for _, one in found])
    for rank in range(top_ids.shape[1]):
        scored[f"top_id_{rank + 1}"] = top_ids[:, rank]
        scored[f"top_logprob_{rank + 1}"] = top_logprobs[:, rank]
    continued = _places([(repeat, one.prompt, len(one.continued)) for repeat, one in found])
    continued["token_id"] = np.concatenate([one.continued for _, one in found])
    return {"scored": scored, "continued": continued}


def passes(tables: Mapping[str, Mapping[str, npt.NDArray[Any]]]) -> tuple[Answers, ...]:
    """The passes in the tables that `columns` made."""
    scored, continued = tables["scored"], tables["continued"]
    top = sum(name.startswith("top_id_") for name in scored)
    top_ids = np.stack([scored[f"top_id_{rank + 1}"] for rank in range(top)], axis=1)
    top_logprobs = np.stack([scored[f"top_logprob_{rank + 1}"] for rank in range(top)], axis=1)
    rows_of = {name: _rows(table) for name, table in tables.items()}
    found: dict[int, list[Answer]] = {}
    for (repeat, prompt), rows in rows_of["scored"].items():
        answer = Answer(
            prompt=prompt,
            token_ids=scored["token_id"][rows],
            logprobs=scored["logprob"][rows],
            top_ids=top_ids[rows],
            top_logprobs=top_logprobs[rows],
            continued=continued["token_id"][rows_of["continued"][repeat, prompt]],
        )
        found.setdefault(repeat, []).append(answer)
    return tuple(tuple(found[repeat]) for repeat in sorted(found))


def _places(blocks: Sequence[tuple[int, int, int]], first: int = 0) -> Columns:
    """repeat, prompt and position of each row, from blocks of (repeat, prompt, rows)."""
    lengths = [length for _, _, length in blocks]
    return {
        "repeat": np.repeat(np.array([repeat for repeat, _, _ in blocks], np.int8), lengths),
        "prompt": np.repeat(np.array([prompt for _, prompt, _ in blocks], np.int64), lengths),
        "position": np.concatenate([np.arange(n, dtype=np.int32) + first for n in lengths]),
    }


def _rows(table: Mapping[str, npt.NDArray[Any]]) -> dict[tuple[int, int], slice]:
    """The rows of each repeat and prompt, which are contiguous and in order."""
    repeat, prompt = table["repeat"], table["prompt"]
    changes = np.flatnonzero((np.diff(repeat) != 0) | (np.diff(prompt) != 0)) + 1
    edges = [0, *changes.tolist(), len(repeat)]
    return {
        (int(repeat[first]), int(prompt[first])): slice(first, last)
        for first, last in pairwise(edges)
    }
