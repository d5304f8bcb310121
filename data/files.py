"""Reading CSV and Parquet files, with errors that name file, column and row."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from math import isnan
from pathlib import Path
from typing import Any

import polars as pl

from coldrank.data.errors import UserError
from coldrank.data.folder import folder_values, typed
from coldrank.data.location import for_polars, is_url, named
from coldrank.data.log import LogFile, expression
from coldrank.data.parquet import opened, scan_parquet

Schema = Mapping[str, pl.DataType | type[pl.DataType]]


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvFile:
    """A CSV file, and how it is read."""

    path: Path
    """The file."""
    schema: Schema
    """Types of the columns that matter; the others are read as strings."""
    required: Collection[str] = ()
    """Columns that it must have."""
    separator: str = ","
    """What stands between two fields, one character."""
    names: tuple[str, ...] = ()
    """All columns, where the file has no header; else empty."""

    def log_file(self) -> LogFile:
        frame = self._scan(self.schema)
        return LogFile(self.path, frame, self.explain, self._open(infer_schema=False).head(1).collect().is_empty())

    def read(self) -> pl.DataFrame:
        try:
            return self._scan(self.schema).collect()
        except pl.exceptions.PolarsError as error:
            raise self.explain(error) from None

    def explain(self, error: Exception) -> UserError:
        """Finds the value that could not be read: reads all as strings, casts column by column."""
        try:
            texts = self._scan({}).collect()
        except pl.exceptions.PolarsError:
            return UserError(f"{self.path}: {first_line(error)}")
        for name in (n for n in self.schema if n in texts.columns):
            bad = texts[name].is_not_null() & texts[name].cast(self.schema[name], strict=False).is_null()
            if bad.any():
                row = int(bad.arg_true()[0])
                kind = "an integer" if pl.Series([], dtype=self.schema[name]).dtype.is_integer() else "a number"
                return UserError(
                    f"{self.path}: column {name}, row {row + 1}: {texts[name][row]!r}; should be {kind} of type"
                    f" {self.schema[name]}, or empty"
                )
        return UserError(f"{self.path}: {first_line(error)}")

    def _scan(self, schema: Schema) -> pl.LazyFrame:
        header = not self.names
        try:
            columns = self._open(infer_schema=False).collect_schema().names()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise UserError(f"{self.path}: {first_line(error)}") from None
        if not header and len(columns) != len(self.names):
            expected = f"{len(self.names)}: {', '.join(self.names)}"
            raise UserError(f"{self.path}: {len(columns)} columns; should be {expected}")
        names = list(self.names) or columns
        check_columns(self.path, names, self.required)
        types = {name: schema.get(name, pl.String) for name in names}
        return self._open(schema=types)

    def _open(self, **types: Any) -> pl.LazyFrame:
        quote = '"' if self.separator == "," else None
        return pl.scan_csv(
            for_polars(self.path),
            separator=self.separator,
            has_header=not self.names,
            quote_char=quote,
            glob=False,
            **types,
        )


def check_columns(path: Path, columns: Collection[str], required: Collection[str]) -> None:
    """Raises UserError for a required column that is not among those of the file."""
    for name in required:
        if name not in columns:
            raise UserError(f"{path}: no column {name!r}; it has {', '.join(columns)}")


def parquet_file(path: Path, required: Collection[str] = ()) -> LogFile:
    """A Parquet file of events."""
    try:
        frame = scan_parquet([path])
        check_columns(path, frame.collect_schema().names(), required)
        rows = frame.select(pl.len()).collect().item()
        frame = frame.with_columns(_uuid_text(expression(n)).alias(n) for n in _uuids(path, frame.collect_schema()))
        frame = frame.with_columns(expression(n).to_physical().alias(n) for n in _maps(frame.collect_schema()))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: {first_line(error)}") from None
    return LogFile(path, frame, lambda error: UserError(f"{path}: {first_line(error)}"), rows == 0, in_rows=True)


def _uuids(path: Path, columns: Schema) -> list[str]:
    """The columns of a Parquet file that say that they are UUIDs."""
    if pl.Binary not in columns.values():
        return []
    with opened(path) as file:
        stored = [file.schema.column(i) for i in range(len(file.schema))]
    return [c.path for c in stored if c.logical_type.type == "UUID" and c.path in columns]


def _maps(columns: Schema) -> list[str]:
    """Columns of maps, which are lists of pairs: Polars up to 1 reads them so."""
    kind = getattr(pl, "Map", None)
    return [n for n, of in columns.items() if kind is not None and isinstance(of, kind)]


def _uuid_text(column: pl.Expr) -> pl.Expr:
    """The text of UUIDs, as programs print them: in lower case, in five parts."""
    digits = column.bin.encode("hex")
    parts = [digits.str.slice(first, length) for first, length in ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))]
    return pl.concat_str(parts, separator="-")


def with_folder_columns(files: Sequence[LogFile], root: Path) -> list[LogFile]:
    """The files with the columns that the names of their folders below `root` hold, in one type over all files.

    A column that a file holds itself stays. Files of text get theirs once they are read.
    Raises UserError, with the row, where a column of a file has another value than its folder.
    """
    texts = [folder_values(file.path, root) for file in files]
    types = {n: typed([t[n] for t in texts if n in t]) for n in dict.fromkeys(n for t in texts for n in t)}
    result = []
    for file, values in zip(files, texts, strict=True):
        folders = {}
        for name, text in values.items():
            kind, convert = types[name]
            folders[name] = text, pl.lit(None if text is None else convert(text), kind).alias(name)
        file = replace(file, folders=folders)
        result.append(file if file.text else apply_folder_columns(file))
    return result


def apply_folder_columns(file: LogFile) -> LogFile:
    """The file with the columns of its folders among its own. Raises UserError as `with_folder_columns` does."""
    held = file.frame.collect_schema().names()
    for name in (n for n in file.folders if n in held):
        _same_as_folder(file, name, file.folders[name][0])
    new = [value for name, (_, value) in file.folders.items() if name not in held]
    return replace(file, frame=file.frame.with_columns(new), folders={})


def _same_as_folder(file: LogFile, name: str, text: str | None) -> None:
    try:
        column = file.frame.select(expression(name).alias("column")).collect().to_series()
    except pl.exceptions.PolarsError as error:
        raise file.explain(error) from None
    firsts = column.arg_unique().sort()
    for row, value in zip(firsts, column.gather(firsts), strict=True):
        if not _says(text, value):
            raise UserError(
                f"{file.path}: column {name}, row {row + 1}: {value!r}, but the folder says {name}={text or 'null'}"
            )


def _says(text: str | None, value: Any) -> bool:
    """Whether the text of a folder's name is a value of a file."""
    if value is None or (isinstance(value, float) and isnan(value)):
        return text is None
    if text is None:
        return False
    if isinstance(value, bytes):
        return text.encode() == value
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        try:
            return Decimal(text) == value
        except InvalidOperation:
            return False
    return text.lower() == str(value).lower() if isinstance(value, bool) else text in (value, str(value))


def read_csv(path: Path) -> pl.DataFrame:
    """A CSV table, each column in the type that fits all its values. A column without a value has the null type.

    Raises polars' errors.
    """
    with named(path):
        source = path.read_bytes() if is_url(path) else path
    frame = pl.read_csv(source, infer_schema_length=None, glob=False)
    empty = [n for n in frame.columns if frame[n].null_count() == len(frame)]
    return frame.with_columns(pl.lit(None).alias(n) for n in empty)


def whole_numbers(frame: pl.DataFrame) -> pl.DataFrame:
    """Float columns whose values are all whole become Int64 (a file with empty cells often writes 3 as 3.0).

    Up to 2^53: beyond, a float is not the number that was written.
    """
    floats = [n for n, kind in frame.schema.items() if kind.is_float()]
    whole = [n for n in floats if ((frame[n] % 1 == 0) & (frame[n].abs() <= 2**53)).drop_nulls().all()]
    return frame.with_columns(pl.col(whole).cast(pl.Int64))
