"""The third job: each chunk goes through the kernel with the state before it; samples are written."""

import pickle
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from coldrank.data.partitions import LabelCounts, Partition, Periods, places
from coldrank.data.samples import SampleBuilder
from coldrank.data.spark.job import SparkJob
from coldrank.data.spark.plan import WriteTask, first_rows, seen_whole
from coldrank.data.spark.sort import TimeChunk
from coldrank.data.spark.states import REPORT, PartReport, states, table_of
from coldrank.data.spark.tasks import ANSWERS, Batches, answer, answers
from coldrank.data.split import Split
from coldrank.data.state.events import StateEvents
from coldrank.data.state.run import SortedRun, sorted_batches
from coldrank.data.state.state import State
from coldrank.data.statistics import events_met, statistics_as_of
from coldrank.data.writers import Writers

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What a task has written."""

    folder: Path
    """Where the partitions lie, by their paths."""
    partitions: list[Partition]
    """In the order in which they were ended."""
    labels: dict[str, LabelCounts]
    """Path of a partition -> its labels."""
    schema: pa.Schema
    """The columns."""
    rows: int
    """Events that went through the kernel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleWriting:
    """How a log becomes samples."""

    job: SparkJob
    """The job."""
    chunks: Sequence[TimeChunk]
    """The log."""
    tasks: Sequence[WriteTask]
    """Who writes what."""
    split: Split
    """Which split an event is of."""
    periods: Periods
    """Which period."""

    def write(self, spark: "SparkSession") -> tuple[list[Written], list[PartReport]]:
        """Writes all; what the tasks say, in the order of the samples, and the parts of the state."""
        seen, totals = seen_whole(self.chunks, self.job.shape), list(running_totals(self.chunks))
        first = first_rows(self.chunks)

        def make(batches: Batches) -> Iterator[pa.RecordBatch]:
            from pyspark import TaskContext

            number = TaskContext.get().partitionId()  # type: ignore[union-attr]
            rows = _Rows(batches)
            # Reports come before all chunks.
            for report, (_, data) in enumerate(rows.of(REPORT)):
                yield answer(len(self.tasks) * (report + 1) + number, lambda data=data: pickle.loads(data))  # type: ignore[misc]
            yield answer(number, lambda: _Writing(self, seen, totals, first).run(number, rows))

        said = answers(states(spark, self.job, self.chunks, self.tasks, seen).mapInArrow(make, ANSWERS))
        return said[: len(self.tasks)], said[len(self.tasks) :]


def running_totals(chunks: Sequence[TimeChunk]) -> Iterator[Json]:
    """What the whole log was counted to before each chunk, and after the last, as `State.total_json`."""
    total: Json = {"views": 0, "positives": {}, "known": {}}
    yield total
    for chunk in chunks:
        counts = {n: {s: k + total[n].get(s, 0) for s, k in chunk.total[n].items()} for n in ("positives", "known")}
        total = {"views": total["views"] + chunk.total["views"], **counts}
        yield total


class _Rows:
    """Rows of `states.STATES`, in order."""

    def __init__(self, batches: Batches) -> None:
        columns = ("chunk", "kind", "data")
        rows = (row for batch in batches for row in zip(*(batch.column(n) for n in columns), strict=True))
        self._groups = groupby(rows, key=lambda row: int(row[0].as_py()))
        self._next = next(self._groups, None)

    def of(self, chunk: int) -> list[tuple[int, pa.Buffer]]:
        """The rows of a chunk, later than all that were asked for: kind of group, and what is said."""
        if self._next is None or self._next[0] != chunk:
            return []
        found = [(int(kind.as_py()), data.as_buffer()) for _, kind, data in self._next[1]]
        self._next = next(self._groups, None)
        return found


class _Writing:
    """A task that writes."""

    def __init__(
        self, samples: SampleWriting, seen: Sequence[int], totals: Sequence[Json], first: Sequence[int]
    ) -> None:
        self.samples, self.seen, self.totals, self.first = samples, seen, totals, first
        self.job = samples.job
        self._waiting: deque[tuple[int, StateEvents]] = deque()
        self._tables = self.job.static_tables()

    def run(self, number: int, rows: _Rows) -> Written:
        """Writes the samples of a task."""
        job, samples, count = self.job, self.samples, 0
        writers = Writers(job.new("files", number), job.log.spec.labels())
        for chunk, wanted in sorted(samples.tasks[number].parts.items()):
            builder = self._samples(chunk, rows.of(chunk))
            events = builder.events
            count += len(events.time)
            of_period = samples.periods.of(events.day, self.first[chunk])
            for place, index in places(samples.split.of(events), *of_period):
                if place[1] in wanted:
                    writers.fill(place, builder, index, lambda _: None)
        for place in writers.places():
            writers.close(place)
        return Written(
            folder=writers.folder,
            partitions=writers.partitions,
            labels=writers.counts,
            schema=builder.schema,
            rows=count,
        )

    def _samples(self, chunk: int, rows: list[tuple[int, pa.Buffer]]) -> SampleBuilder:
        job = self.job
        events = job.events(self.samples.chunks[chunk].path)
        state = State(job.shape, total=self.totals[self.seen[chunk]], pending=self._pending(chunk))
        for kind, group in enumerate(state.groups.values()):
            table = table_of([data for k, data in rows if k == kind], group.layout)
            if len(table):
                group.runs = [
                    SortedRun(None, list(sorted_batches(table)), tuple(f"key:{k}" for k in group.layout.keys))
                ]
        statistics = statistics_as_of(events, state)
        return SampleBuilder.from_events(job.log.spec, events, statistics, *self._tables)

    def _pending(self, chunk: int) -> StateEvents | None:
        """The events between those that the state before a chunk holds and the chunk."""
        while self._waiting and self._waiting[0][0] < self.seen[chunk]:
            self._waiting.popleft()
        have = self._waiting[-1][0] + 1 if self._waiting else self.seen[chunk]
        self._waiting += [(n, met_of(self.job, self.samples.chunks[n])) for n in range(have, chunk)]
        return in_turn([met for _, met in self._waiting])


def met_of(job: SparkJob, chunk: TimeChunk) -> StateEvents:
    """What a state takes of a chunk."""
    return events_met(job.events(chunk.path), job.shape)


def in_turn(parts: Sequence[StateEvents]) -> StateEvents | None:
    """The events of all parts, in order; None: there are none."""
    return parts[0].then(*parts[1:]) if parts else None
