"""Opens a trace of any profiler, however it is compressed.

.sqlite                         an export of Nsight Systems
.nsys-rep                       its report: exported first, by `nsys`
.qdstrm                         an unfinished capture: imported, then exported
.json                           PyTorch's profiler
a folder                        the PyTorch traces in it, one per rank
any of the files with .xz, .gz  unpacked first
"""

import gzip
import lzma
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from profiles import nsys_export, torch_trace
from profiles.capture import export_sqlite, import_report
from profiles.errors import BadTrace, ProfileError
from profiles.trace import Trace

PACKED = (".xz", ".gz")
SUFFIXES = (".sqlite", ".nsys-rep", ".qdstrm", ".json")


def read(path: Path) -> Trace:
    """The trace at a path. Raises BadTrace or CaptureFailed."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _suffix(file) == ".json")
        if not files:
            raise BadTrace(f"{path}: a folder without a trace (.json or .json.gz)")
        return torch_trace.read(files, path.name)
    if not path.is_file():
        raise BadTrace(f"{path}: no such file")
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        raise BadTrace(
            f"{path}: no trace by its name, expected one of {', '.join(SUFFIXES)}"
            " (also with .xz or .gz), or a folder"
        )
    if suffix == ".json" and path.suffix != ".xz":
        return torch_trace.read([path], path.name)
    with _unpacked(path) as file:
        try:
            if suffix == ".json":
                trace = torch_trace.read([file], path.name)
            else:
                trace = nsys_export.read(_exported(file))
        except ProfileError as error:
            error.args = (_naming(path, file, str(error)),)
            raise
    return replace(trace, source=path.name)


def _naming(path: Path, file: Path, message: str) -> str:
    """A message that names the trace in place of its temporary copy, or what was made of that."""
    for copy in (file, *map(file.with_suffix, SUFFIXES)):
        message = message.replace(str(copy), str(path))
    return message


def _suffix(path: Path) -> str:
    """The suffix of the file inside, ignoring that of compression."""
    name = Path(path.name)
    return Path(name.stem).suffix if name.suffix in PACKED else name.suffix


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The uncompressed file, in a temporary folder where more can be written beside it."""
    with tempfile.TemporaryDirectory(prefix="trace-") as folder:
        name = path.stem if path.suffix in PACKED else path.name
        file = Path(folder) / name
        if path.suffix not in PACKED:
            file.symlink_to(path.resolve())
        else:
            try:
                with _reader(path) as packed, file.open("wb") as plain:
                    shutil.copyfileobj(packed, plain, 1 << 20)
            except (OSError, EOFError, lzma.LZMAError) as error:
                raise BadTrace(f"{path}: cannot be unpacked ({error})") from None
        yield file


def _reader(path: Path) -> lzma.LZMAFile | gzip.GzipFile:
    return lzma.open(path) if path.suffix == ".xz" else gzip.open(path)


def _exported(file: Path) -> Path:
    if file.suffix == ".qdstrm":
        file = import_report(file)
    return file if file.suffix == ".sqlite" else export_sqlite(file)
