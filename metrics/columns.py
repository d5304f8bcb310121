"""Columns of a predictions table as arrays, checked on the way."""

from collections.abc import Iterable

import numpy as np
import polars as pl

from coldrank.data.errors import UserError, meant
from coldrank.metrics.mann_whitney import IntArray, Numbers


def int_column(frame: pl.DataFrame, name: str, where: str = "predictions") -> IntArray:
    """An integer column without nulls, [N] of the type that it is stored in."""
    column = _column(frame, name, where)
    if not column.dtype.is_integer() or column.null_count():
        raise UserError(f"{where}: column {name} is {_described(column)}; expected integers without nulls")
    return column.to_numpy()


def label_column(frame: pl.DataFrame, task: str, where: str = "predictions") -> IntArray:
    """`label_<task>` as int8 [N]: 0, 1, or -1 where unknown (null, or NaN of a float column)."""
    column = _column(frame, f"label_{task}", where)
    if not column.dtype.is_numeric() and column.dtype not in (pl.Boolean, pl.Null):
        raise UserError(f"{where}: column label_{task} is {column.dtype}; expected 0, 1 or null")
    if column.dtype.is_float():
        column = column.fill_nan(None)
    number = column.cast(pl.Float64)
    wrong = ~((number == 0) | (number == 1)).fill_null(True)
    if wrong.any():
        row = wrong.arg_max() or 0
        raise UserError(f"{where}: label_{task} is {column[row]!r} at row {row}; expected 0, 1 or null")
    return column.cast(pl.Int8).fill_null(-1).to_numpy()


def score_column(frame: pl.DataFrame, name: str, where: str = "predictions") -> Numbers:
    """A column of probabilities, float32 or float64 [N] as it is stored."""
    column = _column(frame, name, where)
    if not column.dtype.is_float():
        raise UserError(f"{where}: column {name} is {_described(column)}; expected floats")
    values = column.to_numpy()
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(f"{where}: {name} is {column[row]} at row {row}; expected a probability from 0 to 1")
    return values


def number_column(frame: pl.DataFrame, name: str, where: str = "predictions", *, unknown: bool = True) -> Numbers:
    """A column of numbers, float64 [N]; NaN where it is null, which is refused unless `unknown`."""
    column = _column(frame, name, where)
    if not column.dtype.is_numeric() and column.dtype != pl.Null:
        raise UserError(f"{where}: column {name} is {_described(column)}; expected numbers")
    values = column.cast(pl.Float64).to_numpy()
    wrong = np.isinf(values) if unknown else ~np.isfinite(values)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(f"{where}: {name} is {column[row]} at row {row}; expected a finite number")
    return values


def require_columns(columns: Iterable[str], needed: Iterable[str], where: str) -> None:
    """Raise UserError naming the columns of `needed` that are not there."""
    present = set(columns)
    missing = [name for name in needed if name not in present]
    if missing:
        raise UserError(f"{where}: no column {', '.join(missing)}; {meant(missing[0], sorted(present))}")


def _column(frame: pl.DataFrame, name: str, where: str) -> pl.Series:
    require_columns(frame.columns, [name], where)
    return frame[name]


def _described(column: pl.Series) -> str:
    nulls = column.null_count()
    return f"{column.dtype}" + (f" with {nulls} nulls" if nulls else "")
