"""Recorded traces: when requests came, how long they were, and which blocks they shared.

Mooncake publishes JSON lines, BurstGPT a CSV table. The field names tell them apart, so either file
format may hold either of them, or the plain names of this library:

    Mooncake   timestamp (ms)   input_length    output_length    hash_ids
    BurstGPT   Timestamp (s)    Request tokens  Response tokens
    plain      timestamp_s      input_tokens    output_tokens    hash_ids

Each hash id stands for the next BLOCK_TOKENS tokens of the prompt, or for what is left of it.

Requests without input or without output have failed, and are left out: 7 % of BurstGPT's third
release, and none of its `without_fails` files.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, isfinite
from pathlib import Path
from typing import Any, TextIO

BLOCK_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A request of the trace."""

    offset_s: float  # after the first one
    input_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Names:
    """What a format calls its fields."""

    at: str
    unit_s: float
    input_tokens: str
    output_tokens: str

    def are_in(self, row: Iterable[str]) -> bool:
        return {self.at, self.input_tokens, self.output_tokens} <= set(row)

    def __str__(self) -> str:
        return f"{self.at}, {self.input_tokens}, {self.output_tokens}"


FORMATS = (
    Names("timestamp", 1e-3, "input_length", "output_length"),
    Names("Timestamp", 1.0, "Request tokens", "Response tokens"),
    Names("timestamp_s", 1.0, "input_tokens", "output_tokens"),
)


def read(path: str) -> tuple[Entry, ...]:
    """The entries by time, the first at 0. Malformed input is a ValueError that names the line.

    The latest file is cached: a sweep reads the same one again and again.
    """
    return _read(path, Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read(path: str, _modified_ns: int) -> tuple[Entry, ...]:
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        is_json = file.read(1).strip() in ("{", "[", "")  # a table begins with a name
        file.seek(0)
        rows = _json_rows(file, path) if is_json else _table_rows(file, path)
        found = [_entry(row, names, where) for row, names, where in rows]
    entries = sorted(
        (entry for entry in found if entry.input_tokens and entry.output_tokens),
        key=lambda entry: entry.offset_s,
    )
    if not entries:
        raise ValueError(f"{path}: no request in it, expected one a line")
    first_s = entries[0].offset_s
    return tuple(replace(entry, offset_s=entry.offset_s - first_s) for entry in entries)


Row = tuple[dict[str, Any], Names, str]  # its fields, their names, and the place in the file


def _json_rows(file: TextIO, path: str) -> Iterator[Row]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{line}: not JSON ({error}), expected an object") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{line}: {text.strip()[:40]!r}, expected a JSON object")
        yield row, _names(row, f"{path}:{line}"), f"{path}:{line}"


def _table_rows(file: TextIO, path: str) -> Iterator[Row]:
    reader = csv.DictReader(file)
    names = _names(reader.fieldnames or (), f"{path}:1")
    for row in reader:
        yield row, names, f"{path}:{reader.line_num}"


def _names(row: Iterable[str], where: str) -> Names:
    for names in FORMATS:
        if names.are_in(row):
            return names
    expected = "; or ".join(map(str, FORMATS))
    raise ValueError(f"{where}: found {', '.join(row) or 'nothing'}, expected {expected}")


def _entry(row: dict[str, Any], names: Names, where: str) -> Entry:
    input_tokens = _count(row, names.input_tokens, where)
    return Entry(
        offset_s=_number(row, names.at, where) * names.unit_s,
        input_tokens=input_tokens,
        output_tokens=_count(row, names.output_tokens, where),
        hash_ids=_hash_ids(row.get("hash_ids") or [], input_tokens, where),
    )


def _hash_ids(ids: Any, input_tokens: int, where: str) -> tuple[int, ...]:
    if not isinstance(ids, list) or not all(type(each) is int and each >= 0 for each in ids):
        raise ValueError(f"{where}: hash_ids is {ids!r:.60}, expected a list of whole numbers")
    if len(ids) > (blocks := ceil(input_tokens / BLOCK_TOKENS)):
        raise ValueError(
            f"{where}: {len(ids)} hash_ids for {input_tokens} input tokens, expected at most "
            f"{blocks}: one for each {BLOCK_TOKENS} of them"
        )
    return tuple(ids)


def _count(row: dict[str, Any], name: str, where: str) -> int:
    number = _number(row, name, where)
    if number < 0 or not number.is_integer():
        raise ValueError(f"{where}: {name} is {row[name]!r}, expected a whole number of tokens")
    return int(number)


def _number(row: dict[str, Any], name: str, where: str) -> float:
    try:
        number = float(row[name])
    except (TypeError, ValueError):
        number = float("nan")
    if not isfinite(number):
        raise ValueError(f"{where}: {name} is {row[name]!r}, expected a number")
    return number
