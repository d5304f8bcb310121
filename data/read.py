"""Prepared Parquet -> raw columns -> batches: an equal share per rank, shuffled within a buffer, resumable.

The rows are one long line: the row groups end to end, in order of time or as drawn from (seed, epoch). Which of them
make a rank's batch n follows from n alone (layout.py). So a reader that stopped after batch n goes on with batch n + 1
without decoding what lies before its buffer. All ranks walk through the line, so through time, together.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coldrank.data import parquet
from coldrank.data.check import check_alike, check_schema, to_numpy
from coldrank.data.errors import UserError
from coldrank.data.layout import BatchLayout, RankBatches, SharedBatches
from coldrank.data.location import named
from coldrank.models.features import Input

# A scalar column: values [N]. A list column: (values [V], offsets [N + 1]).
Column = np.ndarray | tuple[np.ndarray, np.ndarray]
Raw = dict[str, Column]


@dataclass(frozen=True, slots=True, eq=False)
class RowGroup:
    """A Parquet row group."""

    path: Path
    """Its file."""
    index: int
    """Its number in the file."""
    rows: int
    """How many of its rows are read."""
    start: int
    """The file's row at which it starts, counted from 0."""
    stamp: tuple[int, int]
    """The file's size and time of change."""
    kept: np.ndarray | None = None
    """Which of its rows are read, int64 [rows], ascending; None: all."""

    def row(self, low: int, i: int) -> int:
        """The file's row, counted from 1, of row `low + i` of those that are read."""
        return self.start + (low + i if self.kept is None else int(self.kept[low + i])) + 1


class Only(Protocol):
    """Which rows are read."""

    def rows(self, file: pq.ParquetFile, index: int) -> np.ndarray:
        """Those of a row group that are kept, int64 [K], ascending."""
        ...


class Reader(Protocol):
    """A rank's share of some rows, in batches."""

    total_rows: int
    """Rows of all ranks."""
    batches: int
    """Batches of a pass, as many on every rank; some may be empty."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Raw]:
        """The rank's batches of a pass from batch `start` on."""
        ...

    def several(self, epoch: int, start: int, rows: int) -> Iterator[tuple[Raw, list[int]]]:
        """The same, as many batches at once as have `rows` rows, at least one: their rows, and how many each has."""
        ...

    def sizes(self, batch: int) -> tuple[int, ...]:
        """Rows of every rank's batch of a number."""
        ...

    def rows_before(self, batch: int) -> int:
        """Rows of all ranks in the batches before."""
        ...


@dataclass(frozen=True, slots=True)
class AtMost:
    """Keeps the rows whose value of a column is at most so large."""

    column: str
    """A column of integers. A row without a value is not kept."""
    most: int
    """The largest value that is kept."""

    def rows(self, file: pq.ParquetFile, index: int) -> np.ndarray:
        """Which rows of a row group are kept, int64 [K], ascending."""
        column = file.read_row_group(index, columns=[self.column])[self.column]
        return np.flatnonzero(pc.fill_null(pc.less_equal(column, self.most), False).to_numpy())


def list_row_groups(paths: list[Path], only: Only | None = None) -> list[RowGroup]:
    """All row groups of the files, in order; with `only`, those rows of them."""
    groups = []
    for path in paths:
        with parquet.opened(path) as file:
            start, stamp = 0, _stamp(path)
            for index in range(file.num_row_groups):
                rows = file.metadata.row_group(index).num_rows
                kept = only.rows(file, index) if only else None
                groups.append(RowGroup(path, index, rows if kept is None else len(kept), start, stamp, kept))
                start += rows
    return groups


def _stamp(path: Path) -> tuple[int, int]:
    with named(path):
        stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


class SampleReader:
    """Iterates the raw columns of a rank's batches.

    columns: what to read and how to check it.
    batch_size: rows of a rank's batch.
    global_batch_size: rows of the batches of all ranks together, the same rows on any number of ranks; 0: batch_size on
        each rank.
    shuffle_rows: rows per buffer that is shuffled, of a rank or, with global_batch_size, of all; 0: file order.
    in_time: the buffers follow the files' order; else row groups are drawn from the whole.
    only: which rows are read; None: all.
    Raises UserError for a missing column, a wrong type, NaN or an id out of range, with file, column and row.
    """

    def __init__(
        self,
        paths: list[Path],
        columns: list[Input],
        batch_size: int,
        *,
        global_batch_size: int = 0,
        shuffle_rows: int = 0,
        in_time: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        only: AtMost | None = None,
    ) -> None:
        for path in paths:
            check_schema(path, parquet.schema(path), columns)
        self.columns = columns
        self.shuffle = shuffle_rows > 0
        self.in_time = in_time or not self.shuffle
        self.seed, self.rank = seed, rank
        self.groups = list_row_groups(paths, only)
        self.total_rows = sum(g.rows for g in self.groups)
        # Without shuffling, a buffer bounds the memory. Of shared batches it is one batch: their rows are in order.
        size = global_batch_size or batch_size
        rows = shuffle_rows or (size if global_batch_size else 65_536)
        self.buffer_rows = max(1, rows // size) * size
        kind = SharedBatches if global_batch_size else RankBatches
        self.layout: BatchLayout = kind(self.total_rows, size, self.buffer_rows, world_size)
        self.batches = self.layout.steps
        self.sizes, self.rows_before = self.layout.sizes, self.layout.rows_before

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Raw]:
        """The rank's batches of an epoch from batch `start` on; the last may be short or empty."""
        return (raw for raw, _ in self.several(epoch, start, 1))

    def several(self, epoch: int, start: int, rows: int) -> Iterator[tuple[Raw, list[int]]]:
        """The same, as many batches at once as have `rows` rows, at least one: their rows, and how many each has."""
        order = range(len(self.groups)) if self.in_time else self._rng(epoch, 0).permutation(len(self.groups))
        line = Line([self.groups[i] for i in order], self.columns)
        done, (stretch, skip) = start, self.layout.place(start)
        while done < self.batches:
            picks = self.layout.picks(stretch, self.rank, [self.seed, epoch] if self.shuffle else None)
            raw = line.read([(picks.first, picks.rows)])
            at_once = max(1, rows // max(1, len(picks.steps[0])))
            for k in range(skip, len(picks.steps), at_once):
                steps = picks.steps[k : k + at_once]
                yield take_rows(raw, np.concatenate(steps)), [len(step) for step in steps]
            del raw  # before the next is read, or there are two
            done, stretch, skip = done + len(picks.steps) - skip, stretch + 1, 0

    def _rng(self, epoch: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, stream])


class Line:
    """Row groups end to end, read by position. Keeps the last row group decoded, for the buffer that ends inside it."""

    def __init__(self, groups: list[RowGroup], columns: list[Input]) -> None:
        self.groups = groups
        self.columns = columns
        self.starts = np.concatenate([[0], np.cumsum([g.rows for g in groups])]).astype(np.int64)
        self.last: tuple[RowGroup, pa.Table] | None = None

    def read(self, ranges: Iterable[tuple[int, int]]) -> Raw:
        """The rows of some ranges, ascending, each from which row on and how many."""
        pieces = [piece for first, count in ranges for piece in self._pieces(first, count)]
        if not pieces:
            pieces = [(group, 0, _no_rows(group, self.columns)) for group in self.groups[:1]]
        raw = _share_offsets({c.name: _column(c, pieces) for c in self.columns})
        for c in (c for c in self.columns if c.like in raw and raw[c.name][1] is not raw[c.like][1]):
            _refuse_unlike(c, raw, pieces)
        return raw

    def _pieces(self, first: int, count: int) -> Iterator[tuple[RowGroup, int, pa.Table]]:
        """Row groups, each with the first of its rows that is read and those."""
        for i in range(int(np.searchsorted(self.starts, first, side="right")) - 1, len(self.groups) if count else 0):
            group, start = self.groups[i], int(self.starts[i])
            if start >= first + count:
                break
            low, high = max(first - start, 0), min(first + count - start, group.rows)
            yield group, low, self._decode(group).slice(low, high - low)

    def _decode(self, group: RowGroup) -> pa.Table:
        if self.last is None or self.last[0] is not group:
            names = [c.name for c in self.columns]
            with parquet.opened(group.path) as file:
                if _stamp(group.path) != group.stamp:
                    raise UserError(f"{group.path}: has changed since it was opened: its size or its time of change")
                table = file.read_row_group(group.index, columns=names)
            self.last = (group, table if group.kept is None else table.take(group.kept))
        return self.last[1]


def _no_rows(group: RowGroup, columns: list[Input]) -> pa.Table:
    return parquet.schema(group.path).empty_table().select([c.name for c in columns])


def _column(spec: Input, pieces: list[tuple[RowGroup, int, pa.Table]]) -> Column:
    parts = [
        to_numpy(spec, table[spec.name].combine_chunks(), group.path, partial(group.row, low))
        for group, low, table in pieces
    ]
    if not spec.is_list:
        return np.concatenate(parts)
    values = np.concatenate([v for v, _ in parts])
    lengths = np.concatenate([np.diff(o) for _, o in parts])
    return values, np.concatenate([[0], np.cumsum(lengths)])


def _refuse_unlike(spec: Input, raw: Raw, pieces: list[tuple[RowGroup, int, pa.Table]]) -> None:
    """Raises UserError, with file and row: the lists of two columns differ in length."""
    lengths, others = (np.diff(raw[name][1]) for name in (spec.name, spec.like))
    for group, low, table in pieces:
        rows = len(table)
        check_alike(spec, lengths[:rows], others[:rows], group.path, partial(group.row, low))
        lengths, others = lengths[rows:], others[rows:]


def _share_offsets(raw: Raw) -> Raw:
    """The same columns; lists of equal lengths, such as those of one history, have their offsets in one array."""
    distinct: list[np.ndarray] = []
    for name, column in raw.items():
        if isinstance(column, tuple):
            same = next((o for o in distinct if np.array_equal(o, column[1])), column[1])
            distinct.append(same)
            raw[name] = (column[0], same)
    return raw


def take_rows(raw: Raw, index: np.ndarray) -> Raw:
    """Rows of all columns in the order of the index, integers [R].

    Where lists have their offsets in one array, so have the new ones.
    """
    places: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    taken: Raw = {}
    for name, column in raw.items():
        if isinstance(column, tuple):
            values, offsets = column
            if id(offsets) not in places:
                places[id(offsets)] = _places(offsets, index)
            elements, new_offsets = places[id(offsets)]
            taken[name] = values.take(elements), new_offsets
        else:
            taken[name] = column.take(index)
    return taken


def take(column: Column, index: np.ndarray) -> Column:
    """Rows of a column in the order of the index, integers [R]."""
    return take_rows({"": column}, index)[""]


def _places(offsets: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the values of the lists of some rows stand, int64 [V], and their new offsets, int64 [R + 1]."""
    starts = offsets[index]
    lengths = offsets[index + 1] - starts
    new = np.concatenate([[0], np.cumsum(lengths)])
    return np.repeat(starts - new[:-1], lengths) + np.arange(new[-1]), new


class Prefetcher:
    """Runs an iterator in a background thread, up to `depth` results ahead. Errors surface where results are taken."""

    _END = object()

    def __init__(self, make: Callable[[], Iterator[Any]], depth: int) -> None:
        self.queue: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(make,), daemon=True, name="coldrank-prefetch")
        self.thread.start()

    def _run(self, make: Callable[[], Iterator[Any]]) -> None:
        try:
            for item in make():
                if not self._put(item):
                    return
            self._put(self._END)
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, who raises it
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self.stopped.is_set():
            try:
                self.queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[Any]:
        while (item := self.queue.get()) is not self._END:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stops the thread and waits for it."""
        self.stopped.set()
        self.thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
