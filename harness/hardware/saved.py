"""Validations on disk. Only this module knows their paths.

<out>/validation/<date>-<id>/
  validation.json     options, environment, measurements, how each probe ended, rows, verdict
  card.md, plots/     made from the above
  probes/             what each probe printed
  steady_state.parquet  the monitor's samples of the GPUs in the steady state
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, Self

from harness.errors import UserError
from harness.hardware.card import Card, Row
from harness.hardware.probes.record import Measurement

FILE = "validation.json"
NEEDED = {"begun_utc", "options", "environment", "measurements", "rows", "verdict"}
VALIDATION_VERSION = 2  # raised when a measured number changes its meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """One saved validation."""

    folder: Path
    document: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The validation in a folder. Raises UserError if there is none, or it is damaged."""
        path = folder / FILE
        try:
            document = dict(json.loads(path.read_text()))
            if absent := NEEDED - document.keys():
                raise ValueError(f"it has no {', '.join(sorted(absent))}")
            return cls(folder=folder, document=document)
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{folder} is not a validation: it has no {FILE}.") from None
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}).") from None

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def begun_utc(self) -> str:
        return str(self.document["begun_utc"])

    @property
    def is_rehearsal(self) -> bool:
        return bool(self.document["options"]["rehearsal"])

    @property
    def uuids(self) -> set[str]:
        """The UUIDs of the cards it was made on."""
        return {gpu["uuid"] for gpu in self.document["environment"]["gpus"]}

    @property
    def measurements(self) -> list[Measurement]:
        told = self.document["measurements"]
        return [Measurement(**one | {"gpus": tuple(one["gpus"])}) for one in told]

    @property
    def card(self) -> Card:
        """The card as it was judged then."""
        rows = tuple(Row(**row) for row in self.document["rows"])
        return Card(rows=rows, verdict=self.document["verdict"])


def new_folder(out: Path) -> Path:
    """Make a folder for a validation that begins now. Raises UserError if that is not possible."""
    folder = out / "validation" / f"{datetime.now(UTC):%Y-%m-%d}-{token_hex(4)}"
    try:
        (folder / "probes").mkdir(parents=True)
        (folder / "plots").mkdir()
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror}).") from None
    return folder


def save(folder: Path, document: Mapping[str, Any]) -> Validation:
    """Write validation.json, completely or not at all."""
    draft = folder / f".{FILE}"
    draft.write_text(json.dumps(document, indent=1) + "\n")
    draft.replace(folder / FILE)
    return Validation.read(folder)


def saved(*outs: Path) -> Iterator[Validation]:
    """All readable validations below these folders, oldest first, without rehearsals."""
    paths = {p for out in outs for p in (out / "validation").glob(f"**/{FILE}")}
    found = []
    for path in paths:
        try:
            found.append(Validation.read(path.parent))
        except UserError:
            continue
    yield from sorted(
        (one for one in found if not one.is_rehearsal), key=lambda one: (one.begun_utc, one.id)
    )


def document_of(folder: Path) -> dict[str, Any]:
    """The validation.json or study.json of a folder, which drift compares. Raises UserError."""
    for name in (FILE, "study.json"):
        path = folder / name
        if path.is_file():
            try:
                document = dict(json.loads(path.read_text()))
            except ValueError as error:
                raise UserError(f"{path} is damaged ({error}).") from None
            if "environment" not in document:
                raise UserError(f"{path} has no snapshot of its environment.")
            return document
    raise UserError(f"drift={folder}: neither a validation nor a study, it has no {FILE}.")
