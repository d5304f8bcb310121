"""What a file of text is, and the blocks of rows that it is read in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from coldrank.data.errors import UserError
from coldrank.data.text.words import Decimal

TextKind = Literal["csv", "tsv", "jsonl"]
# Rows of a block.
BLOCK_ROWS = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFile:
    """A CSV, TSV or JSON lines file, and how it is read."""

    path: Path
    """The file. An ending of .gz or .zst says that it is compressed."""
    kind: TextKind
    """What its lines are."""
    separator: str = ","
    """Of CSV and TSV: what stands between two fields, one character."""
    quote: str = '"'
    """Of CSV and TSV: what a field stands in that holds separators, line breaks or quotes, these twice; empty: none."""
    names: tuple[str, ...] = ()
    """Of CSV and TSV: all columns, where the file has no header; else empty."""
    nulls: tuple[str, ...] = ()
    """Of CSV and TSV: values that mean null, beside the empty one."""
    decimal: Decimal = "."
    """Of CSV and TSV: what stands before the fraction of a number."""

    def fault(self, line: int, what: str, column: str = "") -> UserError:
        """An error in a line, counted from 1, and in a column, if it is known."""
        return UserError(f"{self.path}: {f'column {column}, ' if column else ''}line {line}: {what}")


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a file."""

    frame: pl.DataFrame
    """Every value as its text, String; lists as JSON."""
    line: Callable[[int], int]
    """A row of the block, counted from 0 -> the line, counted from 1, on which it begins in the file."""
    words: dict[str, dict[str, int]]
    """Column -> what its values are, see `words.py` -> the first row of the block that is so."""


def as_cells(file: TextFile, name: str, values: Sequence[str | None], line: Callable[[int], int]) -> pl.Series:
    """A column as text, without its name, which polars may take for a pattern.

    Raises UserError for a value or a name that is not UTF-8.
    """
    if not _is_utf8(name):
        raise file.fault(line(0), f"a name of a column, {name!a}: is not UTF-8")
    try:
        return pl.Series(values=values, dtype=pl.String)
    except UnicodeEncodeError:
        row = next(i for i, v in enumerate(values) if v is not None and not _is_utf8(v))
        raise file.fault(line(row), f"{values[row]!a}: is not UTF-8", name) from None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
