"""A study on disk: writes and reads everything that was measured.

    <out>/<sweep>/<date>-<plan id>/
      study.json          plan, configuration, environment snapshot, measurement version
      launches/<id>/      launch.json, server.log, command.txt
      runs/<id>/          run.json, requests.parquet, chunks.parquet, gpu.parquet, ...
      checks/<setting>/   results of checks made once per engine setting: NAME.json
      table.*, plots/, report.*   made from the above, again whenever asked for

A run's folder appears by a rename, complete or not at all: whatever is there after the harness was
killed had been finished.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from harness.errors import UserError
from harness.identity import MEASUREMENT_VERSION
from harness.plan import Plan
from harness.samples import Columns, parts, read, write

NEEDED = ("sweep", "axes", "runs")  # keys of study.json that every reader needs


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """One run on disk: run.json, launch.json of its launch, and the folder of its samples."""

    record: dict[str, Any]
    launch: dict[str, Any]
    folder: Path

    @property
    def ok(self) -> bool:
        """Whether the run measured something."""
        return bool(self.record["status"] == "ok")

    @property
    def whole(self) -> bool:
        """Whether it is ok and its window was not cut short because the answer was clear early."""
        return self.ok and not self.record.get("stopped")

    @property
    def launch_id(self) -> str:
        """The launch's id, without the number of the server's life."""
        return str(self.record["launch"]).rpartition(".")[0]

    @property
    def asked_load(self) -> dict[str, Any]:
        """The load as asked for; for a search, without the rate that was chosen for the probe."""
        load: dict[str, Any] = self.record["load"]
        return dict(self.record.get("load_asked", load)) if load.get("search") else load

    def samples(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """The columns of NAME.parquet; empty if it was not sampled. Raises DamagedRunError."""
        path = self.folder / f"{name}.parquet"
        try:
            return read(path) if path.is_file() else {}
        except (OSError, ValueError) as error:
            raise damaged(self, error) from None

    def chunks(self) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """The columns of chunks.parquet in parts, as there may be a hundred million chunks.

        Raises DamagedRunError.
        """
        try:
            yield from parts(self.folder / "chunks.parquet")
        except (OSError, ValueError) as error:
            raise damaged(self, error) from None


class DamagedRunError(UserError):
    """A run has files that cannot be read: nothing can be made with it, only without it."""

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(
            f"{folder} is damaged ({why}): delete it, and the sweep's command measures it again."
        )
        self.run = folder.name
        self.why = why


def damaged(run: SavedRun, error: Exception) -> DamagedRunError:
    """The refusal to go on with a run whose files cannot be read."""
    return DamagedRunError(run.folder, " ".join(f"{type(error).__name__}: {error}".split()))


class Study:
    """A study's folder, for writing and reading."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None  # a file descriptor that holds the lock
        self._left_out: dict[str, str] = {}  # damaged runs, and what is wrong with them

    @classmethod
    def open(cls, out: Path, plan: Plan, about: dict[str, Any], *, fresh: bool) -> Self:
        """The study of this plan: the one begun earlier, or a new one.

        `about` are the entries of study.json besides the plan. Raises UserError if `out` cannot be
        written, or if another harness is at work in the study.
        """
        studies = out / plan.sweep
        begun = sorted(
            studies.glob(f"*-{plan.id}*/study.json"), key=lambda path: path.stat().st_mtime_ns
        )
        first = studies / f"{datetime.now(UTC):%Y-%m-%d}-{plan.id}"
        names = chain([first], (first.with_name(f"{first.name}-{n}") for n in count(2)))
        new = next(folder for folder in names if not folder.exists())
        study = cls(new if fresh or not begun else begun[-1].parent)
        try:
            (study.folder / "runs").mkdir(parents=True, exist_ok=True)
            (study.folder / "launches").mkdir(exist_ok=True)
            study.lock()
        except OSError as error:
            raise UserError(f"out={out}: cannot be written ({error.strerror}).") from None
        for rest in (study.folder / "runs").glob(".*"):  # the harness was killed while it wrote
            final = rest.with_name(rest.name[1:])
            if (rest / "run.json").is_file() and not final.exists():  # written last: complete
                rest.rename(final)
            else:
                shutil.rmtree(rest)
        if not (study.folder / "study.json").is_file():
            head = {
                "sweep": plan.sweep,
                "plan": plan.id,
                "measurement_version": MEASUREMENT_VERSION,
            }
            _write_json(study.folder / "study.json", head | about)
        return study

    def lock(self) -> None:
        """Lock the study until `close`. Raises UserError if another harness holds the lock."""
        self._lock = os.open(self.folder / ".lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UserError(
                f"another harness is at work in {self.folder}: wait for it, or measure elsewhere"
                " by out=FOLDER."
            ) from None

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def models(self) -> Path:
        """The folder of models made from shapes, beside all sweeps."""
        return self.folder.resolve().parents[1] / ".models"

    @property
    def about(self) -> dict[str, Any]:
        """The contents of study.json. Raises UserError if it is absent or damaged."""
        try:
            told = _read_json(self.folder / "study.json")
            if absent := [name for name in NEEDED if name not in told]:
                raise ValueError(f"it has no '{absent[0]}'")
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{self.folder} is not a study: it has no study.json.") from None
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.folder}/study.json is damaged ({error}).") from None
        return told

    def add(self, **entries: Any) -> None:
        """Add or replace entries of study.json."""
        _write_json(self.folder / "study.json", self.about | entries)

    def status(self, run_id: str) -> str | None:
        """A run's status: ok, failed or skipped; None if it is not there."""
        record = self._record(run_id)
        return str(record["status"]) if record else None

    def new_launch(self, launch_id: str) -> Path:
        """A new folder for a life of a server: LAUNCH_ID.1, then LAUNCH_ID.2 for a second one."""
        life = 1
        while (folder := self.folder / "launches" / f"{launch_id}.{life}").exists():
            life += 1
        folder.mkdir()
        return folder

    def facts(self, launch_id: str) -> dict[str, Any]:
        """The facts that the launch's last server that came up reported; empty if none did."""
        lives = (self.folder / "launches").glob(f"{launch_id}.*/launch.json")
        in_turn = sorted(lives, key=lambda path: int(path.parent.name.rpartition(".")[2]))
        told = [_read_json(path) for path in in_turn]
        return next((dict(x["facts"]) for x in reversed(told) if x.get("facts")), {})

    def save_launch(self, folder: Path, record: dict[str, Any]) -> None:
        """Write launch.json."""
        _write_json(folder / "launch.json", record)

    def save_run(self, run_id: str, record: dict[str, Any], **samples: Columns) -> None:
        """Write a run with its samples; it appears on disk all at once."""
        final = self.folder / "runs" / run_id
        draft = final.with_name(f".{run_id}")
        draft.mkdir()
        for name, columns in samples.items():
            if columns:
                write(draft / f"{name}.parquet", columns)
        _write_json(draft / "run.json", record)
        if final.exists():  # a failed run that was retried
            shutil.rmtree(final)
        draft.rename(final)

    def check(self, setting: str, name: str) -> dict[str, Any] | None:
        """The result of an engine setting's check, or why it failed; None if it was not done."""
        try:
            record = _read_json(self.folder / "checks" / setting / f"{name}.json")
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return record if "status" in record else None

    def checks(self, setting: str) -> dict[str, dict[str, Any] | None]:
        """The results of all checks of an engine setting, by name."""
        files = (self.folder / "checks" / setting).glob("*.json")
        return {path.stem: self.check(setting, path.stem) for path in files}

    def has_check(self, setting: str, name: str, *, retry: bool) -> bool:
        """Whether a check is done; a failed one is, unless it is to be retried."""
        found = self.check(setting, name)
        return found is not None and not (retry and found["status"] == "failed")

    def checked(self) -> list[str]:
        """The engine settings that have checks."""
        return sorted(folder.name for folder in (self.folder / "checks").glob("*"))

    def check_samples(self, setting: str, name: str) -> Columns:
        """The samples that a check stored beside its record. Raises OSError."""
        return read(self.folder / "checks" / setting / f"{name}.parquet")

    def save_check(
        self, setting: str, name: str, record: dict[str, Any], **samples: Columns
    ) -> None:
        """Write the result of an engine setting's check: samples first, NAME.json last."""
        folder = self.folder / "checks" / setting
        folder.mkdir(parents=True, exist_ok=True)
        for part, columns in samples.items():
            write(folder / f"{name}_{part}.parquet", columns)
        _write_json(folder / f"{name}.json", record)

    @contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        """A path to write to; the file is renamed to `name` once it is complete."""
        path = self.folder / f".{name}"
        yield path
        path.replace(self.folder / name)

    def runs(self, only: Collection[str] | None = None) -> Iterator[SavedRun]:
        """Saved runs in the order of the plan, or `only` these, without skipped or damaged ones."""
        for run_id in self.about["runs"]:
            if run_id in self._left_out or (only is not None and run_id not in only):
                continue
            if (record := self._record(run_id)) and record["status"] != "skipped":
                told = self._launch(str(record.get("launch")))
                folder = self.folder / "runs" / run_id
                yield SavedRun(record=record, launch=told, folder=folder)

    def skipped(self) -> dict[str, str]:
        """The runs that were not needed, with the reasons."""
        records = {run: self._record(run) or {} for run in self.about["runs"]}
        return {
            run: str(record.get("reason"))
            for run, record in records.items()
            if record.get("status") == "skipped"
        }

    def leave_out(self, damage: DamagedRunError) -> None:
        """Go on without a run, because it was found to be damaged when its samples were read."""
        self._left_out[damage.run] = damage.why

    def damaged(self) -> dict[str, str]:
        """Runs that are left out because they are damaged, and what is wrong with them.

        They have a run.json that cannot be read, and so count as not measured, or were found when
        their samples were read.
        """
        files = {run: self.folder / "runs" / run / "run.json" for run in self.about["runs"]}
        unread = [run for run, file in files.items() if file.is_file() and not self._record(run)]
        return dict.fromkeys(unread, "run.json cannot be read") | self._left_out

    def _launch(self, name: str) -> dict[str, Any]:
        """The contents of launch.json; empty if absent. Raises UserError if it is damaged."""
        path = self.folder / "launches" / name / "launch.json"
        try:
            return _read_json(path)
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path} is damaged ({error}): delete it, and the runs of that launch; the same"
                " command measures them again."
            ) from None

    def _record(self, run_id: str) -> dict[str, Any] | None:
        """The contents of run.json; None if absent or damaged: the run is then still to do."""
        try:
            record = _read_json(self.folder / "runs" / run_id / "run.json")
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return record if "status" in record else None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(value, indent=1, default=_plain) + "\n")
    draft.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
