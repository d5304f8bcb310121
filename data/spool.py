"""A log on its way to samples, on disk: read in slices, then cut into chunks of an interval of time each.

So memory holds a slice or a chunk, however long the log.
"""

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from coldrank.data.agree import Agreement, fill_types, in_types, nature
from coldrank.data.arrow_files import as_frame, between, read_frame, read_table, write_frame
from coldrank.data.errors import UserError
from coldrank.data.events import Events, as_events, in_order, plan_columns, read_slices
from coldrank.data.log import EventLog, LogFile
from coldrank.data.text.settle import Settled
from coldrank.data.vectors import VECTOR, Lengths, is_vector, vector_column

# Rows that are read at a time, and of a chunk, unless one hour has more.
ROWS = 1 << 20
_HOUR_MS = 3_600_000


class Spool:
    """The events of a log in a folder, which is the caller's to remove."""

    def __init__(
        self,
        log: EventLog,
        folder: Path,
        *,
        chunk_rows: int = ROWS,
        before: Mapping[str, Any] | None = None,
    ) -> None:
        """chunk_rows: how many events a chunk has at most, unless one hour has more.

        before: the origin of what was prepared before, see `Ledger`.
        """
        self.log, self.folder, self.chunk_rows = log, folder, chunk_rows
        self.plan = plan_columns(log)
        self.agreement = Agreement(self.plan)
        self.text = Settled((before or {}).get("text", {}))
        self.lengths = Lengths((before or {}).get("vectors", {}))
        for table, key in ((log.users, "user_id"), (log.items, "item_id")):
            for values in () if table is None else table:
                if is_vector(values.dtype):
                    where = f"the table of {key}: column {values.name}"
                    self.lengths.see(vector_column(values, where), where)

        self.kinds: dict[str, pl.DataType] = {}
        self.rows = self.others = 0
        self._others: list[Path] = []
        self._slices: list[Path] = []
        self._hours: dict[int, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def read(
        self, files: Sequence[LogFile], after: int | None = None, lacking: Mapping[str, pl.DataType] | None = None
    ) -> None:
        """Reads files of the log. after: only events later than this are taken, the others are counted; None: all.

        lacking: columns that are null, of these types, in a file that does not have them.
        Raises UserError with file, column and row.
        """
        used = dict.fromkeys(name for column in self.plan for name in column.inputs())
        files = self.text.read(files, used, self.folder / "text")
        files = fill_types([_with_columns(f, lacking) if lacking else f for f in files])
        self.log = replace(self.log, files=tuple(files))
        for file in tqdm(files, desc="reading", unit="file", disable=None):
            rows = 0
            for part in read_slices(file, self.log, self.plan, ROWS):
                self.agreement.add(part, rows)
                for column in (c for c in self.plan if part.frame.schema[c.name] == VECTOR):
                    self.lengths.see(part.frame[column.name], column.where(file.path), rows)
                rows += len(part.frame)
                frame = part.frame
                if after is not None:
                    late = frame["time"] <= after
                    self._add_others(frame.filter(late).select("time", "user_id", "item_id").sort("time"))
                    frame = frame.filter(~late)
                self._add(frame)
        self.kinds = self.agreement.settle(self.tables())

    def others_between(self, low: int, high: int) -> pl.DataFrame:
        """Time, user and item of the events that were not taken, low <= time < high."""
        return pl.concat([as_frame(between(read_table(path), low, high)) for path in self._others])

    def chunks(self, keep_duplicates: bool) -> "Chunks":
        """The events in order, cut into chunks, on disk. What was read goes."""
        bounds = self._bounds()
        chunks = Chunks(self.log, self.folder)
        for low, high in tqdm(list(itertools.pairwise(bounds)), desc="sorting", unit="chunk", disable=None):
            parts = [in_types(as_frame(between(read_table(path), low, high)), self.kinds) for path in self._slices]
            frame, duplicates = in_order(pl.concat(parts), keep_duplicates)
            chunks.add(frame.drop("row:"), duplicates)
        for path in self._slices:
            path.unlink()
        return chunks

    def tables(self) -> dict[str, set[str]]:
        """The id column of each table -> the nature of its ids."""
        tables = {"user_id": self.log.users, "item_id": self.log.items}
        return {key: nature(table[key]) for key, table in tables.items() if table is not None}

    def _add(self, frame: pl.DataFrame) -> None:
        if frame.is_empty():
            return
        self.rows += len(frame)
        frame = frame.sort("time", maintain_order=True)
        hours, rows = np.unique(frame["time"].to_numpy() // _HOUR_MS, return_counts=True)
        for hour, count in zip(hours.tolist(), rows.tolist(), strict=True):
            self._hours[hour] = self._hours.get(hour, 0) + count
        self._slices.append(self.folder / f"slice-{len(self._slices)}.arrow")
        write_frame(frame, self._slices[-1])

    def _add_others(self, frame: pl.DataFrame) -> None:
        if not frame.is_empty():
            self.others += len(frame)
            self._others.append(self.folder / f"others-{len(self._others)}.arrow")
            write_frame(frame, self._others[-1])

    def _bounds(self) -> list[int]:
        """Where chunks begin, and where the last ends, in ms."""
        bounds, rows = [], self.chunk_rows + 1
        for hour, count in sorted(self._hours.items()):
            if rows + count > self.chunk_rows:
                bounds.append(hour * _HOUR_MS)
                rows = 0
            rows += count
        return [*bounds, (max(self._hours) + 1) * _HOUR_MS] if bounds else []


class Chunks:
    """The events of a log in order, on disk."""

    def __init__(self, log: EventLog, folder: Path) -> None:
        self._log, self._folder, self._plan = log, folder, plan_columns(log)
        self.rows: list[int] = []
        self.duplicates = 0

    def add(self, frame: pl.DataFrame, duplicates: int) -> None:
        """Takes the next chunk. duplicates: how many of its rows equal an earlier one."""
        write_frame(frame, self._path(len(self.rows)))
        self.rows.append(len(frame))
        self.duplicates += duplicates

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Events]:
        return (self.load(number) for number in range(len(self.rows)))

    def load(self, number: int, *, coded: bool = True) -> Events:
        """A chunk, counted from 0. coded: whether with the codes of its keys."""
        return as_events(self.frame(number), self._log, self._plan, coded=coded)

    def frame(self, number: int) -> pl.DataFrame:
        """The planned columns of a chunk."""
        return read_frame(self._path(number))

    def events(self, frame: pl.DataFrame) -> Events:
        """What `frame` gave, with negatives or without, as events."""
        return as_events(frame, self._log, self._plan)

    def _path(self, number: int) -> Path:
        return self._folder / f"chunk-{number}.arrow"


def load_events(log: EventLog, keep_duplicates: bool = False) -> Events:
    """All events of a log at once: checked, without exact duplicates, sorted. Raises UserError."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(log, Path(folder), chunk_rows=2**62)
        spool.read(log.files)
        check_any(spool)
        return spool.chunks(keep_duplicates).load(0)


def check_any(spool: Spool) -> None:
    """Raises UserError for a log without events."""
    if not spool.rows:
        raise UserError(f"{spool.log.files[0].path}: no events")


def _with_columns(file: LogFile, lacking: Mapping[str, pl.DataType]) -> LogFile:
    held = file.frame.collect_schema().names()
    new = [pl.lit(None, kind).alias(n) for n, kind in lacking.items() if n not in held]
    return replace(file, frame=file.frame.with_columns(new))
