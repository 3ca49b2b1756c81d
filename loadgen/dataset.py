"""Conversations of people, from a file.

The file is a JSON list of entries or has one entry per line; an entry takes one of two forms:

    {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}   ShareGPT
    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", …}]}            OpenAI

A `content` may be a list of parts. Text is used; images, tool calls and tool replies are not.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

Message = dict[str, str]  # role (system, user or assistant), content
Dialogue = tuple[Message, ...]

FORMS = {"messages": ("role", "content"), "conversations": ("from", "value")}
EXPECTED = "expected an object with `conversations` (from, value) or `messages` (role, content)"
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}


def read(path: str) -> tuple[Dialogue, ...]:
    """The dialogues with a user message. Malformed input is a ValueError that says where.

    Each holds the system messages before the first user message, then everything from the first
    user message to the last, whose answer is left to the server. The latest file is cached: a
    sweep reads the same one again and again.
    """
    return _read(path, Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read(path: str, _modified_ns: int) -> tuple[Dialogue, ...]:
    with Path(path).open(encoding="utf-8-sig") as file:
        is_list = file.read(1) == "["
        file.seek(0)
        entries = _list_entries(file, path) if is_list else _line_entries(file, path)
        dialogues = tuple(filter(None, (_dialogue(entry, where) for entry, where in entries)))
    if not dialogues:
        raise ValueError(f"{path}: no user message in it, {EXPECTED}")
    return dialogues


def _list_entries(file: TextIO, path: str) -> Iterator[tuple[Any, str]]:
    try:
        entries = json.load(file)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error}), {EXPECTED}") from None
    for number, entry in enumerate(entries, 1):
        yield entry, f"{path}: entry {number}"


def _line_entries(file: TextIO, path: str) -> Iterator[tuple[Any, str]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            yield json.loads(text), f"{path}:{line}"
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{line}: not JSON ({error}), {EXPECTED}") from None


def _dialogue(entry: Any, where: str) -> Dialogue:
    """The part of an entry that is sent; empty if no user says anything in it."""
    said = list(_messages(entry, where))
    users = [place for place, message in enumerate(said) if message["role"] == "user"]
    if not users:
        return ()
    before = [message for message in said[: users[0]] if message["role"] == "system"]
    return (*before, *said[users[0] : users[-1] + 1])


def _messages(entry: Any, where: str) -> Iterator[Message]:
    form = next((form for form in FORMS if isinstance(entry, dict) and form in entry), None)
    if form is None or not isinstance(entry[form], list):
        raise ValueError(f"{where}: {json.dumps(entry):.60}, {EXPECTED}")
    role_name, content_name = FORMS[form]
    for message in entry[form]:
        if not isinstance(message, dict) or not isinstance(message.get(role_name), str):
            raise ValueError(f"{where}: {json.dumps(message):.60} has no {role_name}, {EXPECTED}")
        role, content = ROLES.get(message[role_name]), _text(message.get(content_name), where)
        if role and content:
            yield {"role": role, "content": content}


def _text(content: Any, where: str) -> str:
    """The text of a content: a string, a list of parts, or None (a tool call has no content)."""
    match content:
        case str():
            return content
        case None:
            return ""
        case list() if all(isinstance(part, dict) for part in content):
            texts = (part.get("text") for part in content)
            return "\n".join(text for text in texts if isinstance(text, str))
    raise ValueError(f"{where}: {json.dumps(content):.60}, expected a text or a list of parts")
