"""The state before each chunk: chunks are counted by themselves, and what they were counted to is composed in order.

However hot a key is, a chunk says at most one row of it: its events lie in as many tasks as it has chunks.
"""

import pickle
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from coldrank.data.arrow_files import pieces
from coldrank.data.manifest import Population
from coldrank.data.spark.job import SparkJob
from coldrank.data.spark.plan import WriteTask
from coldrank.data.spark.sort import TimeChunk
from coldrank.data.spark.tasks import Batches, numbered, numbers
from coldrank.data.state.compose import composed, history_lengths
from coldrank.data.state.groups import GroupLayout, GroupState
from coldrank.data.state.run import SORT, Int64s, mixed
from coldrank.data.statistics import counted, events_met

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_COUNTED = "part int, chunk long, piece long, data binary"
_COUNTED_SCHEMA = pa.schema([("part", pa.int32()), ("chunk", pa.int64()), ("piece", pa.int64()), ("data", pa.binary())])
# Of a task that writes: states before its chunks, by kind of group; in chunk -1 what is said of a part (`PartReport`).
STATES = "task int, chunk long, kind int, data binary"
STATES_SCHEMA = pa.schema([("task", pa.int32()), ("chunk", pa.int64()), ("kind", pa.int32()), ("data", pa.binary())])
REPORT = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class PartReport:
    """What a part of the state ends as: some of the groups of a kind."""

    kind: str
    """The kind."""
    path: Path | None
    """The file of the state after the last event that is seen whole; None: it has none of them."""
    met: Population
    """Of users and items: how many, up to the last event."""
    rows: int
    """Rows of the state that the part was composed of."""


def states(
    spark: "SparkSession", job: SparkJob, chunks: Sequence[TimeChunk], tasks: Sequence[WriteTask], seen: Sequence[int]
) -> "DataFrame":
    """Rows of `STATES` in the partitions of their tasks, in order: of each chunk that a task looks at, what the state
    before it has of its groups.

    seen: see `plan.seen_whole`.
    """
    parts_of_kind = -(-sum(c.rows for c in chunks) // job.sizes.state_rows)
    readers: dict[int, list[int]] = {}
    for number, task in enumerate(tasks):
        for chunk in task.parts:
            readers.setdefault(chunk, []).append(number)

    def count(batches: Batches) -> Iterator[pa.RecordBatch]:
        for number in numbers(batches):
            yield from _counted(job, chunks[number].path, number, parts_of_kind)

    def compose(batches: Batches) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        part = TaskContext.get().partitionId()  # type: ignore[union-attr]
        with tempfile.TemporaryDirectory() as folder:
            yield from _Part(job, part, part // parts_of_kind, Path(folder), seen).run(batches, readers, len(tasks))

    counted_alone = numbered(spark, len(chunks)).mapInArrow(count, _COUNTED)
    parts = counted_alone.repartitionById(parts_of_kind * len(job.shape.groups), "part")
    composed_rows = parts.sortWithinPartitions("chunk", "piece").mapInArrow(compose, STATES)
    return composed_rows.repartitionById(len(tasks), "task").sortWithinPartitions("chunk", "kind")


def _counted(job: SparkJob, path: Path, chunk: int, parts_of_kind: int) -> Iterator[pa.RecordBatch]:
    """What a chunk alone is counted to, as rows of `_COUNTED`."""
    state = counted(events_met(job.events(path), job.shape), job.shape)
    for kind, group in enumerate(state.groups.values()):
        for batch in (b for run in group.runs for b in run.batches):
            part = mixed(batch.column(SORT).to_numpy().view(np.uint64)) % np.uint64(parts_of_kind)
            order = np.argsort(part, kind="stable")
            bounds = np.searchsorted(part[order], np.arange(parts_of_kind + 1, dtype=np.uint64))
            for n in np.flatnonzero(np.diff(bounds)).tolist():
                rows = pa.Table.from_batches([batch]).take(pa.array(order[bounds[n] : bounds[n + 1]]))
                for piece, of_part in enumerate(pieces(rows)):
                    row = [[kind * parts_of_kind + n], [chunk], [piece], _binary(of_part)]
                    yield pa.RecordBatch.from_arrays(row, schema=_COUNTED_SCHEMA)


class _Part:
    """Some of the groups of a kind, composed over all chunks."""

    def __init__(self, job: SparkJob, number: int, kind: int, folder: Path, seen: Sequence[int]) -> None:
        """number: of the part. kind: number of the kind. folder: for the state as it grows."""
        self.job, self.number, self.kind, self.seen = job, number, kind, seen
        self.layout = job.shape.layout(job.shape.groups[kind])
        self.lengths = history_lengths(job.shape)
        self.state = GroupState(self.layout, folder=folder)
        self.rows = 0
        self._waiting: deque[tuple[int, pa.Table]] = deque()

    def run(self, batches: Batches, readers: dict[int, list[int]], tasks: int) -> Iterator[pa.RecordBatch]:
        """Rows of `STATES`. batches: of `_COUNTED`, by chunk. readers: chunk -> the tasks that look at it."""
        for chunk, table in _by_chunk(batches, self.layout):
            self.rows += len(table)
            self._take_before(self.seen[chunk])
            keys = keys_of(table, self.layout)
            before = self.state.find(keys)
            known = self.state.table(keys, before).filter(pa.array(before.views > 0))
            for piece in pieces(known):
                for task in readers[chunk]:
                    yield _state_row(task, chunk, self.kind, _binary(piece))
            self._waiting.append((chunk, table))
        report = pa.array([pickle.dumps(self._end())], pa.binary())
        yield _state_row(self.number % tasks, REPORT, self.kind, report)

    def _take_before(self, chunk: int) -> None:
        while self._waiting and self._waiting[0][0] < chunk:
            table = self._waiting.popleft()[1]
            keys = keys_of(table, self.layout)
            self.state.put(keys, composed(self.state.find(keys), self.state.values(table), self.lengths))

    def _end(self) -> PartReport:
        self._take_before(self.seen[-1])
        path = None
        run = self.state.merged()
        if run is not None and run.path is not None:
            path = self.job.new(f"state/{self.layout.name}", self.number, ".arrow")
            shutil.copyfile(run.path, path)
        met = Population(ids=0, events=0, in_table=0, events_in_table=0)
        if self.layout.name in ("user", "item"):
            self._take_before(len(self.seen))
            met = Population.of(*self.state.all_views(), self.job.ids(self.layout.name).to_numpy())
        return PartReport(kind=self.layout.name, path=path, met=met, rows=self.rows)


def keys_of(table: pa.Table, layout: GroupLayout) -> list[Int64s]:
    """The keys of rows of a state, for each key int64 [K]."""
    return [table.column(f"key:{k}").to_numpy() for k in layout.keys]


def table_of(rows: Sequence[pa.Buffer], layout: GroupLayout) -> pa.Table:
    """Rows of a state that were sent."""
    schema = layout.schema()
    return pa.Table.from_batches([pa.ipc.read_record_batch(data, schema) for data in rows], schema).combine_chunks()


def _by_chunk(batches: Batches, layout: GroupLayout) -> Iterator[tuple[int, pa.Table]]:
    rows = (
        row for batch in batches for row in zip(batch.column("chunk").to_pylist(), batch.column("data"), strict=True)
    )
    for chunk, same in groupby(rows, key=lambda row: row[0]):
        yield chunk, table_of([data.as_buffer() for _, data in same], layout)


def _state_row(task: int, chunk: int, kind: int, data: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([[task], [chunk], [kind], data], schema=STATES_SCHEMA)


def _binary(batch: pa.RecordBatch) -> pa.Array:
    return pa.array([batch.serialize().to_pybytes()], pa.binary())
