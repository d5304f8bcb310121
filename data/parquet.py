"""Parquet files: a path is one file, whatever characters it holds, and names of folders give no columns.

A file may be cut off, overwritten or missing. Whoever reads one through `opened` and what rests on it, or within
`scanned`, gets a UserError that names it.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from coldrank.data.errors import UserError
from coldrank.data.location import for_polars, is_url, named

_MAGIC = b"PAR1"


def scan_parquet(paths: Sequence[Path]) -> pl.LazyFrame:
    """The rows of some files, lazily. Raises polars' errors."""
    return pl.scan_parquet([for_polars(p) for p in paths], glob=False, hive_partitioning=False)


def read_parquet(paths: Sequence[Path], columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The rows of some files. columns: None for all. Raises polars' errors."""
    frame = scan_parquet(paths)
    return (frame if columns is None else frame.select(columns)).collect()


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A file, for reading. The checksums of its pages are checked, if it has any, as all of `coldrank prepare` have.

    Raises UserError, also for what goes wrong within `with`, that names the file.
    """
    with named(path), _named(path), _source(path) as source, _parquet_file(source) as file:
        yield file


def _source(path: Path) -> AbstractContextManager[Any]:
    """What pyarrow opens."""
    return path.open("rb") if is_url(path) else nullcontext(path)


def _parquet_file(source: Any) -> pq.ParquetFile:
    """pre_buffer: of a store, chunks of columns that lie side by side are asked for in one request."""
    return pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=not isinstance(source, Path))


def schema(path: Path) -> pa.Schema:
    """Its columns and their types."""
    with opened(path) as file:
        return file.schema_arrow


def rows(path: Path) -> int:
    """How many rows its footer says that it has."""
    with opened(path) as file:
        return int(file.metadata.num_rows)


def read(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Some columns of a file (None: all)."""
    with opened(path) as file:
        for name in columns or ():
            if name not in file.schema_arrow.names:
                raise UserError(f"{path}: no column {name!r}; it has {', '.join(file.schema_arrow.names)}")
        return pl.DataFrame(pl.from_arrow(file.read(columns=None if columns is None else list(columns))))


@contextmanager
def scanned(paths: Sequence[Path]) -> Iterator[pl.LazyFrame]:
    """The rows of some files end to end, for polars. Raises UserError that names the file at fault."""
    for path in paths:
        schema(path)
    try:
        yield scan_parquet(paths)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        for path in paths:
            with opened(path) as file:
                for index in range(file.num_row_groups):
                    file.read_row_group(index)
        raise UserError(f"{paths[0]}, or one of {len(paths) - 1} files read with it: {_first_line(error)}") from None


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        if is_url(path) and isinstance(error, OSError):
            raise  # the store's answer
        raise UserError(f"{path}: {_fault(path, error)}") from None


def _fault(path: Path, error: Exception) -> str:
    """What is wrong with a file that could not be read."""
    if not path.is_file():
        return "is no file"
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, path.stat().st_size - 4))
        tail = file.read()
    if not head:
        return "is empty: 0 bytes"
    if head != _MAGIC:
        return f"is not Parquet: it begins with {head!r}"
    if tail != _MAGIC:
        return f"is cut off: {path.stat().st_size:,} bytes, and no footer at their end"
    return f"is damaged: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
