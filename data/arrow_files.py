"""Frames in Arrow files that are mapped into memory, and in bytes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

# Bytes of a piece of a table, about.
PIECE = 4 << 20


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Writes a file."""
    table = frame.rechunk().to_arrow()
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def read_frame(path: Path) -> pl.DataFrame:
    """A file of `write_frame`, mapped."""
    return as_frame(read_table(path))


def read_table(path: Path) -> pa.Table:
    """A file of `write_frame`, mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def as_frame(table: pa.Table) -> pl.DataFrame:
    """The same rows."""
    return pl.DataFrame(pl.from_arrow(table))


def between(table: pa.Table, low: int, high: int) -> pa.Table:
    """The rows with low <= time < high. The table is sorted by time."""
    time = table["time"].combine_chunks().to_numpy()
    first, end = np.searchsorted(time, [low, high]).tolist()
    return table.slice(first, end - first)


def pieces(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """The rows in order, `PIECE` bytes at a time."""
    rows = max(1, len(table) * PIECE // max(table.nbytes, 1))
    for first in range(0, len(table), rows):
        yield from table.slice(first, rows).combine_chunks().to_batches()


def to_bytes(batch: pa.RecordBatch) -> pa.Buffer:
    """Rows with their schema."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def from_bytes(data: pa.Buffer) -> pa.Table:
    """Rows of `to_bytes`."""
    return pa.ipc.open_stream(data).read_all()
