"""A sorted part of a state: the values of some groups of a kind, on disk or in memory, never changed.

On disk it is an uncompressed Arrow file that is mapped into memory. Rows are sorted by `SORT`, an int64 of the keys: a
single key itself, several keys mixed into 64 bits. Rows of equal `SORT` lie in one batch.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Int64s = NDArray[np.int64]

SORT = "sort"
# Rows of a batch.
BATCH = 1 << 19


def sort_key(keys: Sequence[Int64s]) -> Int64s:
    """What rows are sorted by, int64 [K].

    Of several keys the upper half is of the first, so that what a user met lies together.
    keys: one or more of int64 [K].
    """
    if len(keys) == 1:
        return keys[0]
    rest = mixed(keys[1].view(np.uint64))
    for key in keys[2:]:
        rest = mixed(rest ^ key.view(np.uint64))
    half = np.uint64(32)
    return ((mixed(keys[0].view(np.uint64)) >> half << half) | (rest >> half)).view(np.int64)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64: every bit depends on all."""
    mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


@dataclass(frozen=True, slots=True)
class SortedRun:
    """Rows of a state, sorted."""

    path: Path | None
    """Its file; None: in memory alone."""
    batches: list[pa.RecordBatch]
    """Its rows, none of them empty."""
    keys: tuple[str, ...]
    """The columns of the keys."""

    @property
    def rows(self) -> int:
        """How many groups."""
        return sum(b.num_rows for b in self.batches)

    @classmethod
    def open(cls, path: Path, keys: tuple[str, ...]) -> "SortedRun":
        """A file as `write` made it. Raises Arrow's errors and OSError."""
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        return cls(path, [file.get_batch(i) for i in range(file.num_record_batches)], keys)

    @classmethod
    def write(
        cls, path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], keys: tuple[str, ...]
    ) -> "SortedRun":
        """Writes rows as `sorted_batches` makes them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_file(str(path), schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return cls.open(path, keys)

    def find(self, sort: Int64s, keys: Sequence[Int64s]) -> Int64s:
        """The row of each of Q groups, int64 [Q]; -1: not here. sort: their `sort_key`, int64 [Q], ascending."""
        found = np.full(len(sort), -1, np.int64)
        bounds = np.append(np.searchsorted(sort, self.begins()), len(sort))
        before = 0
        for batch, low, high in zip(self.batches, bounds[:-1], bounds[1:], strict=True):
            if high > low:
                rows = _find(batch, sort[low:high], [k[low:high] for k in keys], self.keys)
                found[low:high] = np.where(rows < 0, -1, rows + before)
            before += batch.num_rows
        return found

    def take(self, rows: Int64s, names: Sequence[str]) -> pa.Table:
        """Some columns of some rows. rows: int64 [R], ascending by batch."""
        ends = np.cumsum([b.num_rows for b in self.batches])
        bounds = np.searchsorted(rows, np.append(0, ends))
        parts = [
            batch.select(names).take(pa.array(rows[low:high] - (end - batch.num_rows)))
            for batch, end, low, high in zip(self.batches, ends, bounds[:-1], bounds[1:], strict=True)
            if high > low
        ]
        return pa.Table.from_batches(parts, pa.schema([self.batches[0].schema.field(n) for n in names]))

    def between(self, low: int, high: int | None) -> pa.Table:
        """The rows with low <= SORT < high; None: to the end."""
        parts = []
        for batch in self.batches:
            order = _numbers(batch, SORT)
            first = int(np.searchsorted(order, low))
            end = len(order) if high is None else int(np.searchsorted(order, high))
            parts.append(batch.slice(first, end - first))
        return pa.Table.from_batches(parts, self.batches[0].schema)

    def begins(self) -> Int64s:
        """SORT of the first row of each batch."""
        return np.array([b.column(SORT)[0].as_py() for b in self.batches], np.int64)


def merged(older: SortedRun, newer: SortedRun) -> Iterator[pa.RecordBatch]:
    """The rows of both, a batch or two at a time; those of `newer` in the place of older ones of the same keys."""
    waiting: list[pa.Table] = []
    begins = np.unique(np.concatenate([older.begins(), newer.begins()])).tolist()
    for low, high in zip(begins, [*begins[1:], None], strict=True):
        new, old = newer.between(low, high).combine_chunks(), older.between(low, high).combine_chunks()
        if len(new) and len(old):
            batch = new.to_batches()[0]
            keys = [_numbers(old, k) for k in older.keys]
            gone = _find(batch, _numbers(old, SORT), keys, older.keys) >= 0
            old = old.filter(pa.array(~gone))
        waiting += [new, old]
        # Else batches would only ever get smaller.
        if sum(map(len, waiting)) >= BATCH or high is None:
            yield from sorted_batches(pa.concat_tables(waiting).combine_chunks())
            waiting = []


def sorted_batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """The rows by SORT, in batches that end where SORT changes."""
    order = np.argsort(_numbers(table, SORT), kind="stable")
    table = table.take(pa.array(order)).combine_chunks()
    sort = _numbers(table, SORT)
    first = 0
    while first < len(sort):
        end = min(first + BATCH, len(sort))
        while end < len(sort) and sort[end] == sort[end - 1]:
            end += 1
        yield from table.slice(first, end - first).combine_chunks().to_batches()
        first = end


def _numbers(rows: pa.Table | pa.RecordBatch, name: str) -> Int64s:
    column = rows.column(name)
    return np.asarray(column.to_numpy())


def _find(batch: pa.RecordBatch, sort: Int64s, keys: Sequence[Int64s], names: Sequence[str]) -> Int64s:
    """`SortedRun.find` in one batch."""
    order, held = _numbers(batch, SORT), [_numbers(batch, n) for n in names]
    found = np.full(len(sort), -1, np.int64)
    open_, row = np.arange(len(sort)), np.searchsorted(order, sort)
    # Mostly one round: another for keys that differ although their mix is the same.
    while len(open_):
        near = np.minimum(row, len(order) - 1)
        same = (row < len(order)) & (order[near] == sort[open_])
        open_, row = open_[same], row[same]
        equal = np.ones(len(open_), bool)
        for mine, theirs in zip(held, keys, strict=True):
            equal &= mine[row] == theirs[open_]
        found[open_[equal]] = row[equal]
        open_, row = open_[~equal], row[~equal] + 1
    return found
