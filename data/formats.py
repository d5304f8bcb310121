"""Of which format a file of events or of a table is, by its name."""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from coldrank.data.errors import UserError
from coldrank.data.files import first_line, parquet_file
from coldrank.data.folder import PARQUET
from coldrank.data.log import FORMATS, Format, LogFile, LogSpec
from coldrank.data.text.file import TextFile
from coldrank.data.text.lines import COMPRESSED
from coldrank.data.text.settle import is_empty

_ENDINGS: dict[Format, tuple[str, ...]] = {
    "parquet": PARQUET,
    "csv": (".csv",),
    "tsv": (".tsv",),
    "jsonl": (".jsonl", ".ndjson"),
}
_NAMES = {"parquet": "Parquet", "csv": "CSV", "tsv": "TSV", "jsonl": "JSON lines"}


def format_of(name: str) -> Format | None:
    """The format that the ending of a name says, in any case; None: none. Text may be compressed (.gz, .zst)."""
    lower = name.lower()
    plain = next((lower.removesuffix(end) for end in COMPRESSED if lower.endswith(end)), lower)
    for kind, endings in _ENDINGS.items():
        if (lower if kind == "parquet" else plain).endswith(endings):
            return kind
    return None


def wanted_formats(formats: Sequence[Format]) -> Callable[[str], str]:
    """`Folder.wanted` for files of some formats; of all where none is named."""
    names = [_NAMES[f] for f in formats or FORMATS]
    why = f"not {', '.join(names[:-1])}{' or ' * (len(names) > 1)}{names[-1]}"
    return lambda name: "" if format_of(name) in (formats or FORMATS) else why


def event_file(path: Path, spec: LogSpec) -> LogFile:
    """A file of events, by its ending; Parquet where that says nothing. Raises UserError where it cannot be read."""
    kind = format_of(path.name)
    if kind is None or kind == "parquet":
        return parquet_file(path)
    text = TextFile(
        path=path,
        kind=kind,
        separator=spec.separator or ("\t" if kind == "tsv" else ","),
        quote=spec.quote,
        names=spec.header,
        nulls=spec.null_values,
        decimal=spec.decimal if kind != "jsonl" else ".",
    )
    return LogFile(
        path, pl.LazyFrame(), lambda error: UserError(f"{path}: {first_line(error)}"), empty=is_empty(text), text=text
    )
