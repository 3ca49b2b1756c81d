"""The longest prompt that a server really serves: doubling until one fails, then bisection.

`max_model_len` is what vLLM accepts, and the KV cache limits what fits; what is really served is
found by trying. Each try is a prompt of random tokens with one token of reply, alone in the server.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from time import perf_counter
from typing import Literal

from harness.engines import http
from loadgen.records import Target

GRANULARITY_FRAC = 0.01  # of the answer: where bisection stops
LEAST_TOKENS = 2  # a prompt of one token, and its reply
MOST_TOKENS = 2**24  # for a server that names no limit, and might serve whatever is sent

Fate = Literal["served", "refused", "failed", "died"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """What became of one prompt; if it was not served, `why` has the server's words.

    After "died", no more can be asked.
    """

    tokens: int
    fate: Fate
    took_s: float
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LongestContext:
    """What was found; `limit` says why nothing longer was served."""

    tokens: int | None  # prompt and reply; None if none was served
    took_s: float | None  # until its one token came
    limit: str
    refused_cleanly: bool | None  # whether max_model_len + 1 gave HTTP 400; None: not tried
    tries: tuple[Try, ...]


def find(ask: Callable[[int], Try], start_tokens: int, max_model_len: int | None) -> LongestContext:
    """Try ever longer prompts. `ask` takes the length of a prompt plus its one token of reply.

    `max_model_len` + 1 is tried once, to see whether it is refused and not partly served. A server
    that dies ends the search, which then gives what it had served before.
    """
    tries: list[Try] = []

    def asked(tokens: int) -> Try:
        tries.append(ask(tokens))
        return tries[-1]

    most = max_model_len or MOST_TOKENS
    longest, failed = _doubled(asked, min(start_tokens, most), most)
    while failed is not None and failed.fate != "died":
        served = longest.tokens if longest else LEAST_TOKENS - 1
        if failed.tokens - served <= _granularity(served):
            break
        middle = asked((served + failed.tokens) // 2)
        longest, failed = (middle, failed) if middle.fate == "served" else (longest, middle)
    over = asked(max_model_len + 1) if max_model_len and failed is None else None
    limit = f"max_model_len={max_model_len}" if max_model_len else f"nothing over {most} was asked"
    limit = failed.why if failed else limit
    return LongestContext(
        tokens=longest.tokens if longest else None,
        took_s=longest.took_s if longest else None,
        limit=limit,
        refused_cleanly=None if over is None else over.fate == "refused",
        tries=tuple(tries),
    )


def _doubled(asked: Callable[[int], Try], tokens: int, most: int) -> tuple[Try | None, Try | None]:
    """The longest try that was served, and the first that was not; None if there is none."""
    longest: Try | None = None
    while True:
        answer = asked(tokens)
        if answer.fate != "served":
            return longest, answer
        longest = answer
        if tokens >= most:
            return longest, None
        tokens = min(2 * tokens, most)


def _granularity(tokens: int) -> int:
    return max(16, int(tokens * GRANULARITY_FRAC))


def ask(target: Target, tokens: int, timeout_s: float) -> Try:
    """Send a prompt of `tokens - 1` random tokens, and wait for its one token of reply."""
    draw = Random(tokens)
    first, end = target.first_token_id, target.vocab_size
    prompt = [draw.randrange(first, end) for _ in range(tokens - 1)]
    body = {"model": target.model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
    began_at_s = perf_counter()
    try:
        answer = http.request(
            f"{target.url}/v1/completions", timeout_s=timeout_s, body=body, headers=target.headers
        )
    except TimeoutError:
        why = f"no token within {timeout_s:g} s"
        return Try(tokens=tokens, fate="failed", took_s=perf_counter() - began_at_s, why=why)
    except OSError as error:
        took_s = perf_counter() - began_at_s
        return Try(tokens=tokens, fate="failed", took_s=took_s, why=str(error))
    took_s = perf_counter() - began_at_s
    content = answer.json()
    if answer.status == 200 and isinstance(content, dict) and content.get("choices"):
        return Try(tokens=tokens, fate="served", took_s=took_s)
    why = " ".join(answer.body.split())[:300]
    fate: Fate = "refused" if answer.status == 400 else "failed"
    return Try(tokens=tokens, fate=fate, took_s=took_s, why=f"HTTP {answer.status}: {why}")
