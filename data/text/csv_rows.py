"""CSV and TSV by RFC 4180: what it does not allow is refused, as programs read it in different ways."""

import csv
import re
from collections.abc import Iterator
from itertools import islice

import polars as pl

from coldrank.data.errors import UserError
from coldrank.data.text.file import Block, TextFile, as_cells
from coldrank.data.text.lines import lines_of
from coldrank.data.text.words import with_points, words_of

Row = list[str]
_FAULTS = {
    "unexpected end": "a quote that is opened is never closed",
    "expected after": "a quote within a quoted field; should be written twice",
    "larger than field limit": "a field of more than 131,072 characters; is a quote opened and never closed?",
    "new-line": "a carriage return within a row; lines should end with a line feed",
}


def csv_blocks(file: TextFile, rows: int) -> Iterator[Block]:
    """The rows of a file, so many at a time, none of the blocks empty. A line without any character is no row.

    Raises UserError, with column and line, for a row of too few or too many fields, for quotes that are never closed
    or stand alone within a field, for text that is not UTF-8, and for a header that names a column twice.
    """
    reader = _Reader(file)
    while reader.names is None:
        header = reader.take(1)
        if not header:
            return
        reader.set_names(header[0])
    while taken := reader.take(rows):
        if filled := [row for row in taken if row]:
            yield _block(file, reader, taken, filled)


class _Reader:
    """The rows of a file, and the line on which those that were taken last begin."""

    def __init__(self, file: TextFile) -> None:
        self.file = file
        self.names: list[str] | None = list(file.names) or None
        self.first, self.next = 1, 1
        self._rows = csv.reader(
            lines_of(file.path),
            delimiter=file.separator,
            quotechar=file.quote or None,
            quoting=csv.QUOTE_MINIMAL if file.quote else csv.QUOTE_NONE,
            strict=True,
        )

    def take(self, count: int) -> list[Row]:
        rows: list[Row] = []
        try:
            rows.extend(islice(self._rows, count))  # keeps the rows before an error
        except csv.Error as error:
            raise self._fault(self.next + sum(map(_height, rows)), str(error)) from None
        self.first, self.next = self.next, self.next + sum(map(_height, rows))
        return rows

    def set_names(self, header: Row) -> None:
        if not header:
            return
        if twice := next((n for n in header if header.count(n) > 1), None):
            raise self.file.fault(self.first, "stands twice in the header", twice)
        self.names = header

    def _fault(self, line: int, error: str) -> UserError:
        what = next((text for part, text in _FAULTS.items() if part in error), error)
        row = "".join(islice(lines_of(self.file.path), line - 1, line + 999))
        number = _broken_field(row, self.file)
        names = self.names or []
        return self.file.fault(line, what, names[number] if number < len(names) else "")


def _height(row: Row) -> int:
    """How many lines a row takes."""
    return 1 + sum(field.count("\n") for field in row)


def _broken_field(text: str, file: TextFile) -> int:
    """The first field of a row, counted from 0, that is not written by the rules."""
    s, q = re.escape(file.separator), re.escape(file.quote)
    quoted = rf"{q}(?:[^{q}]|{q}{q})*{q}|(?!{q})" if q else ""
    field = re.compile(rf"(?:{quoted}[^{s}\r\n]*)(?={s}|\r?\n|\Z)")
    number = place = 0
    while (match := field.match(text, place)) and text[match.end() : match.end() + 1] == file.separator:
        number, place = number + 1, match.end() + 1
    return number


def _block(file: TextFile, reader: _Reader, taken: list[Row], filled: list[Row]) -> Block:
    """taken: rows as they come, also those without a field. filled: without these."""
    names, first = reader.names or [], reader.first

    def line(row: int) -> int:
        ends = [i for i, of_file in enumerate(taken) if of_file]
        return first + sum(map(_height, taken[: ends[row]]))

    if set(map(len, filled)) != {len(names)}:
        row = next(i for i, fields in enumerate(filled) if len(fields) != len(names))
        count = len(filled[row])
        missing = names[count] if count < len(names) else ""
        raise file.fault(line(row), f"{count} field{'s' * (count != 1)}; should be {len(names)}", missing)
    columns, words = {}, {}
    for name, values in zip(names, zip(*filled, strict=True), strict=True):
        cells = as_cells(file, name, values, line)
        cells = cells.set(cells.is_in(["", *file.nulls]), None)
        columns[name] = cells
        words[name] = words_of(with_points(cells, file.decimal))
    return Block(pl.DataFrame(columns), line, words)
