"""What makes two rows of a log the same event: the same value in every column, however a file stores it."""

from collections.abc import Mapping
from functools import reduce
from operator import xor

import polars as pl

from coldrank.data.ids import as_bytes, is_text, string_id
from coldrank.data.log import expression

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def row_identity(schema: Mapping[str, pl.DataType], times: Mapping[str, str]) -> pl.Expr:
    """A 64-bit hash of a row, uint64: equal for rows that hold the same values.

    Neither the order nor the width of columns counts: 3 is the same as 3.0, true as 1, a string as its category, an
    instant as itself in other units or another zone. Null, NaN and a column that is not there are the same, and so are
    0.0 and -0.0.

    times: columns that hold numbers since the epoch -> their unit. Such a number is the same as its datetime.
    """
    values = [_value(expression(n), kind, _seed(n), times.get(n)) for n, kind in schema.items() if kind != pl.Null]
    return reduce(xor, values, pl.lit(0, pl.UInt64))


def _seed(name: str) -> int:
    return string_id(name) & (2**62 - 1)


def _value(column: pl.Expr, kind: pl.DataType, seed: int, unit: str | None = None) -> pl.Expr:
    """The hash of a column's value; 0 where it is null."""
    if isinstance(kind, pl.Struct):
        fields = ((column.struct.field(f.name), f) for f in kind.fields)
        return reduce(xor, (_value(value, f.dtype, seed ^ _seed(f.name)) for value, f in fields))  # type: ignore[arg-type]
    missing = column.is_null()
    if isinstance(kind, pl.Array | pl.List):
        lists = column.arr.to_list() if isinstance(kind, pl.Array) else column
        hashed = lists.list.eval(_value(pl.element(), kind.inner, seed)).hash(seed)  # type: ignore[arg-type]
    elif kind == pl.Date or isinstance(kind, pl.Datetime):
        per_second = _PER_SECOND[kind.time_unit] if isinstance(kind, pl.Datetime) else 1
        count = column.to_physical().cast(pl.Int64) * (86_400 if kind == pl.Date else 1)
        hashed = _instant(count, per_second, seed)
    elif isinstance(kind, pl.Duration):
        hashed = _instant(column.to_physical(), _PER_SECOND[kind.time_unit], seed)
    elif is_text(kind):
        hashed = as_bytes(column, kind).hash(seed)
    elif kind.is_float():
        missing = column.is_null() | column.is_nan()
        hashed = _number(column.cast(pl.Float64), seed, unit)
    elif kind.is_decimal():
        hashed = _decimal(column, seed)
    elif kind == pl.Boolean or kind.is_integer():
        whole = column.cast(pl.Int64, strict=False)
        # Beyond 63 bits.
        wide = (
            column.cast(pl.String).hash(seed + 1)
            if kind in (pl.UInt64, pl.Int128, pl.UInt128)
            else pl.lit(0, pl.UInt64)
        )
        hashed = pl.when(whole.is_null()).then(wide).otherwise(_whole(whole, seed, unit))
    else:
        hashed = column.hash(seed)
    return pl.when(missing).then(pl.lit(0, pl.UInt64)).otherwise(hashed)


def _whole(number: pl.Expr, seed: int, unit: str | None) -> pl.Expr:
    return _instant(number, _PER_SECOND[unit], seed) if unit else number.hash(seed)


def _number(number: pl.Expr, seed: int, unit: str | None) -> pl.Expr:
    whole = number.cast(pl.Int64, strict=False)
    is_whole = (whole.cast(pl.Float64) == number).fill_null(False)
    return pl.when(is_whole).then(_whole(whole, seed, unit)).otherwise(number.hash(seed + 2))


def _decimal(number: pl.Expr, seed: int) -> pl.Expr:
    """As the integer or the shortest float that is written like it; else as its digits."""
    digits = number.cast(pl.String).str.replace(r"(\.\d*?)0+$", "$1").str.strip_suffix(".")
    close = number.cast(pl.Float64)
    whole = digits.cast(pl.Int64, strict=False)
    as_float = pl.when(close.cast(pl.String) == digits).then(close.hash(seed + 2)).otherwise(digits.hash(seed + 3))
    return pl.when(whole.is_null()).then(as_float).otherwise(whole.hash(seed))


def _instant(count: pl.Expr, per_second: int, seed: int) -> pl.Expr:
    nanoseconds = (count % per_second) * (1_000_000_000 // per_second)
    return (count // per_second).hash(seed) ^ nanoseconds.hash(seed + 1)
