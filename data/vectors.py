"""Vectors of numbers, such as embeddings that another model learnt: lists of floats, all of one length.

An empty list is a vector that is not known.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl

from coldrank.data.errors import RowError

VECTOR = pl.List(pl.Float32)


def is_vector(kind: pl.DataType) -> bool:
    """Whether values of the type are vectors: lists or arrays of floats."""
    return isinstance(kind, pl.List | pl.Array) and kind.inner.is_float()


def vector_column(values: pl.Series, where: str) -> pl.Series:
    """Vectors [N] as samples hold them, List(Float32); null is the empty list.

    Raises UserError, with the row, for a number that is null, NaN, or infinite in 32 bits, and for another length than
    that of the first.
    """
    lists = values.arr.to_list() if isinstance(values.dtype, pl.Array) else values
    vectors = (
        lists.cast(VECTOR).fill_null(pl.lit([], dtype=VECTOR)) if len(lists) else pl.Series(values.name, [], VECTOR)
    )
    lengths = vectors.list.len().to_numpy()
    numbers = vectors.filter(pl.Series(lengths > 0)).explode()
    bad = (numbers.is_null() | ~numbers.is_finite().fill_null(True)).to_numpy()
    if bad.any():
        row = int(np.repeat(np.arange(len(vectors)), lengths)[bad.argmax()])
        raise RowError(where, row + 1, "a vector with a number that is null, NaN or not finite in 32 bits")
    known = np.flatnonzero(lengths)
    other = known[lengths[known] != lengths[known[0]]] if len(known) else known
    if len(other):
        first, row = known[0], other[0]
        what = f"a vector of {lengths[row]} numbers, but of {lengths[first]} in row {first + 1}"
        raise RowError(where, int(row) + 1, what)
    return vectors.alias(values.name)


class Lengths:
    """The lengths of the vectors of a log."""

    def __init__(self, before: Mapping[str, int]) -> None:
        """before: column -> the length of vectors that were prepared before."""
        self.by_name = dict(before)
        self._first = dict.fromkeys(before, "what was prepared before")
        # Of a column, the first row of `_first` that holds a vector.
        self._row: dict[str, int] = {}

    def see(self, vectors: pl.Series, where: str, rows_before: int = 0) -> None:
        """Takes vectors as `vector_column` makes them. Raises UserError for another length than that of before."""
        lengths = vectors.list.len()
        if length := int(lengths.max() or 0):  # type: ignore[arg-type]
            self._see(vectors.name, length, where, int((lengths > 0).arg_max() or 0) + rows_before + 1)

    def merge(self, later: "Lengths") -> None:
        """Takes what another has seen of slices after these. Raises UserError as `see` does."""
        for name, length in later.by_name.items():
            self._see(name, length, later._first[name], later._row[name])

    def _see(self, name: str, length: int, where: str, row: int) -> None:
        known = self.by_name.setdefault(name, length)
        if length != known:
            raise RowError(where, row, f"a vector of {length} numbers, but of {known} in {self._first[name]}")
        if name not in self._first:
            self._first[name], self._row[name] = where, row
