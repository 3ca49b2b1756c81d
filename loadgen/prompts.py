"""What is sent: request bodies, made of random tokens or of people's text. Pure and seeded.

No two prompts begin alike unless sharing is asked for, neither inside a run nor between runs of
different seeds; what a chat template puts in front of all of them is the exception.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loadgen import dataset, lengths, trace
from loadgen.config import Dataset, Empirical, Load, SharedPrefix
from loadgen.dataset import Dialogue
from loadgen.records import Target
from loadgen.tokens import GOLDEN, Digits, Kind, Tokens

TEXT_NUMBERS = 10**12  # a number of 12 digits is shorter than a KV block of 16 tokens

to_json = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    index: int  # unique in the run: conversation number · max turns + turn − 1
    conversation: int  # its number; in an open loop, the number of the arrival
    turn: int  # from 1
    input_tokens: int | None  # None: it is text, and only the server knows its tokens
    output_tokens: int
    body: bytes  # JSON
    messages: Dialogue = ()  # chat: what was said so far, for the next turn


class Prompts:
    """The requests of one run, by number. Files are read once, when this is made."""

    def __init__(self, *, load: Load, target: Target, seed: int) -> None:
        self._load, self._seed = load, seed
        self._is_chat = load.endpoint == "chat"
        self._max_turns = load.conversation.turns if load.conversation else 1
        self._head = _head(load, target)
        self._tokens = Tokens(target, seed)
        self._input_tokens = lengths.sampler(load.input_tokens)
        self._output_tokens = lengths.sampler(load.output_tokens)
        self._entries = trace.read(load.trace.path) if load.trace else ()
        source = load.prompts
        self._dialogues = dataset.read(source.path) if isinstance(source, Dataset) else ()

    def request(self, conversation: int) -> Request:
        """The first turn of a conversation."""
        return self._turn(conversation, 1, ())

    def next_turn(self, request: Request, reply_text: str) -> Request | None:
        """The request that follows a reply; None when the conversation is over."""
        conversation, turn = request.conversation, request.turn + 1
        if turn > self._max_turns or (self._dialogues and turn > len(self._users(conversation))):
            return None
        said = (*request.messages, {"role": "assistant", "content": reply_text})
        return self._turn(conversation, turn, said)

    def _turn(self, conversation: int, turn: int, said: Dialogue) -> Request:
        index = conversation * self._max_turns + turn - 1
        random = self._tokens.random(Kind.PROMPT, index)
        input_tokens, output_tokens = self._lengths(conversation, random)
        messages: Dialogue = ()
        if self._dialogues:
            messages = (*said, *self._spoken(conversation, turn))
            content = to_json(messages if self._is_chat else messages[0]["content"]).encode()
        else:
            shared = self._shared(conversation, turn, input_tokens, random)
            own = self._tokens.draw(Kind.PROMPT, index, input_tokens - len(shared), random)
            digits = np.concatenate((shared, own)) if len(shared) else own
            if self._is_chat:
                messages = (*said, {"role": "user", "content": self._tokens.words(digits)})
                content = to_json(messages).encode()
            else:
                content = self._tokens.json(digits)
        return Request(
            index=index,
            conversation=conversation,
            turn=turn,
            input_tokens=None if self._dialogues or said else input_tokens,
            output_tokens=output_tokens,
            body=b"%b%b}" % (self._head % output_tokens, content),
            messages=messages,
        )

    def _lengths(self, conversation: int, random: np.random.Generator) -> tuple[int, int]:
        if self._entries:
            entry = self._entry(conversation)
            return entry.input_tokens, entry.output_tokens
        return self._input_tokens(random), self._output_tokens(random)

    def _entry(self, conversation: int) -> trace.Entry:
        # Requests are made ahead of time; those past the end of the trace never become due.
        return self._entries[conversation % len(self._entries)]

    def _shared(
        self, conversation: int, turn: int, input_tokens: int, random: np.random.Generator
    ) -> Digits:
        """The shared beginning of a prompt: the blocks of a trace, or the prefix of a group."""
        source, draw = self._load.prompts, self._tokens.draw
        if self._entries:
            ids = self._entry(conversation).hash_ids
            blocks = [draw(Kind.BLOCK, hash_id, trace.BLOCK_TOKENS) for hash_id in ids]
            return np.concatenate([NOTHING, *blocks])[:input_tokens]
        if isinstance(source, SharedPrefix) and turn == 1:
            group = int(random.integers(source.groups))
            return draw(Kind.PREFIX, group, round(source.hit_frac * input_tokens))
        return NOTHING

    def _spoken(self, conversation: int, turn: int) -> Dialogue:
        """What people say in this turn; in a chat without turns, all up to the last answer."""
        dialogue, users = self._dialogue(conversation), self._users(conversation)
        if turn > 1:
            return (dialogue[users[turn - 1]],)
        if not self._is_chat:
            dialogue = (dialogue[users[0]],)
        elif self._load.conversation:
            dialogue = dialogue[: users[0] + 1]
        if isinstance(self._load.prompts, Dataset) and self._load.prompts.unique:
            number = (self._seed * GOLDEN + conversation) % TEXT_NUMBERS
            first = dialogue[0]  # the system's if there is one, as a cache could hit on that too
            return ({**first, "content": f"{number} {first['content']}"}, *dialogue[1:])
        return dialogue

    def _dialogue(self, conversation: int) -> Dialogue:
        """The file's dialogues in random order; after the last, all again in another order."""
        around, place = divmod(conversation, len(self._dialogues))
        return self._dialogues[_order(self._seed, around, len(self._dialogues))[place]]

    def _users(self, conversation: int) -> list[int]:
        """The positions of the user's messages in the dialogue."""
        dialogue = self._dialogue(conversation)
        return [place for place, message in enumerate(dialogue) if message["role"] == "user"]


NOTHING: Digits = np.empty(0, np.int64)


@lru_cache(maxsize=2)  # conversations of the previous round may still be going on
def _order(seed: int, around: int, size: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, Kind.ORDER, around)).permutation(size)


def _head(load: Load, target: Target) -> bytes:
    """The body up to the prompt: the same for all, but for a %d where the reply's tokens go."""
    payload = {"model": target.model, "temperature": load.temperature, "stream": load.stream}
    if load.stream:
        payload["stream_options"] = {"include_usage": True}
    if load.ignore_eos:
        payload["ignore_eos"] = True
    constant = to_json(payload)[:-1].replace("%", "%%")
    content = "prompt" if load.endpoint == "completions" else "messages"
    return f'{constant},"max_tokens":%d,"{content}":'.encode()


def check_files(load: Load) -> None:
    """Raise ValueError, with one sentence, for a file that is missing, malformed or too short."""
    for name, (path, read) in _files(load).items():
        try:
            read(path)
        except OSError as error:
            raise ValueError(f"{name}={path}: {error.strerror}, give a file to read") from None
        except UnicodeDecodeError:
            raise ValueError(f"{name}={path}: not text in UTF-8, give a text file") from None
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if load.trace is not None:
        lasts_s = trace.read(load.trace.path)[-1].offset_s / load.trace.speed
        if lasts_s < load.planned_s:
            raise ValueError(
                f"trace.path={load.trace.path}: it lasts {lasts_s:.6g} s at speed="
                f"{load.trace.speed:g}, less than warmup_s + duration_s = {load.planned_s:g} s: "
                "lower them or the speed"
            )


def file_digests(load: Load) -> dict[str, str]:
    """SHA-256 of each file that the load uses, by the name of its setting."""
    digests = {}
    for name, (path, _) in _files(load).items():
        with Path(path).open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _files(load: Load) -> dict[str, tuple[str, Callable[[str], object]]]:
    """Path and reader, by the setting's dotted name."""
    files: dict[str, tuple[str, Callable[[str], object]]] = {}
    if isinstance(load.input_tokens, Empirical):
        files["input_tokens.path"] = load.input_tokens.path, lengths.read
    if isinstance(load.output_tokens, Empirical):
        files["output_tokens.path"] = load.output_tokens.path, lengths.read
    if isinstance(load.prompts, Dataset):
        files["prompts.path"] = load.prompts.path, dataset.read
    if load.trace is not None:
        files["trace.path"] = load.trace.path, trace.read
    return files
