"""The files of samples: one for each split and period, in the order of time."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coldrank.data.cohorts import CohortConfig, cohort_masks
from coldrank.data.log import SAMPLED, LabelKind
from coldrank.data.split import SPLITS
from coldrank.data.state.run import mixed
from coldrank.data.times import as_date

Json = dict[str, Any]
ROW_GROUP = 65_536
CHECKSUMS = 2**62
# Split and period.
Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Partition:
    """A Parquet file of samples."""

    path: str
    """Relative to the data folder."""
    split: str
    """One of SPLITS."""
    period: str
    """Name of the day, month or other period."""
    rows: int
    """How many rows the file has."""
    time_min: int
    """Time of its first row, ms since the epoch."""
    time_max: int
    """Time of its last row, ms since the epoch."""
    checksum: int
    """Of the values of its rows but for lists. Those of files add up, modulo 2^62, to that of their rows together."""


@dataclass(slots=True)
class LabelCounts:
    """What the labels of some samples are counted to."""

    known: dict[str, int] = field(default_factory=dict)
    """Task -> samples whose label is known."""
    sums: dict[str, float] = field(default_factory=dict)
    """Task -> the sum of the known labels."""
    cohorts: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """Task of a flag -> cohort -> positives and negatives. The cohorts are those of a config that changes none."""
    sampled: int = 0
    """Samples of sampled negatives."""

    def add(self, samples: pa.Table, labels: dict[str, LabelKind]) -> None:
        """Counts samples."""
        users, items = (samples.column(n).to_numpy() for n in ("user_views", "item_views"))
        masks = cohort_masks(users, items, CohortConfig())
        if SAMPLED in samples.column_names:
            self.sampled += int(samples.column(SAMPLED).to_numpy().sum())
        for task, kind in labels.items():
            column = samples.column(f"label_{task}")
            known = column.is_valid().to_numpy()
            values = column.fill_null(0).to_numpy().astype(np.float64)
            self.known[task] = self.known.get(task, 0) + int(known.sum())
            self.sums[task] = self.sums.get(task, 0.0) + float(values.sum())
            if kind == "flag":
                counts = self.cohorts.setdefault(task, {})
                for cohort, mask in masks.items():
                    positive = int((mask & (values == 1)).sum())
                    negative = int((mask & known).sum()) - positive
                    before = counts.get(cohort, [0, 0])
                    counts[cohort] = [before[0] + positive, before[1] + negative]

    def to_json(self) -> Json:
        return {"known": self.known, "sums": self.sums, "cohorts": self.cohorts, "sampled": self.sampled}

    @classmethod
    def total(cls, parts: Iterable["LabelCounts"]) -> "LabelCounts":
        """Of all parts together."""
        total = cls()
        for part in parts:
            total.sampled += part.sampled
            for task, n in part.known.items():
                total.known[task] = total.known.get(task, 0) + n
                total.sums[task] = total.sums.get(task, 0.0) + part.sums[task]
            for task, cohorts in part.cohorts.items():
                counts = total.cohorts.setdefault(task, {})
                for cohort, (positive, negative) in cohorts.items():
                    before = counts.get(cohort, [0, 0])
                    counts[cohort] = [before[0] + positive, before[1] + negative]
        return total


class PartitionWriter:
    """Writes a partition in full row groups, whatever pieces it comes in: the same rows make the same file."""

    def __init__(self, folder: Path, place: Place, schema: pa.Schema, labels: dict[str, LabelKind]) -> None:
        self.split, self.period = place
        self.path = Path("samples", f"split={self.split}", f"period={self.period}", "part-0.parquet")
        self.counts, self._labels = LabelCounts(), labels
        self._rows, self._first, self._last, self._waiting = 0, 0, 0, schema.empty_table()
        self._checksum = 0
        (folder / self.path).parent.mkdir(parents=True)
        # Numbers seldom repeat: a dictionary of them takes longer to write and more room.
        coded = [f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name for f in schema]
        inner = [f.type.value_type if pa.types.is_list(f.type) else f.type for f in schema]
        coded = [n for n, kind in zip(coded, inner, strict=True) if not pa.types.is_floating(kind)]
        self._writer = pq.ParquetWriter(
            folder / self.path, schema, compression="zstd", use_dictionary=coded, write_page_checksum=True
        )

    @property
    def room(self) -> int:
        """How many rows make the next row group full."""
        return ROW_GROUP - len(self._waiting)

    def add(self, samples: pa.Table) -> None:
        """Takes the next samples in the order of time, none of them twice; at most `room`."""
        self._waiting = pa.concat_tables([self._waiting, samples])
        if len(self._waiting) >= ROW_GROUP:
            self._write()

    def close(self) -> Partition:
        """Ends the file. It has a row at least."""
        if len(self._waiting):
            self._write()
        self._writer.close()
        return Partition(
            path=str(self.path),
            split=self.split,
            period=self.period,
            rows=self._rows,
            time_min=self._first,
            time_max=self._last,
            checksum=self._checksum,
        )

    def _write(self) -> None:
        table, self._waiting = self._waiting.combine_chunks(), self._waiting.schema.empty_table()
        self._writer.write_table(table, row_group_size=ROW_GROUP)
        self.counts.add(table, self._labels)
        time = table.column("time")
        self._first, self._last = self._first if self._rows else time[0].as_py(), time[-1].as_py()
        self._rows += len(table)
        self._checksum = (self._checksum + checksum(table)) % CHECKSUMS


def checksum(samples: pa.Table) -> int:
    """The sum of a hash of each row, of all columns but lists."""
    total = np.zeros(len(samples), np.uint64)
    for column in (c for c in samples.columns if not pa.types.is_list(c.type)):
        values = column.fill_null(0).to_numpy()
        bits = values.view(np.uint32) if values.dtype == np.float32 else values.astype(np.int64).view(np.uint64)
        total = mixed(total ^ bits)
    return int(total.sum(dtype=np.uint64)) % CHECKSUMS


def pieces(place: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The rows of each number that occurs, ascending. place: int64 [N], small numbers."""
    order = np.argsort(place, kind="stable")
    bounds = np.flatnonzero(np.diff(place[order], prepend=-1, append=-1))
    for first, end in itertools.pairwise(bounds):
        yield int(place[order[first]]), order[first:end]


@dataclass(frozen=True, slots=True)
class DatedPeriods:
    """Days or months."""

    digits: int
    """How much of a date names a period: 10 for days, 7 for months."""

    def of(self, day: NDArray[np.integer], first: int) -> tuple[list[str], NDArray[np.int64]]:
        """Names in order, and the one of each event [N]. first: number of the first of these events in the log."""
        days, code = np.unique(day, return_inverse=True)
        labels, period = np.unique([as_date(d).isoformat()[: self.digits] for d in days], return_inverse=True)
        return labels.tolist(), period[code].astype(np.int64)

    def names(self, days: NDArray[np.integer], first: int, rows: int) -> list[str]:
        """The periods of some rows of the log from `first` on. days: that they are of."""
        return self.of(days, first)[0]


@dataclass(frozen=True, slots=True)
class EqualPeriods:
    """Periods p01, p02, ... of equally many events, in the order of time."""

    periods: int
    """How many."""
    events: int
    """Of the log."""

    def of(self, day: NDArray[np.integer], first: int) -> tuple[list[str], NDArray[np.int64]]:
        """As `DatedPeriods.of`."""
        labels = [f"p{n + 1:0{len(str(self.periods))}d}" for n in range(self.periods)]
        return labels, np.arange(first, first + len(day), dtype=np.int64) * self.periods // self.events

    def names(self, days: NDArray[np.integer], first: int, rows: int) -> list[str]:
        """As `DatedPeriods.names`."""
        low, high = (n * self.periods // self.events for n in (first, first + rows - 1))
        return self.of(days, first)[0][low : high + 1]


Periods = DatedPeriods | EqualPeriods


def places(
    split: NDArray[np.int8], labels: list[str], period: NDArray[np.int64]
) -> Iterator[tuple[Place, NDArray[np.int64]]]:
    """Split and period of each partition that some events are of, and which of them are, int64 [R]."""
    for number, rows in pieces(split.astype(np.int64) * len(labels) + period):
        of_split, label = divmod(number, len(labels))
        yield (SPLITS[of_split], labels[label]), rows
