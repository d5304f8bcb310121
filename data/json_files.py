"""JSON files that others may have cut off or changed: an error names the file, and the line."""

import json
from pathlib import Path
from typing import Any

from coldrank.data.errors import UserError
from coldrank.data.location import named

Json = dict[str, Any]
# Of a line of metrics.jsonl, and of an entry of summary.json.
ROW_FIELDS = ("step", "period", "split", "cohort", "task", "metric", "value", "n")


def read_object(path: Path, hint: str = "") -> Json:
    """A file of one object. hint: what to say where there is no such file."""
    value = _parsed(path, _text(path, hint), "")
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected an object of named values")
    return value


def read_rows(path: Path, *fields: str) -> list[Json]:
    """A file of one list of objects that all have these fields."""
    value = _parsed(path, _text(path), "")
    if not isinstance(value, list):
        raise UserError(f"{path}: expected a list of objects")
    return [_row(path, f"entry {n}", entry, fields) for n, entry in enumerate(value, 1)]


def read_lines(path: Path, *fields: str) -> list[Json]:
    """A file of an object a line, all with these fields.

    A last line without an end is left out: its writer was killed while writing it.
    """
    lines = _text(path).split("\n")[:-1]
    return [_row(path, f"line {n}", _parsed(path, line, f", line {n}"), fields) for n, line in enumerate(lines, 1)]


def _text(path: Path, hint: str = "") -> str:
    try:
        with named(path):
            return path.read_text()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}" + (f"; {hint}" if hint else "")) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is damaged: not text ({error})") from None


def _parsed(path: Path, text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}{where}: is damaged: not JSON ({error})") from None


def _row(path: Path, where: str, value: Any, fields: tuple[str, ...]) -> Json:
    if not isinstance(value, dict):
        raise UserError(f"{path}, {where}: expected an object of named values")
    for name in fields:
        if name not in value:
            raise UserError(f"{path}, {where}: lacks {name!r}")
    return value
