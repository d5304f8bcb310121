"""Prepared Parquet -> raw columns in one line by time, whatever files they lie in.

Files of one period may overlap in time (splits by users do). Each file is sorted, so what a stretch of the merged line
takes from it is a stretch as well: only the times are held in memory. Ranks take turns within each step, so that step n
of all ranks together reads what follows step n - 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coldrank.data import parquet
from coldrank.data.check import check_schema
from coldrank.data.errors import UserError
from coldrank.data.read import Column, Line, Only, Raw, list_row_groups, take
from coldrank.models.features import Input


@dataclass(frozen=True, slots=True)
class After:
    """Keeps the rows later than a time."""

    time: int
    """Milliseconds since the epoch."""

    def rows(self, file: pq.ParquetFile, index: int) -> np.ndarray:
        """Which rows of a row group are kept, int64 [K], ascending."""
        column = file.read_row_group(index, columns=["time"])["time"]
        return np.flatnonzero(pc.greater(column, self.time).to_numpy())


@dataclass(frozen=True, slots=True)
class Every:
    """Keeps one row in `step`, evenly spaced in each row group."""

    step: int
    """Distance from one kept row to the next."""

    def rows(self, file: pq.ParquetFile, index: int) -> np.ndarray:
        """Which rows of a row group are kept, int64 [K], ascending."""
        return np.arange(0, file.metadata.row_group(index).num_rows, self.step)


class TimeReader:
    """A `Reader` of the rows of some files in the order of time. Rows of one time come in the order of the files.

    batch_size: rows of a rank's batch.
    global_batch_size: rows of the batches of all ranks together; 0: batch_size on each rank.
    only: which rows are read; None: all.
    Raises UserError for a missing column, a wrong type, a value out of range, and a file that is not sorted by time.
    """

    def __init__(
        self,
        paths: list[Path],
        columns: list[Input],
        batch_size: int,
        *,
        global_batch_size: int = 0,
        rank: int = 0,
        world_size: int = 1,
        only: Only | None = None,
    ) -> None:
        for path in paths:
            check_schema(path, parquet.schema(path), columns)
        self.lines = [Line(list_row_groups([path], only), columns) for path in paths]
        times = [_times(path, only) for path in paths]
        order = np.argsort(np.concatenate([np.empty(0, np.int64), *times]), kind="stable")
        file = np.repeat(np.arange(len(paths), dtype=np.int16), [len(t) for t in times])[order]
        # Of each file, where its rows stand in the merged line.
        self.places = [np.flatnonzero(file == i) for i in range(len(paths))]
        self.total_rows = len(order)
        self.rank, self.world_size = rank, world_size
        self.step_rows = global_batch_size or batch_size * world_size
        self.batches = -(-self.total_rows // self.step_rows)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Raw]:
        """The rank's batches from batch `start` on, the same in every epoch; the last may be short or empty."""
        return (raw for raw, _ in self.several(epoch, start, 1))

    def several(self, epoch: int, start: int, rows: int) -> Iterator[tuple[Raw, list[int]]]:
        """The same, as many batches at once as have `rows` rows, at least one: their rows, and how many each has."""
        at_once = max(1, rows * self.world_size // self.step_rows)
        for n in range(start, self.batches, at_once):
            steps = [self._bounds(k) for k in range(n, min(n + at_once, self.batches))]
            ranges = [(bounds[self.rank], bounds[self.rank + 1]) for bounds in steps]
            yield self._read(ranges), [end - first for first, end in ranges]

    def sizes(self, batch: int) -> tuple[int, ...]:
        """Rows of every rank's batch of a number."""
        return tuple(b - a for a, b in pairwise(self._bounds(batch)))

    def rows_before(self, batch: int) -> int:
        """Rows of all ranks in the batches before."""
        return min(batch * self.step_rows, self.total_rows)

    def _bounds(self, batch: int) -> list[int]:
        """Where the ranks' rows of a step begin and end in the line; shared out evenly."""
        first = self.rows_before(batch)
        rows = self.rows_before(batch + 1) - first
        return [first + rows * r // self.world_size for r in range(self.world_size + 1)]

    def _read(self, ranges: list[tuple[int, int]]) -> Raw:
        """The rows of some ranges of the merged line, ascending."""
        parts, places = [], []
        for line, positions in zip(self.lines, self.places, strict=True):
            cuts = np.searchsorted(positions, ranges).tolist()
            if any(high > low for low, high in cuts):
                parts.append(line.read((low, high - low) for low, high in cuts))
                places += [positions[low:high] for low, high in cuts]
        if not parts:
            return next(line for line in self.lines if line.groups).read([])
        if len(parts) == 1:
            return parts[0]
        index = np.argsort(np.concatenate(places))
        return {name: take(_joined([part[name] for part in parts]), index) for name in parts[0]}


def _joined(columns: list[Column]) -> Column:
    scalars = [c for c in columns if not isinstance(c, tuple)]
    lists = [c for c in columns if isinstance(c, tuple)]
    if not lists:
        return np.concatenate(scalars)
    lengths = np.concatenate([np.diff(offsets) for _, offsets in lists])
    return np.concatenate([values for values, _ in lists]), np.concatenate([[0], np.cumsum(lengths)])


def _times(path: Path, only: Only | None) -> np.ndarray:
    """Times (ms) of the rows that are kept, int64 [N]."""
    with parquet.opened(path) as file:
        times = [np.empty(0, np.int64)]
        for index in range(file.num_row_groups):
            column = file.read_row_group(index, columns=["time"])["time"].to_numpy()
            times.append(column if only is None else column[only.rows(file, index)])
    merged = np.concatenate(times)
    falls = np.flatnonzero(np.diff(merged) < 0)
    if len(falls):
        row = int(falls[0]) + 1
        raise UserError(
            f"{path}: column time, row {row + 1} of those read: {merged[row]} is earlier than the row before;"
            " a stream needs rows in order of time, as `coldrank prepare` writes them"
        )
    return merged
