"""A team's own event log, described by a Python file that defines `spec = LogSpec(...)`."""

import runpy
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from coldrank.data.agree import FileColumns, fill_types, joined, nature
from coldrank.data.columns import ColumnPlan
from coldrank.data.errors import UserError
from coldrank.data.events import check_table
from coldrank.data.files import check_columns, first_line, with_folder_columns
from coldrank.data.folder import Folder
from coldrank.data.formats import event_file, format_of, wanted_formats
from coldrank.data.ids import whole_ids
from coldrank.data.location import check_reachable
from coldrank.data.log import Column, EventLog, LogFile, LogSpec, check_spec, expression
from coldrank.data.text.settle import Settled


def load_spec(path: Path) -> LogSpec:
    """Runs the file and returns its `spec`. Raises UserError, with the line, if it fails or defines none."""
    try:
        spec = runpy.run_path(str(path)).get("spec")
    except OSError as error:
        raise UserError(f"--spec {path}: {error.strerror}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the file is the caller's, and so is whatever it raises
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else 0
        raise UserError(f"--spec {path}, line {line}: {first_line(error)}") from None
    if not isinstance(spec, LogSpec):
        raise UserError(
            f"--spec {path}: spec is {type(spec).__name__}; should be a LogSpec: spec = LogSpec(user=..., ...)"
        )
    return spec


def open_log(data: Path, spec: LogSpec) -> EventLog:
    """The log in `data`: a file, or a folder of them, which may also hold the user and item tables.

    A folder is searched through its sub-folders and links, in the order of their names. Columns that only the names of
    folders hold (`day=2022-05-04/`) are read.
    Raises UserError for missing files and columns, for a folder's value that a file contradicts, for files of several
    formats unless the spec names them, and for a field of the spec that goes with another format.
    """
    check_spec(spec)
    check_reachable(data, listed=True)
    root = data if data.is_dir() else data.parent
    tables = [root / name for name in (spec.user_table, spec.item_table) if name]
    if data.is_file():
        files, folder = [event_file(data, spec)], None
    elif data.is_dir():
        folder = Folder(data, wanted_formats(spec.formats), tables)
        _check_one_format(folder, spec)
        files = [event_file(path, spec) for path in folder.files]
        for file in (f for f in files if f.empty):
            folder.leave_out(file.path, "no rows")
    else:
        raise UserError(f"--data {data}: no such file or folder")
    _check_used(files, tables, spec)
    files = [f for f in files if not f.empty]
    if not files:
        note = folder.left_out_note() if folder else ""
        raise UserError(f"--data {data}: no file with events there{note}")
    return EventLog(
        source="log",
        spec=spec,
        files=tuple(with_folder_columns(files, root)),
        users=_table(root, spec.user_table, spec.user_table_id, "user", spec.user_features, spec),
        items=_table(root, spec.item_table, spec.item_table_id, "item", spec.item_features, spec),
        left_out=folder.left_out() if folder else (),
    )


def _check_one_format(folder: Folder, spec: LogSpec) -> None:
    first: dict[str, Path] = {}
    for path in folder.files:
        first.setdefault(str(format_of(path.name)), path)
    if len(first) > 1 and not spec.formats:
        some = " and ".join(f"{f} ({p.relative_to(folder.root)})" for f, p in first.items())
        raise UserError(
            f"{folder.root}: holds files of {some}: which are events? formats={(next(iter(first)),)} in the spec reads"
            " those alone, several formats all of these together"
        )


def _check_used(files: Sequence[LogFile], tables: Sequence[Path], spec: LogSpec) -> None:
    """Raises UserError for a field that says how CSV is read where nothing is CSV."""
    if any(f.text and f.text.kind != "jsonl" for f in files):
        return
    in_tables = any(path.is_dir() or format_of(path.name) in ("csv", "tsv") for path in tables)
    for name in ("header",) if in_tables else ("separator", "quote", "header", "null_values", "decimal"):
        if getattr(spec, name) != LogSpec.__dataclass_fields__[name].default:
            raise UserError(f"spec: {name}: has no effect, as no file of events is CSV or TSV")


def _table(
    root: Path, name: str | None, key: str, prefix: str, features: Mapping[str, Column], spec: LogSpec
) -> pl.DataFrame | None:
    """The features of a table, named `<prefix>_<x>`, beside `<prefix>_id`. A folder of files is one table."""
    if name is None:
        return None
    path = root / name
    plan = [ColumnPlan(f"{prefix}_{n}", "feature", c) for n, c in features.items()]
    inputs = list(dict.fromkeys([key, *(n for c in plan for n in c.inputs())]))
    with tempfile.TemporaryDirectory() as folder:
        files = fill_types(Settled().read(_table_files(path, spec), inputs, Path(folder)))
        frame = joined([_part(file, inputs) for file in files])
    try:
        frame = frame.select(expression(key).alias(f"{prefix}_id"), *(expression(c.source).alias(c.name) for c in plan))
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: {first_line(error)}") from None
    return check_table(frame, f"{prefix}_id", str(path), {c.name: c.role() for c in plan})


def _table_files(path: Path, spec: LogSpec) -> list[LogFile]:
    spec = replace(spec, header=())
    if not path.is_dir():
        if not format_of(path.name):
            raise UserError(f"{path}: should end in .parquet, .csv, .tsv or .jsonl")
        files = [event_file(path, spec)]
        if files[0].empty and files[0].text:
            raise UserError(f"{path}: no rows")
        return files
    parts = Folder(path, wanted_formats(()))
    files = [event_file(p, spec) for p in parts.files]
    if not files:
        raise UserError(f"{path}: no file of a table there{parts.left_out_note()}")
    return [f for f in files if not (f.text and f.empty)]


def _part(file: LogFile, columns: list[str]) -> FileColumns:
    """Some columns of a file of a table, the first its ids."""
    check_columns(file.path, file.frame.collect_schema().names(), columns)
    try:
        values = file.frame.select(expression(n) for n in columns).collect()
    except pl.exceptions.PolarsError as error:
        raise file.explain(error) from None
    values = values.with_columns(whole_ids(values[columns[0]], f"{file.path}: column {columns[0]}"))
    return FileColumns(file.path, values, {n: nature(values[n]) for n in columns})
