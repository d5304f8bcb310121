"""An event log -> samples as of the time of each event: Parquet, sorted by time, one partition per split and period."""

import itertools
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from coldrank.data.events import Events, load_events, static_table
from coldrank.data.log import EventLog, check_spec
from coldrank.data.manifest import Partition, manifest
from coldrank.data.place import check_out, put_in_place, staging
from coldrank.data.samples import SampleBuilder
from coldrank.data.split import SPLITS
from coldrank.data.statistics import compute_statistics
from coldrank.data.times import as_date
from coldrank.data.warn import about_splits, about_tables, about_times

ROW_GROUP = 65_536

# Index into SPLITS for each event, int8 [N].
SplitRule = Callable[[Events], NDArray[np.int8]]
# Split, period and events of a partition.
_Job = tuple[str, str, NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareOptions:
    """What the samples hold and how they are cut."""

    history: int
    """Longest history of a user, in events."""
    arguments: dict[str, Any]
    """What the caller asked for. Noted in the manifest once the split is made, which may add to it."""
    item_history: int = 0
    """Longest history of an item, in events; 0: none."""
    periods: int = 0
    """Number of periods of equally many events; 0: days or months, as the spec says."""
    keep_duplicates: bool = False
    """Whether equal rows are events of their own."""


def prepare(log: EventLog, out: Path, split: SplitRule, options: PrepareOptions) -> dict[str, Any]:
    """Writes the samples of a log to `out`, in full or not at all; returns the manifest.

    Raises UserError for a wrong spec or wrong data, and if `out` holds something else than prepared data.
    """
    check_spec(log.spec)
    check_out(out)
    events = load_events(log, options.keep_duplicates)
    _warn(about_times(log, events))
    splits = split(events)
    statistics = compute_statistics(events, log.spec, options.history, options.item_history)
    users = None if log.users is None else static_table(log.users, "user_id", "user features")
    items = None if log.items is None else static_table(log.items, "item_id", "item features")
    samples = SampleBuilder.from_events(log.spec, events, statistics, users, items)
    _warn(about_splits(samples, splits))
    with staging(out) as staged:
        partitions = _write(samples, splits, options.periods, staged)
        content = manifest(log, options.arguments, samples, splits, partitions, options.history)
        _warn(about_tables(content["joined"]))
        return put_in_place(staged, out, content)


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        tqdm.write(f"warning: {line}", file=sys.stderr)


def _write(samples: SampleBuilder, splits: NDArray[np.int8], periods: int, folder: Path) -> list[Partition]:
    jobs = list(_partition_rows(samples, splits, periods))
    bar = tqdm(total=len(splits), desc="writing", unit="row", unit_scale=True, disable=None)
    # Each thread holds one row group; building and compressing it mostly leave the interpreter free for the others.
    with bar, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda job: _write_partition(samples, folder, job, bar.update), jobs))


def _partition_rows(samples: SampleBuilder, splits: NDArray[np.int8], periods: int) -> list[_Job]:
    """Split, period and rows of each partition, in the order of splits and time."""
    labels, period = _equal_periods(len(splits), periods) if periods else _dated_periods(samples)
    code = splits.astype(np.int64) * len(labels) + period
    order = np.argsort(code, kind="stable")
    bounds = np.flatnonzero(np.diff(code[order], prepend=-1, append=-1))
    parts = []
    for first, end in itertools.pairwise(bounds):
        split, label = divmod(int(code[order[first]]), len(labels))
        parts.append((SPLITS[split], str(labels[label]), order[first:end]))
    return parts


def _dated_periods(samples: SampleBuilder) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Names of the days or months, in order, and the one of each event [N]."""
    days, day_code = np.unique(samples.events.day, return_inverse=True)
    digits = 10 if samples.spec.period == "day" else 7
    labels, period_of_day = np.unique([as_date(d).isoformat()[:digits] for d in days], return_inverse=True)
    return labels, period_of_day[day_code]


def _equal_periods(events: int, periods: int) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Names p01, p02, ... and the one of each event [N], in order of time."""
    labels = np.array([f"p{n + 1:0{len(str(periods))}d}" for n in range(periods)])
    return labels, np.arange(events, dtype=np.int64) * periods // events


def _write_partition(samples: SampleBuilder, folder: Path, job: _Job, wrote: Callable[[int], object]) -> Partition:
    split, period, rows = job
    path = Path("samples", f"split={split}", f"period={period}", "part-0.parquet")
    (folder / path).parent.mkdir(parents=True)
    # Numbers seldom repeat: a dictionary of them takes longer to write and more room.
    coded = [f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name for f in samples.schema]
    coded = [n for n, f in zip(coded, samples.schema, strict=True) if not pa.types.is_floating(f.type)]
    with pq.ParquetWriter(
        folder / path, samples.schema, compression="zstd", use_dictionary=coded, write_page_checksum=True
    ) as writer:
        for first in range(0, len(rows), ROW_GROUP):
            chunk = rows[first : first + ROW_GROUP]
            writer.write_table(samples.table(chunk), row_group_size=ROW_GROUP)
            wrote(len(chunk))
    time = samples.events.time
    return Partition(str(path), split, period, len(rows), int(time[rows[0]]), int(time[rows[-1]]))
