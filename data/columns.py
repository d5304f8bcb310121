"""The columns that are computed from the rows of a log, and the checks of their values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from coldrank.data.clock import milliseconds_in_zone, milliseconds_of_text
from coldrank.data.errors import RowError, UserError
from coldrank.data.ids import EXACT, as_bytes, as_column, is_text, whole_ids
from coldrank.data.log import LONGEST_S, Column, expression
from coldrank.data.times import Unit, wanted_unit

Kind = Literal[
    "id", "time", "flag", "number", "level", "weight", "feature", "probability", "code", "birth", "day", "delay"
]
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_YEAR_2100_MS = 4_102_444_800_000


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """A column to be computed from the rows of a log."""

    name: str
    """Name of the column. One with a colon serves the computation only and is not written to the samples."""
    kind: Kind
    """What its values mean, see `convert`."""
    source: Column
    """Column or expression of the log."""
    unit: Unit = "ms"
    """Of a time that is a number: its unit."""
    layout: str | None = None
    """Of a time that is text, or digits: how it is written; None: by ISO 8601."""
    zone: str | None = None
    """Of a time that says no offset: its zone; None: UTC."""
    may_lack: bool = False
    """Of an id: whether it may be null or, of a user, the empty text, which is null then."""

    def inputs(self) -> list[str]:
        """The columns that the source reads."""
        return [self.source] if isinstance(self.source, str) else list(dict.fromkeys(self.source.meta.root_names()))

    def where(self, path: Path) -> str:
        """File and column, as errors name them."""
        return f"{path}: {self.role()}"

    def role(self) -> str:
        """The column, as errors name it."""
        role = self.name.replace(":", " ").strip()
        return f"column {' and '.join(self.inputs()) or role} ({role})"


def check_rows_alone(rows: pl.DataFrame, plan: list[ColumnPlan], path: Path) -> None:
    """Raises UserError for an expression whose value in a row depends on other rows.

    A mean over the file would know the future, and change with the files that a log is cut into.
    rows: some rows of a log. Each must keep its values in another order and beside other rows.
    """
    alone = [c for c in plan if not isinstance(c.source, str)]
    names = [c.name for c in alone]

    def values(some: pl.DataFrame) -> pl.DataFrame:
        return some.with_columns(expression(c.source).alias(c.name) for c in alone).select(names)

    whole = values(rows)
    pairs = [(values(rows.reverse()), whole.reverse())]
    pairs += [(values(rows.gather_every(2, first)), whole.gather_every(2, first)) for first in (0, 1)]
    for column in alone:
        if not all(other[column.name].equals(same[column.name], null_equal=True) for other, same in pairs):
            raise UserError(
                f"{column.where(path)}: its value in a row depends on other rows; should read its own alone"
            )


def convert(plan: ColumnPlan, values: pl.Series, path: Path) -> pl.Series:
    """The column in its final type. Raises UserError with file, column, row (the first is 1) and value.

    id, code: int64; strings by `ids.string_id`, whole numbers by `ids.whole_ids`. An id is never empty.
    time, birth: int64, ms since the epoch; text by its layout, see `clock`. Fractions are rounded to the nearest ms. Of
        a float of 32 bits only what it holds exactly is taken. A birth of NaN is null.
    flag: int8, 0, 1 or null (NaN too).
    number: float32, finite or null (NaN too).
    level: int64, a whole number or null (NaN too).
    weight: float32, not below 0 and never empty.
    probability: float32, 0 to 1.
    day: int32, days since the epoch.
    delay: int64, ms, from seconds not below 0 and never empty.
    feature: as `ids.as_column` has it.
    """
    where = plan.where(path)
    if plan.kind == "flag":
        return _flag(values, where)
    if plan.kind in ("number", "level"):
        return _number(values, where, whole=plan.kind == "level")
    if plan.kind == "weight":
        result = _number(values, where, whole=False)
        _refuse(values, result.is_null(), where, "should not be empty")
        _refuse(values, result < 0, where, "is below 0, as no weight may be")
        return result
    if plan.kind == "delay":
        if not values.dtype.is_numeric():
            raise UserError(f"{where}: type {values.dtype}; should be a number of seconds")
        seconds = values.cast(pl.Float64)
        bad = ~seconds.is_between(0, LONGEST_S)  # NaN is not
        _refuse(values, bad | seconds.is_null(), where, "should be a number of seconds, 0 to 10 years")
        return (seconds * 1000).round().cast(pl.Int64)
    if plan.kind in ("time", "birth"):
        if plan.kind == "birth" and values.dtype.is_float():
            values = values.fill_nan(None)
        result = _milliseconds(values, plan, where)
        if plan.kind == "time":
            _refuse(values, result.is_null(), where, "should not be empty")
            outside = (result < 0) | (result > _YEAR_2100_MS)
            if outside.any():
                is_number = values.dtype.is_numeric() and plan.layout is None
                hint = wanted_unit(float(values.filter(outside)[0]), plan.unit) if is_number else ""
                asked = f"; is the time unit really {plan.unit}?{hint}" if is_number else ""
                _refuse(values, outside, where, f"is outside 1970..2100{asked}")
        return result
    if plan.kind == "day":
        if is_text(values.dtype):
            days = values.cast(pl.String).str.to_date("%Y-%m-%d", strict=False)
            _refuse(values, days.is_null() & values.is_not_null(), where, "should be a day like 2022-05-04")
            return days.to_physical()
        if values.dtype not in (pl.Date, pl.Null):
            raise UserError(f"{where}: type {values.dtype}; should be a date")
        return values.cast(pl.Date).to_physical()
    result = as_column(whole_ids(values, where) if plan.kind in ("id", "code") else values, where)
    if plan.kind in ("id", "code") and result.dtype != pl.Int64:
        raise UserError(f"{where}: type {values.dtype}; should be an integer or a string")
    if plan.name == "user_id" and is_text(values.dtype):
        result = result.set(as_bytes(values, values.dtype).bin.size() == 0, None)
    if plan.kind == "id" and not plan.may_lack:
        how = "; anonymous='own' in the spec makes it a user of its own" if plan.name == "user_id" else ""
        _refuse(values, result.is_null(), where, f"should not be empty{how}")
    if plan.kind == "probability":
        result = result.cast(pl.Float32)
        _refuse(values, ~result.is_between(0, 1), where, "should be a probability, 0 to 1")
    return result


def _flag(values: pl.Series, where: str) -> pl.Series:
    """NaN is what pandas writes for empty."""
    if values.dtype == pl.Boolean or values.dtype == pl.Null:
        return values.cast(pl.Int8)
    if not values.dtype.is_numeric():
        raise UserError(f"{where}: type {values.dtype}; should be 0, 1 or empty (unknown)")
    if values.dtype.is_float():
        values = values.fill_nan(None)
    _refuse(values, ~((values == 0) | (values == 1)), where, "is neither 0, 1 nor empty (unknown)")
    return values.cast(pl.Int8)


def _number(values: pl.Series, where: str, *, whole: bool) -> pl.Series:
    """NaN is what pandas writes for empty."""
    kind = "whole number" if whole else "number"
    if not (values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null)):
        raise UserError(f"{where}: type {values.dtype}; should be a {kind} or empty (unknown)")
    number = values.cast(pl.Float64).fill_nan(None)
    result = number.cast(pl.Float32)
    _refuse(values, ~result.is_finite(), where, "is not finite in float32")
    if not whole:
        return result
    _refuse(
        values, (number != number.round()) | (number.abs() > EXACT[pl.Float32]), where, f"is no {kind}, or too large"
    )
    return number.cast(pl.Int64)


def _milliseconds(values: pl.Series, plan: ColumnPlan, where: str) -> pl.Series:
    unit = plan.unit
    if plan.layout is not None and values.dtype != pl.Null:
        if not (is_text(values.dtype) or values.dtype.is_integer()):
            raise UserError(f"{where}: type {values.dtype}; time_format is of text and of whole numbers")
        values = values.cast(pl.String)
    if is_text(values.dtype):
        return milliseconds_of_text(values, plan.layout, plan.zone, where).alias(values.name)
    if values.dtype == pl.Date:
        values = values.cast(pl.Datetime("ms"))
    if isinstance(values.dtype, pl.Datetime):
        if values.dtype.time_zone is None and plan.zone is not None:
            return milliseconds_in_zone(values, plan.zone, where)
        return values.dt.epoch("ms")
    if not (values.dtype.is_numeric() or values.dtype == pl.Null):
        raise UserError(f"{where}: type {values.dtype}; should be a datetime, text or a number of {unit}")
    if values.dtype.is_float() or values.dtype.is_decimal():
        # A float of 32 bits tells today's seconds apart to two minutes.
        if values.dtype in (pl.Float16, pl.Float32):
            coarse = values.is_finite() & (values.abs() > EXACT[values.dtype.base_type()])
            _refuse(
                values, coarse, where, f"may be rounded, as {values.dtype} is coarse there; write integers or Float64"
            )
        # Scaled before the cast, which drops the fraction.
        result = (values.cast(pl.Float64) * 1000 / _PER_SECOND[unit]).round().cast(pl.Int64, strict=False)
    else:
        per_ms = _PER_SECOND[unit] // 1000
        whole = values.cast(pl.Int64, strict=False)
        result = whole // per_ms if per_ms else whole * 1000
    _refuse(values, result.is_null() & values.is_not_null(), where, f"should be a number of {unit} since 1970")
    return result


def _refuse(values: pl.Series, bad: pl.Series, where: str, what: str) -> None:
    bad = bad.fill_null(False)
    if bad.any():
        row = int(bad.arg_true()[0])
        raise RowError(where, row + 1, f"{values[row]!r} {what}")
