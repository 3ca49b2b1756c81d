"""Columns of samples in a Parquet file: arrays of equal length, by name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Columns = Mapping[str, npt.NDArray[Any]]

BATCH = 2**18  # rows read at a time


def write(path: Path, columns: Columns) -> None:
    """Write a file, replacing an existing one.

    Times hardly repeat, but their leading bytes do: with byte-stream split they take half the
    space.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: _array(values) for name, values in columns.items()})
    times = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    others = [name for name in table.schema.names if name not in times]
    encoding: dict[str, Any] = {"use_byte_stream_split": times, "use_dictionary": others}
    pq.write_table(table, path, compression="zstd", **encoding)


def read(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All columns of a file. Raises OSError."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:  # a buffer would hold the whole file
        return {name: _column(file, name) for name in file.schema_arrow.names}


def parts(path: Path) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """All columns of a file of numbers, one row group (a million rows) at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            part = file.read_row_group(group, use_threads=False)
            yield {name: part[name].to_numpy() for name in part.column_names}


def _array(values: npt.NDArray[Any]) -> "pa.Array[Any]":
    import pyarrow as pa

    # The type is explicit, because an empty column of objects would have none.
    return pa.array(values, pa.string()) if values.dtype == object else pa.array(values)


def _column(file: "pq.ParquetFile", name: str) -> npt.NDArray[Any]:
    """A column, read in batches: at once, Arrow would hold all of it besides our copy, and keep it.

    Equal texts of a batch become one object, as most are the same in a million requests.
    """
    dtype = file.schema_arrow.field(name).type.to_pandas_dtype()
    values = np.empty(file.metadata.num_rows, dtype)
    done = 0
    for batch in file.iter_batches(BATCH, columns=[name], use_threads=False):
        part = batch.column(0)
        if dtype is np.object_:
            coded = part.dictionary_encode()
            texts = np.array([*coded.dictionary.to_pylist(), None], dtype)
            part = texts[coded.indices.fill_null(-1).to_numpy()]
        values[done : done + len(part)] = part
        done += len(part)
    return values
