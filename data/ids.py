"""Strings and other column types as those that samples hold: int64, float32, list<int64>, list<float32>."""

import hashlib
from typing import TypeVar

import numpy as np
import polars as pl

from coldrank.data.errors import RowError, UserError
from coldrank.data.vectors import is_vector, vector_column
from coldrank.data.weighted import is_weighted, paired, unpaired

_STRINGS = (pl.String, pl.Categorical, pl.Enum, pl.Binary)
Values = TypeVar("Values", pl.Series, pl.Expr)


def is_text(kind: pl.DataType) -> bool:
    """Whether values of the type are strings: String, Categorical, Enum, or Binary, the bytes of one."""
    return kind in _STRINGS


def as_bytes(strings: Values, kind: pl.DataType) -> Values:
    """Strings of any type, `kind`, as the bytes of their UTF-8 text."""
    return strings if kind == pl.Binary else strings.cast(pl.String).cast(pl.Binary)


def string_id(text: str) -> int:
    """The 64-bit id of a string: first 8 of the 64 bytes of BLAKE2b of its UTF-8 text, as little-endian signed int64.

    A caller in serving does the same, without a table.
    """
    return _bytes_id(text.encode())


def _bytes_id(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=64).digest()[:8], "little", signed=True)


def hash_strings(strings: pl.Series) -> pl.Series:
    """`string_id` of every value, int64 [N]; null stays null. Only distinct values are hashed."""
    strings = as_bytes(strings, strings.dtype)
    distinct = strings.unique().drop_nulls()
    ids = pl.Series(np.fromiter((_bytes_id(s) for s in distinct), np.int64, len(distinct)))
    return strings.replace_strict(distinct, ids, default=None, return_dtype=pl.Int64)


def as_column(values: pl.Series, where: str) -> pl.Series:
    """A column [N] as samples hold it.

    Integers, booleans and strings (also their bytes) become int64; unsigned integers of 64 bits by their bits.
    Other numbers become float32; NaN becomes null.
    Lists of floats become list<float32>, see `vectors`. Lists of integers or strings become list<int64>; null becomes
    the empty list, and null elements are dropped. Weighted ids become lists of pairs, see `weighted`.
    Raises UserError, which begins with `where`, for any other type, and with the row for a number that is not finite.
    """
    kind = values.dtype
    if is_vector(kind):
        return vector_column(values, where)
    if is_weighted(kind):
        lengths, ids, weights = unpaired(values, where)
        return paired(values.name, lengths, as_column(ids, where), weights)
    if isinstance(kind, pl.List | pl.Array):
        return _list_column(values.arr.to_list() if isinstance(kind, pl.Array) else values, where)
    if is_text(kind):
        return hash_strings(values)
    if kind.is_integer() or kind in (pl.Boolean, pl.Null):
        whole = narrow(values, where)
        return whole.reinterpret(signed=True) if whole.dtype == pl.UInt64 else whole.cast(pl.Int64)
    if kind.is_float() or kind.is_decimal():
        check_finite(values, where)
        return values.cast(pl.Float32).fill_nan(None)
    raise UserError(f"{where}: type {kind}; should be an integer, a number, a string or a list of these")


def check_finite(values: pl.Series, where: str) -> None:
    """Raises UserError, with the row, for a number that a float32 cannot hold. NaN is fine: it is null."""
    if values.dtype.is_float():
        beyond = values.cast(pl.Float32).is_infinite().fill_null(False)
        if beyond.any():
            row = int(beyond.arg_true()[0])
            what = f"{values[row]} is no finite number of 32 bits; write null where it is unknown"
            raise RowError(where, row + 1, what)


# Up to here a float of so many bits is the integer that was written.
EXACT: dict[type[pl.DataType], int] = {pl.Float16: 2**11, pl.Float32: 2**24, pl.Float64: 2**53}


def whole_ids(values: pl.Series, where: str) -> pl.Series:
    """Ids [N] that are stored as floats or decimals, as int64, NaN as null; others as they are.

    pandas writes integers beside empty cells as floats.
    Raises UserError, with the row, for a number that is not whole, or too large for its type to tell from the next.
    """
    kind = values.dtype
    if not (kind.is_float() or kind.is_decimal()):
        return values
    known = values.fill_nan(None) if kind.is_float() else values
    whole = known.cast(pl.Int64, strict=False)
    # Compared as text: a decimal of other digits is another number.
    same = (
        (whole == known)
        if kind.is_float()
        else (whole.cast(pl.String) == known.cast(pl.String).str.replace(r"\.0*$", ""))
    )
    if kind.is_float():
        same &= known.abs() <= EXACT[kind.base_type()]
    bad = known.is_not_null() & ~same.fill_null(False)
    if bad.any():
        row = int(bad.arg_true()[0])
        exact = f", and in {kind} at most 2^{EXACT[kind.base_type()].bit_length() - 1}" if kind.is_float() else ""
        raise RowError(where, row + 1, f"{values[row]}; should be an integer or a string: a whole number{exact}")
    return whole


def narrow(values: pl.Series, where: str) -> pl.Series:
    """Integers of 128 bits, as a CSV reader makes of large ones, in 64; others as they are.

    Raises UserError, with the row, for one that does not fit.
    """
    if values.dtype not in (pl.Int128, pl.UInt128):
        return values
    wide = values.max()
    whole = values.cast(pl.UInt64 if isinstance(wide, int) and wide >= 2**63 else pl.Int64, strict=False)
    beyond = whole.is_null() & values.is_not_null()
    if beyond.any():
        row = int(beyond.arg_true()[0])
        raise RowError(where, row + 1, f"{values[row]} does not fit 64 bits")
    return whole


def _list_column(values: pl.Series, where: str) -> pl.Series:
    lengths = values.list.len().fill_null(0)
    flat = as_column(values.filter(lengths > 0).explode(), where)
    if flat.dtype != pl.Int64:
        raise UserError(f"{where}: type {values.dtype}; should be a list of numbers or strings")
    rows = np.repeat(np.arange(len(values)), lengths.to_numpy())
    kept = flat.is_not_null()
    filled = pl.DataFrame({"row": rows, "value": flat}).filter(kept).group_by("row").agg("value")
    every = pl.DataFrame({"row": np.arange(len(values))}).join(filled, on="row", how="left", maintain_order="left")
    return every["value"].fill_null(pl.lit([], dtype=pl.List(pl.Int64))).alias(values.name)
