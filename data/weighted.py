"""Weighted ids, `{tag: score}`: maps, lists of pairs, or two lists side by side, as lists of an id and its weight."""

import numpy as np
import polars as pl

from coldrank.data.errors import RowError, UserError

WEIGHTED = pl.List(pl.Struct({"id": pl.Int64, "weight": pl.Float32}))
# The column of the weights beside that of the ids, in samples.
SUFFIX = "_weights"


def is_weighted(kind: pl.DataType) -> bool:
    """Whether values of the type are weighted ids: Parquet's maps and lists of structs, or a struct of two lists."""
    if isinstance(kind, pl.List | pl.Array):
        return isinstance(kind.inner, pl.Struct)
    return isinstance(kind, pl.Struct) and all(isinstance(f.dtype, pl.List | pl.Array) for f in kind.fields)


def ids_of(values: pl.Series) -> pl.Series:
    """The ids of all rows, end to end, whatever they are."""
    if isinstance(values.dtype, pl.Struct):
        return values.struct.field(values.dtype.fields[0].name).explode()
    return _as_list(values).explode().struct.field(_inner(values).fields[0].name)


def unpaired(values: pl.Series, where: str) -> tuple[pl.Series, pl.Series, pl.Series]:
    """Weighted ids [N] -> how many each row has, and the ids and the weights of all rows, end to end.

    Raises UserError for other than an id and a number; with the row, for lists of two lengths, an id that is missing,
    and a weight that is missing, NaN, or infinite in 32 bits.
    """
    lists = isinstance(values.dtype, pl.Struct)
    fields = values.dtype.fields if isinstance(values.dtype, pl.Struct) else _inner(values).fields
    if len(fields) != 2:
        raise UserError(f"{where}: type {values.dtype}; should be pairs of an id and its weight")
    if lists:
        ids, weights = (_as_list(values.struct.field(f.name)) for f in fields)
        lengths = ids.list.len().fill_null(0)
        if (bad := lengths != weights.list.len().fill_null(0)).any():
            row = int(bad.arg_true()[0])
            counts = f"{lengths[row]} ids, but {weights.list.len().fill_null(0)[row]} weights"
            raise RowError(where, row + 1, f"{counts}; should be equally many")
        ids, weights = (part.filter(lengths > 0).explode() for part in (ids, weights))
    else:
        lengths = _as_list(values).list.len().fill_null(0)
        pairs = _as_list(values).filter(lengths > 0).explode()
        ids, weights = (pairs.struct.field(f.name) for f in fields)
    rows = np.repeat(np.arange(len(values)), lengths.to_numpy())
    if not (weights.dtype.is_numeric() or weights.dtype == pl.Null):
        raise UserError(f"{where}: weights of type {weights.dtype}; should be numbers")
    narrow = weights.cast(pl.Float32)
    for bad, what in (
        (ids.is_null(), "an id is null beside its weight"),
        (~narrow.is_finite().fill_null(False), "a weight is null, NaN or not finite in 32 bits"),
    ):
        if bad.any():
            raise RowError(where, int(rows[int(bad.arg_true()[0])]) + 1, what)
    return lengths, ids, narrow


def paired(name: str, lengths: pl.Series, ids: pl.Series, weights: pl.Series) -> pl.Series:
    """Weighted ids as samples' makers hold them, WEIGHTED; ids: int64."""
    rows = np.repeat(np.arange(len(lengths)), lengths.to_numpy())
    flat = pl.DataFrame({"row": rows, "pair": pl.DataFrame({"id": ids, "weight": weights}).to_struct()})
    filled = flat.group_by("row", maintain_order=True).agg("pair")
    every = pl.DataFrame({"row": np.arange(len(lengths))}).join(filled, on="row", how="left", maintain_order="left")
    return every["pair"].cast(WEIGHTED).fill_null(pl.lit([], dtype=WEIGHTED)).alias(name)


def split(values: pl.Series) -> list[pl.Series]:
    """WEIGHTED as two columns: its ids, and `<name>_weights`."""
    field = lambda name: values.list.eval(pl.element().struct.field(name))
    return [field("id").alias(values.name), field("weight").alias(f"{values.name}{SUFFIX}")]


def _inner(values: pl.Series) -> pl.Struct:
    assert isinstance(values.dtype, pl.List | pl.Array) and isinstance(values.dtype.inner, pl.Struct)
    return values.dtype.inner


def _as_list(values: pl.Series) -> pl.Series:
    return values.arr.to_list() if isinstance(values.dtype, pl.Array) else values
