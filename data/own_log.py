"""A team's own event log, described by a Python file that defines `spec = LogSpec(...)`."""

import runpy
import traceback
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from coldrank.data.agree import FileColumns, fill_types, joined, nature
from coldrank.data.columns import ColumnPlan
from coldrank.data.errors import UserError
from coldrank.data.events import check_table
from coldrank.data.files import check_columns, first_line, parquet_file, read_csv, with_folder_columns
from coldrank.data.folder import PARQUET, Folder, wanted_endings
from coldrank.data.ids import whole_ids
from coldrank.data.location import check_reachable
from coldrank.data.log import Column, EventLog, LogFile, LogSpec, expression


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
    """The log in `data`: a Parquet file, or a folder of them, which may also hold the user and item tables.

    A folder is searched through its sub-folders and links, in the order of their names. Columns that only the names of
    folders hold (`day=2022-05-04/`) are read.
    Raises UserError for missing files and columns, and for a folder's value that a file contradicts.
    """
    check_reachable(data, listed=True)
    root = data if data.is_dir() else data.parent
    tables = [root / name for name in (spec.user_table, spec.item_table) if name]
    if data.is_file():
        files, folder = [parquet_file(data)], None
    elif data.is_dir():
        folder = Folder(data, wanted_endings(PARQUET, "Parquet"), tables)
        files = [parquet_file(path) for path in folder.files]
        for file in (f for f in files if f.empty):
            folder.leave_out(file.path, "no rows")
    else:
        raise UserError(f"--data {data}: no such file or folder")
    files = [f for f in files if not f.empty]
    if not files:
        note = folder.left_out_note() if folder else ""
        raise UserError(f"--data {data}: no Parquet file with events there{note}")
    return EventLog(
        source="log",
        spec=spec,
        files=tuple(with_folder_columns(files, root)),
        users=_table(root, spec.user_table, spec.user_table_id, "user", spec.user_features),
        items=_table(root, spec.item_table, spec.item_table_id, "item", spec.item_features),
        left_out=folder.left_out() if folder else (),
    )


def _table(root: Path, name: str | None, key: str, prefix: str, features: Mapping[str, Column]) -> pl.DataFrame | None:
    """The features of a table, named `<prefix>_<x>`, beside `<prefix>_id`. A folder of Parquet files is one table."""
    if name is None:
        return None
    path = root / name
    files = _table_files(path)
    plan = [ColumnPlan(f"{prefix}_{n}", "feature", c) for n, c in features.items()]
    inputs = list(dict.fromkeys([key, *(n for c in plan for n in c.inputs())]))
    frame = joined([_part(file, inputs) for file in files])
    try:
        frame = frame.select(expression(key).alias(f"{prefix}_id"), *(expression(c.source).alias(c.name) for c in plan))
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: {first_line(error)}") from None
    return check_table(frame, f"{prefix}_id", str(path), {c.name: c.role() for c in plan})


def _table_files(path: Path) -> list[LogFile]:
    if not path.is_dir():
        return [parquet_file(path) if path.name.lower().endswith(PARQUET) else _csv_file(path)]
    parts = Folder(path, wanted_endings(PARQUET, "Parquet"))
    if not parts.files:
        raise UserError(f"{path}: no Parquet file there{parts.left_out_note()}")
    return fill_types([parquet_file(p) for p in parts.files])


def _csv_file(path: Path) -> LogFile:
    try:
        return LogFile(path, read_csv(path).lazy(), lambda error: UserError(f"{path}: {first_line(error)}"))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: {first_line(error)}") from None


def _part(file: LogFile, columns: list[str]) -> FileColumns:
    """Some columns of a file of a table, the first its ids."""
    check_columns(file.path, file.frame.collect_schema().names(), columns)
    try:
        values = file.frame.select(expression(n) for n in columns).collect()
    except pl.exceptions.PolarsError as error:
        raise file.explain(error) from None
    values = values.with_columns(whole_ids(values[columns[0]], f"{file.path}: column {columns[0]}"))
    return FileColumns(file.path, values, {n: nature(values[n]) for n in columns})
