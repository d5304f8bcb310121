"""Some rows of every file of a folder, and what of it is the log, by the columns that the files have."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import polars.selectors as cs

from coldrank.data.errors import UserError
from coldrank.data.files import first_line, with_folder_columns
from coldrank.data.folder import Folder
from coldrank.data.formats import event_file, format_of, wanted_formats
from coldrank.data.location import check_reachable
from coldrank.data.log import Format, LogFile, LogSpec, expression
from coldrank.data.text.file import BLOCK_ROWS
from coldrank.data.text.lines import COMPRESSED, lines_of
from coldrank.data.text.settle import blocks
from coldrank.data.text.words import NUMBERS, Decimal, clash, typed, with_points, words_of

# Rows that are looked at, of all files together, and files, which are those at equal distances.
ROWS, FILES = 200_000, 24
# Of each file, to tell its columns.
_FIRST = 100
_SEPARATORS = ",;\t|"
# What a field says that means null, beside numbers.
_NULLS = ("NA", "N/A", "#N/A", "n/a", "na", "NaN", "nan", "NULL", "null", "None", "none", "nil", "\\N", "-", "?")
# How much larger text is than its file, about.
_PACKED = 5
# Column -> what its values are, see `text.words`.
Words = dict[str, set[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How files of text are read: fields of a LogSpec."""

    separator: str | None = None
    header: tuple[str, ...] = ()
    null_values: tuple[str, ...] = ()
    decimal: Decimal = "."


@dataclass(frozen=True, kw_only=True, slots=True)
class LookedAt:
    """Files of the same columns."""

    files: tuple[Path, ...]
    """All of them, whether looked at or not."""
    kind: Format
    """Their format."""
    rows: pl.DataFrame
    """Some rows."""
    total: int
    """How many rows they have; of text about."""
    reading: Reading
    """How they are read."""
    unclear: tuple[str, ...] = ()
    """Columns whose values no type fits without a doubt: `prepare` refuses them where they are used."""


def parts(data: Path, header: tuple[str, ...] = ()) -> list[LookedAt]:
    """The files of a folder, or one file, by their columns, those with the most rows first.

    header: the columns of CSV and TSV files that do not name them. Raises UserError.
    """
    check_reachable(data, listed=True)
    if data.is_file():
        files = [data]
    elif data.is_dir():
        files = Folder(data, wanted_formats(())).files
    else:
        raise UserError(f"--data {data}: no such file or folder")
    kinds: dict[tuple[str, ...], list[Path]] = {}
    for path in files:
        kinds.setdefault(_columns(path, header), []).append(path)
    kinds.pop((), None)
    if not kinds:
        raise UserError(f"--data {data}: no file of Parquet, CSV, TSV or JSON lines with rows there")
    root = data if data.is_dir() else data.parent
    return sorted((_part(root, paths, header) for paths in kinds.values()), key=lambda p: -p.total)


def _columns(path: Path, header: tuple[str, ...]) -> tuple[str, ...]:
    """What files that belong together have in common: their format and their columns. Empty: no rows."""
    kind = format_of(path.name) or "parquet"
    if kind in ("csv", "tsv") and not header:
        _check_header(path, kind)
    file = event_file(path, _spec(_reading(path, kind, header)))
    if file.empty:
        return ()
    columns = file.frame.collect_schema().names() if file.text is None else _text_rows(file, _FIRST)[0].columns
    return (kind, *sorted(columns))


def _check_header(path: Path, kind: Format) -> None:
    """Raises UserError for a first line that is no header: it is no text, has a number, or the same twice."""
    first = next(lines_of(path), "")
    try:
        first.encode()
        names = next(csv.reader([first], delimiter=_separator(path, kind)), [])
    except (UnicodeEncodeError, csv.Error):
        raise UserError(f"{path}: line 1: is not UTF-8; is it of another encoding, or no text?") from None
    words = words_of(pl.Series([n for n in names if n], dtype=pl.String))
    if NUMBERS & set(words) or len(set(names)) < len(names):
        shown = repr(first.strip()[:60])
        raise UserError(f"{path}: its first line, {shown}, looks like values; name its columns: --header a,b,c")


def _separator(path: Path, kind: Format) -> str:
    if kind == "tsv":
        return "\t"
    first = next(lines_of(path), "")
    return max(_SEPARATORS, key=lambda s: (first.count(s), s == ","))


def _reading(path: Path, kind: Format, header: tuple[str, ...]) -> Reading:
    if kind not in ("csv", "tsv"):
        return Reading()
    separator = _separator(path, kind)
    return Reading(separator=None if separator == ("," if kind == "csv" else "\t") else separator, header=header)


def _spec(reading: Reading) -> LogSpec:
    return LogSpec(
        user="", item="", time="", separator=reading.separator, header=reading.header, decimal=reading.decimal
    )


def _part(root: Path, paths: list[Path], header: tuple[str, ...]) -> LookedAt:
    kind = format_of(paths[0].name) or "parquet"
    step = -(-len(paths) // FILES)
    looked = paths[::step]
    each = ROWS // len(looked)
    reading = _reading(paths[0], kind, header)
    files = [event_file(p, _spec(reading)) for p in looked]
    unclear: tuple[str, ...] = ()
    if kind == "parquet":
        frames = [_head(f, each) for f in files]
        total = sum(_rows(f) for f in files) * len(paths) // len(looked)
    else:
        texts = [_text_rows(f, each) for f in files]
        if kind != "jsonl" and _has_commas(texts):
            reading = replace(reading, decimal=",")
            texts = [_text_rows(event_file(p, _spec(reading)), each) for p in looked]
        total = _about(paths, [t[0] for t in texts], whole=step == 1 and all(len(t[0]) < each for t in texts))
        frames, nulls, unclear = _typed(texts, reading.decimal, is_csv=kind != "jsonl")
        reading = replace(reading, null_values=nulls)
    rows = _joined(root, looked, frames)
    return LookedAt(files=tuple(paths), kind=kind, rows=rows, total=total, reading=reading, unclear=unclear)


def _has_commas(texts: list[tuple[pl.DataFrame, Words]]) -> bool:
    """Whether numbers are written with a decimal comma: those of a column are, and those of none with a point."""
    words = _words(texts)
    commas = pl.any_horizontal(pl.all().str.contains("^-?[0-9]+,[0-9]+$").any())
    held = [n for n, of in words.items() if "unclear" in of and "text" not in of]
    return not any({"number", "whole"} & of for of in words.values()) and any(
        bool(f.select(expression(n) for n in held if n in f.columns).select(commas).item())
        for f, _ in texts
        if {*held} & {*f.columns}
    )


def _words(texts: list[tuple[pl.DataFrame, Words]]) -> Words:
    words: Words = {}
    for name, of in ((n, of) for _, by_name in texts for n, of in by_name.items()):
        words.setdefault(name, set()).update(of)
    return words


def _joined(root: Path, paths: list[Path], frames: list[pl.DataFrame]) -> pl.DataFrame:
    """The rows of several files, with what the names of their folders say."""
    files = [
        LogFile(p, f.lazy(), lambda error: UserError(first_line(error))) for p, f in zip(paths, frames, strict=True)
    ]
    try:
        frames = [f.frame.collect() for f in with_folder_columns(files, root)]
        rows = pl.concat(frames, how="diagonal_relaxed").with_columns(cs.float().fill_nan(None))
        # Names that polars takes for patterns serve no expression.
        return rows.select(~cs.matches(r"^(\*|\^.*\$)$"))
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{paths[0]} and others: columns of different types: {first_line(error)}") from None


def _head(file: LogFile, rows: int) -> pl.DataFrame:
    try:
        return file.frame.head(rows).collect()
    except pl.exceptions.PolarsError as error:
        raise file.explain(error) from None


def _rows(file: LogFile) -> int:
    return int(file.frame.select(pl.len()).collect().item())


def _about(paths: list[Path], frames: list[pl.DataFrame], *, whole: bool) -> int:
    """How many rows files of text have, by the bytes of some. whole: these are all."""
    held = sum(map(len, frames))
    if whole:
        return held
    read = sum(int(f.select(pl.sum_horizontal(pl.all().str.len_bytes().sum())).item() or 0) for f in frames)
    read += sum(len(f) * f.width for f in frames)
    size = sum(p.stat().st_size * (_PACKED if p.name.lower().endswith(COMPRESSED) else 1) for p in paths)
    return max(held, round(held * size / read))


def _text_rows(file: LogFile, rows: int) -> tuple[pl.DataFrame, Words]:
    """The first rows of a file of text, all values as text, and what they are."""
    assert file.text is not None
    taken: list[pl.DataFrame] = []
    words: Words = {}
    for block in blocks(file.text, min(rows, BLOCK_ROWS)):
        taken.append(block.frame)
        for name, of in block.words.items():
            words.setdefault(name, set()).update(of)
        if sum(map(len, taken)) >= rows:
            break
    return pl.concat(taken, how="diagonal").head(rows), words


def _typed(
    texts: list[tuple[pl.DataFrame, Words]], decimal: Decimal, *, is_csv: bool
) -> tuple[list[pl.DataFrame], tuple[str, ...], tuple[str, ...]]:
    """Rows of text in the types of their columns, the values that mean null in them, and the columns that no type
    fits."""
    words = _words(texts)
    frames, nulls = [f for f, _ in texts], set[str]()
    for name in (n for n in words if is_csv and (clash(words[n]) or ("", ""))[0] == "unclear"):
        values = pl.concat([f[name] for f in frames if name in f.columns])
        found = values.filter(values.is_in(_NULLS)).unique().to_list()
        nulls |= set(found)
        words[name] = set(words_of(with_points(values.set(values.is_in(found), None), decimal)))
    none = pl.lit(pl.Series(sorted(nulls), dtype=pl.String).implode())
    if nulls:
        frames = [f.with_columns(pl.when(~pl.all().is_in(none)).then(pl.all())) for f in frames]
    unclear = tuple(n for n, of in words.items() if clash(of))
    frames = [f.select(typed(expression(n), words[n], decimal).alias(n) for n in f.columns) for f in frames]
    return frames, tuple(sorted(nulls)), unclear
