"""Parses replies of OpenAI's endpoints: streams (Server-Sent Events) and whole JSON objects.

Pure. A reply is given as the pieces in which its bytes arrived; where they were split does not
change what it says. Each event of a stream is one `data:` line, as all OpenAI-compatible servers
write it.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

DONE = b"[DONE]"
DELTA_CONTENT = ("content", "reasoning", "reasoning_content", "tool_calls")
TEXT_FIELD = re.compile(rb'"(?:text|content|reasoning|reasoning_content)": ?"')
# Characters that a JSON string holds unescaped.
PLAIN = re.compile(rb"[ !#-\[\]-~]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    input_tokens: int
    output_tokens: int
    cached_tokens: int | None  # None: the server does not say


@dataclass(slots=True, kw_only=True)
class Reply:
    """What a server said, up to where it ended."""

    content_pieces: list[int] = field(default_factory=list)  # which piece ended each content chunk
    texts: list[str] = field(default_factory=list)  # of the answer, if asked for
    finish_reason: str | None = None
    usage: Usage | None = None
    error: str | None = None  # the first error chunk
    garbled: str | None = None  # the first line that cannot be understood


def parse_stream(pieces: Sequence[bytes], *, keep_text: bool = False) -> Reply:
    """Parse a whole stream; an unfinished last line counts only if it can be parsed."""
    reply = Reply()
    ends = list(accumulate(map(len, pieces)))
    piece, template = 0, _Template()
    for line, end, finished in _lines(b"".join(pieces)):
        if (text := template.text_in(line)) is not None:
            has_content = bool(text)
            if keep_text:
                reply.texts.append(text.decode())
        elif line.startswith(b"data:"):
            has_content = _read_line(line, finished, reply, template, keep_text)
        else:
            continue  # a comment (a keep-alive), an event name, or the blank line after an event
        if has_content:
            while ends[piece] < end:
                piece += 1
            reply.content_pieces.append(piece)
    return reply


def parse_whole(pieces: Sequence[bytes], *, keep_text: bool = False) -> Reply:
    """Parse a reply that was not streamed: one JSON object, without content chunks."""
    reply, body = Reply(), b"".join(pieces)
    try:
        _read_event(json.loads(body), reply, keep_text)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        reply.garbled = body[:1000].decode(errors="replace") or "an empty reply"
    return reply


class _Template:
    """A content event of this stream, to recognise others that differ only in their text.

    A line with the same bytes before and after its text, and no escapes in the text, says what the
    learnt one said. Comparing costs a tenth of parsing.
    """

    __slots__ = ("_after", "_before", "_shortest")

    def __init__(self) -> None:
        self._before, self._after, self._shortest = b"", b"", -1

    def text_in(self, line: bytes) -> bytes | None:
        """The text of a line that matches the learnt one; None if it does not."""
        start, end = len(self._before), len(line) - len(self._after)
        if self._shortest < 0 or len(line) < self._shortest:
            return None
        if not (line.startswith(self._before) and line.endswith(self._after)):
            return None
        return line[start:end] if PLAIN.fullmatch(line, start, end) else None

    def learn(self, line: bytes, event: dict[str, Any]) -> None:
        """Learn an event that says nothing but the text of its one choice."""
        choices = event.get("choices") or []
        if len(choices) != 1 or choices[0].get("finish_reason") or event.get("usage"):
            return
        found = [*TEXT_FIELD.finditer(line)]
        if len(found) != 1:
            return
        start = found[0].end()
        end = line.index(b'"', start)
        text = line[start:end]
        said = _content(choices[0])
        if PLAIN.fullmatch(text) and said == ([text.decode()] if text else []):
            self._before, self._after = line[:start], line[end:]
            self._shortest = start + len(self._after)


def _lines(body: bytes) -> Iterator[tuple[bytes, int, bool]]:
    """Each non-empty line, the offset of the byte after it, and whether a line feed ended it."""
    end = 0
    lines = body.split(b"\n")
    last = lines.pop()
    for line in lines:
        end += len(line) + 1
        if line:
            yield line, end, True
    if last:
        yield last, len(body), False


def _read_line(
    line: bytes, finished: bool, reply: Reply, template: _Template, keep_text: bool
) -> bool:
    data = line[5:].strip()
    if data == DONE:
        return False
    try:
        event = json.loads(data)
        has_content = _read_event(event, reply, keep_text)
        template.learn(line, event)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        if finished:
            reply.garbled = reply.garbled or data[:1000].decode(errors="replace")
        return False
    return has_content


def _read_event(event: dict[str, Any], reply: Reply, keep_text: bool) -> bool:
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
        content = _content(choice)
        has_content |= bool(content)
        if keep_text and content and isinstance(content[0], str):
            reply.texts.append(content[0])
    return has_content


def _content(choice: dict[str, Any]) -> list[Any]:
    """The non-empty fields of a choice that count as output."""
    said = choice.get("delta") or choice.get("message") or {}
    return [c for c in (choice.get("text"), *map(said.get, DELTA_CONTENT)) if c]
