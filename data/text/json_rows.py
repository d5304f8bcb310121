"""JSON lines: an object a line. Fields of objects within are columns of their own, `page.url`."""

import json
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import polars as pl

from coldrank.data.text.file import Block, TextFile, as_cells
from coldrank.data.text.lines import lines_of
from coldrank.data.text.words import KINDS, LIST, clash, words_of

Row = dict[str, Any]


class _Number(str):
    """The text of a number."""

    __slots__ = ()


def json_blocks(file: TextFile, rows: int) -> Iterator[Block]:
    """The rows of a file, so many at a time, none of the blocks empty. An empty line is no row.

    A field that a line lacks is null, also where no line of the file has it but another file of the log. Lists of
    numbers or of text stay lists; others are the text of their JSON.
    Raises UserError, with line and column, for a line that is no JSON object, for a field that stands twice, for
    numbers and text in one column, and for text that is not UTF-8.
    """
    filled = ((number, line) for number, line in enumerate(lines_of(file.path), 1) if line.strip())
    while some := list(islice(filled, rows)):
        yield _block(file, [_row(file, number, line) for number, line in some], [number for number, _ in some])


def _object(fields: list[tuple[str, Any]]) -> Row:
    row = dict(fields)
    if len(row) != len(fields):
        names = [n for n, _ in fields]
        raise ValueError(f"the field {next(n for n in names if names.count(n) > 1)!r} stands twice")
    return row


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_Number,
    parse_float=_Number,
    parse_constant=lambda text: None if text == "NaN" else _Number(text),
)


def _row(file: TextFile, number: int, line: str) -> Row:
    try:
        value = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        raise file.fault(number, f"is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise file.fault(number, "should be an object, {...}")
    return _flat(file, number, value) if any(isinstance(v, dict) for v in value.values()) else value


def _flat(file: TextFile, number: int, row: Row) -> Row:
    fields = list(chain.from_iterable(_fields(name, value) for name, value in row.items()))
    try:
        return _object(fields)
    except ValueError as error:
        raise file.fault(number, str(error)) from None


def _fields(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(name, value)]
    return chain.from_iterable(_fields(f"{name}.{key}", inner) for key, inner in value.items())


def _block(file: TextFile, rows: list[Row], numbers: list[int]) -> Block:
    columns, words = {}, {}
    for name in dict.fromkeys(chain.from_iterable(rows)):
        values = [row.get(name) for row in rows]
        kinds = _kinds(values)
        if odd := clash(kinds):
            one, other = sorted((kinds[w], KINDS[w]) for w in odd)
            raise file.fault(numbers[other[0]], f"{other[1]}, but {one[1]} in line {numbers[one[0]]}", name)
        cells = as_cells(file, name, _texts(values, kinds), numbers.__getitem__)
        columns[name] = cells
        words[name] = kinds | _words(values, cells, kinds)
    # Objects without a field are rows as well.
    frame = pl.DataFrame(columns) if columns else pl.DataFrame({"": pl.Series([None] * len(rows), dtype=pl.String)})
    return Block(frame, numbers.__getitem__, words)


def _kind(value: Any) -> str:
    """A word of `KINDS`; of a list whether its elements are numbers, text or others."""
    if isinstance(value, list):
        elements = {type(v) for v in value if v is not None}
        return "as list" if not elements or elements in ({str}, {_Number}) else "as json"
    return "as flag" if isinstance(value, bool) else "as number" if isinstance(value, _Number) else "as text"


def _kinds(values: list[Any]) -> dict[str, int]:
    """The kinds of some values, each with the first row that is so."""
    types = set(map(type, values)) - {type(None)}
    if len(types) == 1 and list not in types:
        row = next(i for i, v in enumerate(values) if v is not None)
        return {_kind(values[row]): row}
    kinds: dict[str, int] = {}
    for row, value in enumerate(values):
        if value is not None:
            kinds.setdefault(_kind(value), row)
    return kinds


def _texts(values: list[Any], kinds: Collection[str]) -> list[str | None]:
    if not set(kinds) & {"as list", "as json", "as flag"}:
        return values
    return [None if v is None else _text(v) for v in values]


def _text(value: Any) -> str:
    """The JSON of a value."""
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{json.dumps(k, ensure_ascii=False)}:{_text(v)}' for k, v in value.items())}}}"
    return value if isinstance(value, _Number) else json.dumps(value, ensure_ascii=False)


def _words(values: list[Any], cells: pl.Series, kinds: dict[str, int]) -> dict[str, int]:
    """What the values look like, or the elements of lists."""
    if "as number" in kinds:
        return words_of(cells)
    if "as json" in kinds:
        return {}
    if "as list" not in kinds:
        return {"flag" if "as flag" in kinds else "text": row for row in kinds.values()}
    pairs = [(v, row) for row, of_row in enumerate(values) for v in of_row or () if v is not None]
    numbers = pl.Series([v for v, _ in pairs if isinstance(v, _Number)], dtype=pl.String)
    rows = [row for v, row in pairs if isinstance(v, _Number)]
    words = {LIST + w: rows[i] for w, i in words_of(numbers).items()}
    words |= {f"{LIST}as number": rows[0]} if rows else {}
    text = next((row for v, row in pairs if not isinstance(v, _Number)), None)
    return words if text is None else words | {f"{LIST}as text": text, f"{LIST}text": text}
