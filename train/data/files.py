"""Reading CSV and Parquet files, with errors that name file, column and row."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from coldrank.train.data.log import LogFile
from coldrank.train.errors import UserError
from coldrank.train.parquet import scan_parquet

Schema = Mapping[str, pl.DataType | type[pl.DataType]]


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvFile:
    """A CSV file. schema: types of the columns that matter; the others are read as strings.

    names: of all columns, where the file has no header.
    """

    path: Path
    schema: Schema
    required: Collection[str] = ()
    separator: str = ","
    names: tuple[str, ...] = ()

    def log_file(self) -> LogFile:
        return LogFile(self.path, self._scan(self.schema), self.explain)

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
            found = self._open(infer_schema=False).collect_schema().names()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise UserError(f"{self.path}: {first_line(error)}") from None
        if not header and len(found) != len(self.names):
            raise UserError(f"{self.path}: {len(found)} columns; should be {len(self.names)}: {', '.join(self.names)}")
        names = list(self.names) or found
        check_columns(self.path, names, self.required)
        types = {name: schema.get(name, pl.String) for name in names}
        return self._open(schema=types)

    def _open(self, **types: Any) -> pl.LazyFrame:
        quote = '"' if self.separator == "," else None
        return pl.scan_csv(
            self.path, separator=self.separator, has_header=not self.names, quote_char=quote, glob=False, **types
        )


def check_columns(path: Path, found: Collection[str], required: Collection[str]) -> None:
    for name in required:
        if name not in found:
            raise UserError(f"{path}: no column {name!r}; it has {', '.join(found)}")


def parquet_file(path: Path, required: Collection[str] = ()) -> LogFile:
    """A Parquet file of events."""
    try:
        frame = scan_parquet(path)
        check_columns(path, frame.collect_schema().names(), required)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: {first_line(error)}") from None
    return LogFile(path, frame, lambda error: UserError(f"{path}: {first_line(error)}"))


def whole_numbers(frame: pl.DataFrame) -> pl.DataFrame:
    """Float columns whose values are all whole become Int64 (a file with empty cells often writes 3 as 3.0)."""
    floats = [n for n, kind in frame.schema.items() if kind.is_float()]
    whole = [n for n in floats if (frame[n].drop_nulls() % 1 == 0).all()]
    return frame.with_columns(pl.col(whole).cast(pl.Int64))
