"""The second job: slices are cut at the bounds of chunks, which are sorted and freed of duplicates, each by a task."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from coldrank.data.agree import in_types
from coldrank.data.arrow_files import as_frame, between, from_bytes, pieces, read_table, to_bytes, write_frame
from coldrank.data.events import Events, as_events, in_order, local_day
from coldrank.data.spark.job import SparkJob
from coldrank.data.spark.read import HOUR_MS, TimeSlice
from coldrank.data.spark.tasks import ANSWERS, Batches, answer, answers, called, numbered, numbers
from coldrank.data.statistics import counted_whole
from coldrank.data.whole import Whole, write_times

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SECOND_MS = 1000
_CUT = "chunk long, slice long, piece long, data binary"
_CUT_SCHEMA = pa.schema([("chunk", pa.int64()), ("slice", pa.int64()), ("piece", pa.int64()), ("data", pa.binary())])


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeChunk:
    """All events of an interval of time, in order, on disk."""

    path: Path
    """Where they lie."""
    times: Path
    """Where their times lie."""
    rows: int
    """How many."""
    rows_read: int
    """How many there were with those that equal another."""
    whole: Whole
    """What they are as a whole."""
    total: dict[str, Any]
    """What they are counted to, as `State.total_json`."""
    first: int
    """The first time, ms."""
    last: int
    """The last time."""
    counted: int
    """When the last of them counts with all its outcomes, ms."""
    days: NDArray[np.int32]
    """The days that they are of, int32 [D]."""
    day_rows: NDArray[np.int64]
    """Events of each day, int64 [D]."""
    users: NDArray[np.int64]
    """Their known users, ascending; none unless the split asks for them."""


def sort(spark: "SparkSession", job: SparkJob, slices: Sequence[TimeSlice], *, users: bool) -> list[TimeChunk]:
    """The log in chunks, in order. users: whether the split asks for them."""
    bounds = _bounds(spark, job, slices)
    count = len(bounds) - 1

    def cut(batches: Batches) -> Iterator[pa.RecordBatch]:
        for number in numbers(batches):
            yield from _cut(slices[number], number, bounds)

    def put_in_order(batches: Batches) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        number = TaskContext.get().partitionId()  # type: ignore[union-attr]
        tables = [from_bytes(data.as_buffer()) for batch in batches for data in batch.column("data")]
        yield answer(number, lambda: _sorted(job, number, tables, users=users))

    cuts = numbered(spark, len(slices)).mapInArrow(cut, _CUT)
    ordered = cuts.repartitionById(count, cuts["chunk"].cast("int")).sortWithinPartitions("chunk", "slice", "piece")
    return answers(ordered.mapInArrow(put_in_order, ANSWERS))


def _cut(of: TimeSlice, number: int, bounds: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    table = read_table(of.path)
    first, last = (int(np.searchsorted(bounds, t, "right")) - 1 for t in (of.low, of.high))
    for chunk in range(first, last + 1):
        for piece, batch in enumerate(pieces(between(table, int(bounds[chunk]), int(bounds[chunk + 1])))):
            row = [[chunk], [number], [piece], pa.array([to_bytes(batch).to_pybytes()], pa.binary())]
            yield pa.RecordBatch.from_arrays(row, schema=_CUT_SCHEMA)


def _sorted(job: SparkJob, number: int, tables: Sequence[pa.Table], *, users: bool) -> TimeChunk:
    parts = [in_types(as_frame(table), job.kinds) for table in tables]
    rows_read = sum(map(len, parts))
    frame, duplicates = in_order(pl.concat(parts), job.keep_duplicates)
    frame = frame.drop("row:")
    path, times = job.new("chunks", number, ".arrow"), job.new("times", number, ".bin")
    write_frame(frame, path)
    events = as_events(frame, job.log, job.plan, coded=False)
    write_times(times, events.time)
    whole = Whole(events_read=rows_read, duplicates=duplicates)
    whole.see(events, job.log)
    days, day_rows = np.unique(events.day, return_counts=True)
    return TimeChunk(
        path=path,
        times=times,
        rows=len(frame),
        rows_read=rows_read,
        whole=whole,
        total=_total(events),
        first=int(events.time[0]),
        last=int(events.time[-1]),
        counted=int(counted_whole(events).max()),
        days=days,
        day_rows=day_rows,
        users=np.unique(events.known_users) if users else np.empty(0, np.int64),
    )


def _total(events: Events) -> dict[str, Any]:
    return {
        "views": len(events.time),
        "positives": {s: int((v == 1).sum()) for s, v in events.signals.items()},
        "known": {s: int((v >= 0).sum()) for s, v in events.signals.items()},
    }


def _bounds(spark: "SparkSession", job: SparkJob, slices: Sequence[TimeSlice]) -> NDArray[np.int64]:
    """Where chunks begin, and where the last ends, ms, int64 [C + 1]."""
    hours: Counter[int] = Counter()
    for part in slices:
        hours.update(part.hours)
    most = job.sizes.chunk_rows
    units = {hour * HOUR_MS: rows for hour, rows in hours.items() if rows <= most}
    if hot := [hour for hour, rows in hours.items() if rows > most]:
        met = [s for s in slices if not s.hours.keys().isdisjoint(hot)]
        for seconds in called(spark, len(met), partial(_seconds, met, hot)):
            for second, rows in seconds.items():
                units[second] = units.get(second, 0) + rows
    begins = np.array(sorted(units), np.int64)
    days = pl.select(local_day(pl.lit(pl.Series(begins)), job.log.spec)).to_series().to_list()
    bounds, rows, day = [], most + 1, days[0]
    for begin, of_day in zip(begins.tolist(), days, strict=True):
        # A chunk that ends with its day is looked at for one period alone.
        if rows + units[begin] > most or (of_day != day and rows > most // 4):
            bounds.append(begin)
            rows = 0
        rows, day = rows + units[begin], of_day
    return np.array([*bounds, (max(hours) + 1) * HOUR_MS], np.int64)


def _seconds(slices: Sequence[TimeSlice], hours: Sequence[int], number: int) -> dict[int, int]:
    """Second -> rows of a slice in it, for the seconds of some hours."""
    time = read_table(slices[number].path)["time"].to_numpy()
    time = time[np.isin(time // HOUR_MS, hours)]
    seconds, rows = np.unique(time // _SECOND_MS * _SECOND_MS, return_counts=True)
    return dict(zip(seconds.tolist(), rows.tolist(), strict=True))
