"""OpenAI's completion and chat formats, as vLLM writes them."""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

NUM_WORDS = 997  # different token texts; a prime, so that a text cycles through all of them


class BadRequestError(Exception):
    """HTTP 400."""


class ModelNotFoundError(Exception):
    """HTTP 404."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a request asks for. `stop` and sampling parameters are ignored: the text is noise."""

    chat: bool
    prompt: Sequence[int]
    max_tokens: int
    stream: bool
    include_usage: bool


def parse_ask(body: Any, *, chat: bool, model: str, max_model_len: int) -> Ask:
    """Parse a request. Raises BadRequestError or ModelNotFoundError, with vLLM's messages."""
    if not isinstance(body, dict):
        raise BadRequestError("Input should be a valid dictionary")
    if body.get("model", model) != model:
        raise ModelNotFoundError(f"The model `{body['model']}` does not exist.")
    prompt = _chat_tokens(body.get("messages")) if chat else _prompt_tokens(body.get("prompt"))
    room = max_model_len - len(prompt)
    if room < 1:
        raise BadRequestError(
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt "
            f"contains {len(prompt)} input tokens, which exceeds this limit even without any "
            "output tokens. Please reduce the length of the input prompt."
        )
    max_tokens = body.get("max_completion_tokens") or body.get("max_tokens")
    if max_tokens is None:
        max_tokens = room if chat else min(16, room)
    if not isinstance(max_tokens, int) or max_tokens < 1:
        raise BadRequestError(f"max_tokens must be at least 1, got {max_tokens}.")
    if max_tokens > room:
        raise BadRequestError(
            f"This model's maximum context length is {max_model_len} tokens. However, you "
            f"requested {max_tokens} output tokens and your prompt contains {len(prompt)} input "
            f"tokens, for a total of {max_tokens + len(prompt)} tokens. Please reduce the length "
            "of the input prompt or the number of requested output tokens."
        )
    return Ask(
        chat=chat,
        prompt=prompt,
        max_tokens=max_tokens,
        stream=bool(body.get("stream")),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
    )


def _words(text: str) -> list[int]:
    return [zlib.crc32(word.encode()) for word in text.split()]


def _prompt_tokens(prompt: Any) -> list[int]:
    """Token ids as given, or one token per word of text; a list of one prompt is that prompt."""
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        return _prompt_tokens(prompt[0])
    tokens = _words(prompt) if isinstance(prompt, str) else prompt
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise BadRequestError("prompt must be a string or a list of token ids, one to a request.")
    if not tokens:
        raise BadRequestError("The decoder prompt cannot be empty")
    return tokens


def _chat_tokens(messages: Any) -> list[int]:
    """One token per word; roles and the chat template count for none."""
    try:
        contents = [message["content"] for message in messages]
        texts = [
            content if isinstance(content, str) else " ".join(part["text"] for part in content)
            for content in contents
        ]
    except (TypeError, KeyError):
        raise BadRequestError("messages must be a list of {role, content}.") from None
    return _prompt_tokens(" ".join(texts))


class Writer:
    """The text and the chunks of one reply; the constant parts of a chunk are built once."""

    def __init__(self, ask: Ask, *, model: str, request_id: str, created: int, seed: int) -> None:
        self._ask = ask
        kind = "chat.completion" if ask.chat else "text_completion"
        self._head = {
            "id": f"{'chatcmpl' if ask.chat else 'cmpl'}-{request_id}",
            "object": kind + ".chunk" if ask.chat and ask.stream else kind,
            "created": created,
            "model": model,
        }
        before, after = self._chunk({"content": "\0"} if ask.chat else "\0").split("\\u0000")
        self._before, self._after = before, after
        self._words = self._texts(seed)

    def _texts(self, seed: int) -> Iterator[str]:
        """An endless text; the same seed and prompt give the same one."""
        prompt = ",".join(map(str, self._ask.prompt)).encode()
        word = zlib.crc32(prompt, seed & 0xFFFFFFFF)
        while True:
            word = (word + 389) % NUM_WORDS
            yield f" t{word}"

    def text(self, num_tokens: int) -> str:
        return "".join(next(self._words) for _ in range(num_tokens))

    def _chunk(self, content: Any) -> str:
        choice = {"index": 0, "delta" if self._ask.chat else "text": content, "logprobs": None}
        choice |= {"finish_reason": None, "stop_reason": None}
        return _event(self._head | {"choices": [choice]})

    def role(self) -> bytes:
        """The first chunk of a chat stream, sent along with the first token."""
        return self._chunk({"role": "assistant", "content": ""}).encode()

    def content(self, num_tokens: int, *, last: bool) -> bytes:
        chunk = self._before + self.text(num_tokens) + self._after
        if last:
            chunk = chunk.replace('"finish_reason":null', '"finish_reason":"length"')
        return chunk.encode()

    def usage(self, cached_tokens: int) -> bytes:
        return _event(self._head | {"choices": [], "usage": self._usage(cached_tokens)}).encode()

    def reply(self, cached_tokens: int) -> dict[str, Any]:
        """The whole reply, if it is not streamed."""
        text = self.text(self._ask.max_tokens)
        content: dict[str, Any] = {"text": text}
        if self._ask.chat:
            content = {"message": {"role": "assistant", "content": text}}
        choice = {"index": 0, **content, "logprobs": None}
        choice |= {"finish_reason": "length", "stop_reason": None}
        return self._head | {"choices": [choice], "usage": self._usage(cached_tokens)}

    def _usage(self, cached_tokens: int) -> dict[str, Any]:
        prompt_tokens, completion_tokens = len(self._ask.prompt), self._ask.max_tokens
        usage: dict[str, Any] = {
            "prompt_tokens": prompt_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "completion_tokens": completion_tokens,
        }
        if cached_tokens:
            usage["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
        return usage


def error_body(message: str, kind: str, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_event(message: str) -> bytes:
    """An error that occurs after the status line was sent, so under HTTP 200, as in vLLM."""
    return _event(error_body(message, "InternalServerError", 500)).encode()


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n"
