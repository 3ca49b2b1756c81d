"""Asks a running server for accuracy: one request per prompt scores it, and continues it greedily.

Requests go through vLLM's completions API, and so through the scheduler, kernels and sampler whose
speed is measured. `prompt_logprobs` and `return_token_ids` are vLLM's own parameters; prompts are
token ids, so no tokenizer is involved. vLLM does not use its prefix cache for requests with prompt
logprobs, so a second pass computes everything again.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from harness.checks.answers import Answer, Answers, Prompt, key_of
from harness.checks.config import AccuracyCheck
from harness.engines import http
from harness.errors import UserError

HELD_OUT = "heldout.json"  # beside the weights of a model that harness/scripts trained
EXPECTED = 'expected {"prompts": [[token ids], …]}, each of two tokens or more, no two alike'


class NoAnswerError(Exception):
    """The server did not answer, or not with what was asked for; the message has its words."""


def prompts_of(check: AccuracyCheck, model_path: str | None) -> tuple[Prompt, ...]:
    """The prompts to ask. Raises UserError if there is no file, or it does not hold prompts."""
    path = Path(check.path) if check.path else Path(model_path or "") / HELD_OUT
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"accuracy needs held-out prompts and there is no {path}: name a file with "
            'checks.accuracy.path ({"prompts": [[token ids], …]}), or train a model that has one: '
            "python harness/scripts/train_model.py --out FOLDER"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not to be read ({error}), {EXPECTED}.") from None
    given = content.get("prompts") if isinstance(content, dict) else None
    if not isinstance(given, list) or not all(_is_prompt(prompt) for prompt in given):
        raise UserError(f"{path}: {EXPECTED}.")
    prompts = tuple(tuple(prompt[: check.prompt_tokens]) for prompt in given)
    if len(prompts) < 2 or len(set(prompts)) < len(prompts):
        raise UserError(f"{path}: {len(set(prompts))} different prompts, {EXPECTED}.")
    return prompts[: check.prompts]


def ask(
    url: str,
    model: str,
    prompts: Sequence[Prompt],
    check: AccuracyCheck,
    *,
    headers: Mapping[str, str] | None = None,
) -> tuple[Answers, ...]:
    """The answers of the server at `url` in `check.repeats` passes. Raises NoAnswerError.

    Several prompts are in flight at a time, so steps are batched as under load, and the answers
    include how results depend on the batch. Two passes tell how much that is.
    """

    def answer(prompt: Prompt) -> Answer:
        body = {
            "model": model,
            "prompt": list(prompt),
            "max_tokens": check.continuation_tokens,
            "temperature": 0,
            "ignore_eos": True,  # so that all continuations have the same length
            "prompt_logprobs": check.top_logprobs,
            "return_token_ids": True,
        }
        try:
            reply = http.request(
                f"{url}/v1/completions", timeout_s=check.timeout_s, body=body, headers=headers
            )
        except OSError as error:
            raise NoAnswerError(
                f"no answer to a prompt of {len(prompt)} tokens: {error}"
            ) from error
        return parse(reply, prompt, check)

    def one_pass() -> Answers:
        with ThreadPoolExecutor(check.concurrency) as threads:
            try:
                return tuple(threads.map(answer, prompts))
            except NoAnswerError:
                threads.shutdown(cancel_futures=True)
                raise

    return tuple(one_pass() for _ in range(check.repeats))


def parse(reply: http.Answer, prompt: Prompt, check: AccuracyCheck) -> Answer:
    """The answer in a reply of /v1/completions. Raises NoAnswerError."""
    try:
        choice = reply.json()["choices"][0]
        rows = [_likeliest(row, check.top_logprobs) for row in choice["prompt_logprobs"][1:]]
        own = [
            row[str(token)]["logprob"]
            for row, token in zip(choice["prompt_logprobs"][1:], prompt[1:], strict=True)
        ]
        continued = np.array(choice["token_ids"], np.int32)
    except (KeyError, IndexError, TypeError, ValueError):
        text = " ".join(reply.body.split())
        raise NoAnswerError(
            "the server does not tell prompt_logprobs and token_ids as vLLM does: "
            f"HTTP {reply.status}: {text[:300]}"
        ) from None
    if len(continued) != check.continuation_tokens:
        raise NoAnswerError(
            f"asked for {check.continuation_tokens} tokens after a prompt of {len(prompt)}, "
            f"got {len(continued)}"
        )
    return Answer(
        prompt=key_of(prompt),
        token_ids=np.array(prompt[1:], np.int32),
        logprobs=np.array(own, np.float32),
        top_ids=np.array([[token for _, token in row] for row in rows], np.int32),
        top_logprobs=np.array([[-cost for cost, _ in row] for row in rows], np.float32),
        continued=continued,
    )


def _likeliest(row: Mapping[str, Any], top: int) -> list[tuple[float, int]]:
    """(−logprob, token) of the likeliest tokens; among equals, the lower token id comes first.

    vLLM adds the prompt's own token if it is not among them; it then ranks last, and is cut off.
    """
    told = sorted((-float(entry["logprob"]), int(token)) for token, entry in row.items())
    if len(told) < top:
        raise ValueError("too few")
    return told[:top]


def _is_prompt(value: Any) -> bool:
    if not isinstance(value, list) or len(value) < 2:
        return False
    return all(isinstance(token, int) and token >= 0 for token in value)
