"""What a streamed reply says: Server-Sent Events of the OpenAI completions and chat endpoints.

Pure. A reply is given as the pieces in which its bytes came; what it says does not depend on where
they were cut. Each event is one `data:` line, as all OpenAI-compatible servers write it.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

DONE = b"[DONE]"
DELTA_CONTENT = ("content", "reasoning", "reasoning_content", "tool_calls")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    input_tokens: int
    output_tokens: int
    cached_tokens: int | None  # None: the server does not say


@dataclass(slots=True, kw_only=True)
class Reply:
    """What a stream said, up to where it ended."""

    content_pieces: list[int]  # for each content chunk: the piece that brought its last byte
    finish_reason: str | None = None
    usage: Usage | None = None
    error: str | None = None  # the first error chunk
    garbled: str | None = None  # the first line that cannot be understood
    done: bool = False


def parse(pieces: Sequence[bytes]) -> Reply:
    """Read a whole stream; an unfinished last line counts only if it makes sense."""
    ends = list(accumulate(len(piece) for piece in pieces))
    reply = Reply(content_pieces=[])
    for line, end, finished in _lines(b"".join(pieces)):
        if not line.startswith(b"data:"):
            continue  # a comment (a keep-alive), an event name, or the blank line after an event
        data = line[5:].strip()
        if data == DONE:
            reply.done = True
            continue
        try:
            has_content = _read_event(json.loads(data), reply)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            if finished:
                reply.garbled = reply.garbled or data.decode(errors="replace")
            continue
        if has_content:
            reply.content_pieces.append(bisect_right(ends, end - 1))
    return reply


def _lines(body: bytes) -> Iterator[tuple[bytes, int, bool]]:
    """Each line, the offset of the byte after it, and whether a line feed ended it."""
    end = -1
    lines = body.split(b"\n")
    for line in lines[:-1]:
        end += len(line) + 1
        yield line, end, True
    if lines[-1]:
        yield lines[-1], len(body), False


def _read_event(event: dict[str, Any], reply: Reply) -> bool:
    """Enter one event into the reply; True if it carries content."""
    if event.get("error") or event.get("object") == "error":
        reply.error = reply.error or json.dumps(event.get("error") or event)
        return False
    if usage := event.get("usage"):
        details = usage.get("prompt_tokens_details") or {}
        reply.usage = Usage(
            input_tokens=int(usage["prompt_tokens"]),
            output_tokens=int(usage["completion_tokens"]),
            cached_tokens=details.get("cached_tokens"),
        )
    has_content = False
    for choice in event.get("choices", ()):
        reply.finish_reason = choice.get("finish_reason") or reply.finish_reason
        delta = choice.get("delta") or {}
        has_content |= bool(choice.get("text")) or any(delta.get(key) for key in DELTA_CONTENT)
    return has_content
