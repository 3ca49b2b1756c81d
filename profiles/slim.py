"""A small copy of an export, to keep and to share.

Nsight Systems records the whole environment of the processes that it starts, including keys and
tokens, their command lines and output, and every node that a CUDA graph ever had. A slim copy has
only the rows and columns that the findings are made from, so it gives the same findings.
"""

import lzma
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from profiles.errors import BadTrace

_ACTIVITY = ("start", "end", "deviceId", "globalPid", "streamId", "correlationId", "graphNodeId")
# What is kept of each table, if it exists: its columns, and the condition for a row.
KEPT: dict[str, tuple[tuple[str, ...], str]] = {
    "CUPTI_ACTIVITY_KIND_KERNEL": ((*_ACTIVITY, "demangledName"), "1"),
    "CUPTI_ACTIVITY_KIND_MEMCPY": ((*_ACTIVITY, "copyKind"), "1"),
    "CUPTI_ACTIVITY_KIND_MEMSET": (_ACTIVITY, "1"),
    "CUPTI_ACTIVITY_KIND_GRAPH_TRACE": (_ACTIVITY, "1"),
    "CUPTI_ACTIVITY_KIND_RUNTIME": (
        ("start", "end", "globalTid", "correlationId", "nameId"),
        "1",
    ),
    "NVTX_EVENTS": (
        ("start", "end", "globalTid", "text", "textId"),
        "coalesce(text, (SELECT value FROM whole.StringIds WHERE id = textId)) LIKE 'execute%'",
    ),
    "TARGET_INFO_CUDA_DEVICE": (("pid", "cudaId", "gpuId"), "1"),
    "TARGET_INFO_GPU": (("id", "name"), "1"),
    "META_DATA_EXPORT": (("name", "value"), "name = 'EXPORT_PRODUCT_VERSION'"),
    "DIAGNOSTIC_EVENT": (("severity", "text"), "severity = 3"),
    "ENUM_CUDA_MEMCPY_OPER": (("id", "label"), "1"),
}
_NAMED_BY = ("demangledName", "nameId", "textId")


def slim(export: Path, target: Path) -> None:
    """Write a slim copy of a .sqlite export, as .sqlite.xz. Raises BadTrace."""
    with tempfile.TemporaryDirectory(prefix="slim-") as folder:
        copy = Path(folder) / "slim.sqlite"
        try:
            with closing(sqlite3.connect(copy, uri=True)) as connection:
                _fill(connection, export)
        except sqlite3.Error as error:
            raise BadTrace(f"{export}: no SQLite export that can be read ({error})") from None
        draft = target.with_name(f".{target.name}.draft")
        with copy.open("rb") as plain, lzma.open(draft, "wb") as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)
        draft.replace(target)


def _fill(connection: sqlite3.Connection, export: Path) -> None:
    connection.execute("ATTACH ? AS whole", (f"{export.resolve().as_uri()}?mode=ro",))
    used = []
    for table, (wanted, condition) in KEPT.items():
        there = {row[1] for row in connection.execute(f"PRAGMA whole.table_info({table})")}
        columns = [column for column in wanted if column in there]
        if not columns:
            continue
        connection.execute(
            f"CREATE TABLE main.{table} AS SELECT {', '.join(columns)} FROM whole.{table}"
            f" WHERE {condition}"
        )
        used += [f"SELECT {name} FROM main.{table}" for name in _NAMED_BY if name in columns]
    names = " UNION ".join(used) or "SELECT NULL"
    connection.execute(
        "CREATE TABLE main.StringIds AS SELECT id, value FROM whole.StringIds"
        f" WHERE id IN ({names})"
    )
    connection.commit()
