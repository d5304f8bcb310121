"""The check of incoming data: columns, types, NaN and ids, each error with file, column and row."""

import difflib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coldrank.data.errors import UserError
from coldrank.models.features import Input

# Row of an array -> the file's row, counted from 1.
RowOf = Callable[[int], int]
_TYPES = {"int": ("an integer", "a list of integers"), "float": ("a number", "a list of numbers")}


def check_schema(path: Path, schema: pa.Schema, columns: list[Input]) -> None:
    """Raises UserError for a missing column or a wrong type."""
    for c in columns:
        if c.name not in schema.names:
            near = difflib.get_close_matches(c.name, schema.names, 3) or schema.names[:10]
            raise UserError(f"{path}: no column {c.name!r} among its {len(schema.names)}; near it: {', '.join(near)}")
        kind = schema.field(c.name).type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        inner = kind.value_type if is_list else kind
        right = pa.types.is_integer(inner) or (
            c.dtype == "float" and (pa.types.is_floating(inner) or pa.types.is_boolean(inner))
        )
        if is_list != c.is_list or not right:
            wanted = _TYPES[c.dtype][c.is_list]
            raise UserError(f"{path}: column {c.name!r} is {kind}, should be {wanted}")


def to_numpy(
    spec: Input, array: pa.Array | pa.ChunkedArray, path: Path, row_of: RowOf
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """An Arrow column as int64 or float32: values [N], or (values [V], offsets int64 [N + 1]) of a list column.

    row_of: how errors name a row of the array.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if not spec.is_list:
        return _values(spec, array, path, row_of)
    if array.null_count:
        row = row_of(int(np.flatnonzero(_mask(array))[0]))
        raise UserError(f"{path}: column {spec.name!r}, row {row}: null; an empty list is written []")
    offsets = np.asarray(array.offsets, dtype=np.int64)
    flat = array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    offsets = offsets - offsets[0]
    if spec.width:
        _check_width(spec, np.diff(offsets), path, row_of)
    values = _values(spec, flat, path, lambda i: row_of(int(np.searchsorted(offsets, i, side="right")) - 1))
    return values, offsets


def _check_width(spec: Input, lengths: np.ndarray, path: Path, row_of: RowOf) -> None:
    bad = (lengths != 0) & (lengths != spec.width)
    if bad.any():
        i = int(bad.argmax())
        wanted = f"must have {spec.width}, or none where it is missing"
        raise UserError(f"{path}: column {spec.name!r}, row {row_of(i)}: a vector of {lengths[i]} numbers; {wanted}")


def check_alike(spec: Input, lengths: np.ndarray, others: np.ndarray, path: Path, row_of: RowOf) -> None:
    """Raises UserError for lists of other lengths than those of `spec.like`, int64 [N] each."""
    bad = lengths != others
    if bad.any():
        i = int(bad.argmax())
        values = f"{lengths[i]} values, but {others[i]} of {spec.like!r}"
        raise UserError(f"{path}: column {spec.name!r}, row {row_of(i)}: {values}; must be equally many")


def _values(spec: Input, array: pa.Array, path: Path, row_of: RowOf) -> np.ndarray:
    if spec.dtype == "float":
        valid = np.ones(len(array), bool) if not array.null_count else ~_mask(array)
        values = np.asarray(pc.cast(array, pa.float32(), safe=False).to_numpy(zero_copy_only=False))
        bad = valid & ~np.isfinite(values)
        _refuse(spec, values, bad, path, row_of, "is not a finite number; write null for a missing value")
        if spec.required and not valid.all():
            raise UserError(
                f"{path}: column {spec.name!r}, row {row_of(int(np.argmin(valid)))}: null; must be a number"
            )
        wrong, why = spec.problem(values) if spec.problem else (bad, "")
        return _refuse(spec, values, valid & wrong, path, row_of, why)
    if array.null_count:
        if spec.default is None:
            row = row_of(int(np.flatnonzero(_mask(array))[0]))
            raise UserError(f"{path}: column {spec.name!r}, row {row}: null inside a list")
        array = pc.fill_null(array, spec.default)
    values = array.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    if spec.low is None or spec.high is None:
        return values
    outside = (values < spec.low) | (values > spec.high)
    return _refuse(spec, values, outside, path, row_of, f"is outside {spec.low}..{spec.high}")


def _mask(array: pa.Array) -> np.ndarray:
    return np.asarray(array.is_null().to_numpy(zero_copy_only=False))


def _refuse(spec: Input, values: np.ndarray, bad: np.ndarray, path: Path, row_of: RowOf, what: str) -> np.ndarray:
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise UserError(f"{path}: column {spec.name!r}, row {row_of(i)}: {values[i]} {what} ({int(bad.sum())} such)")
    return values
