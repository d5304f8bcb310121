"""The first job: the files of a log, read side by side, onto slices that lie in the job's folder."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from coldrank.data.agree import Agreement, fill_types
from coldrank.data.append import digests
from coldrank.data.arrow_files import write_frame
from coldrank.data.events import read_slices
from coldrank.data.log import LogFile
from coldrank.data.spark.job import SparkJob
from coldrank.data.spark.tasks import called
from coldrank.data.spool import Spool
from coldrank.data.text.settle import Settled
from coldrank.data.vectors import VECTOR, Lengths

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HOUR_MS = 3_600_000


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeSlice:
    """Rows of a file, sorted by time."""

    path: Path
    """Where they lie."""
    rows: int
    """How many."""
    low: int
    """The first time, ms."""
    high: int
    """The last time."""
    hours: dict[int, int]
    """Hour since the epoch -> rows."""

    @classmethod
    def write(cls, frame: pl.DataFrame, path: Path) -> "TimeSlice":
        frame = frame.sort("time", maintain_order=True)
        write_frame(frame, path)
        time = frame["time"].to_numpy()
        hours, rows = np.unique(time // HOUR_MS, return_counts=True)
        of_hours = dict(zip(hours.tolist(), rows.tolist(), strict=True))
        return cls(path=path, rows=len(time), low=int(time[0]), high=int(time[-1]), hours=of_hours)


@dataclass(slots=True)
class FilePart:
    """What a task has read of a file, or of its bytes."""

    agreement: Agreement
    lengths: Lengths = field(default_factory=lambda: Lengths({}))
    slices: list[TimeSlice] = field(default_factory=list)
    digest: str = ""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some rows of a file."""

    file: int
    first: int = 0
    count: int | None = None


def read(spark: "SparkSession", job: SparkJob, spool: Spool) -> tuple[list[TimeSlice], list[str]]:
    """The slices of a log in the order of its files and rows, and the digests of these.

    spool: gets types, lengths and rows of what was read. Raises UserError with file, column and row.
    """
    files = fill_types(_parsed(spark, job, spool))
    spool.log = replace(spool.log, files=tuple(files))
    pieces = [p for n, file in enumerate(files) for p in _pieces(n, file, job.sizes.read_rows)]
    parts: list[FilePart] = called(spark, len(pieces) + len(files), partial(_read, job, files, pieces))
    for part in parts[: len(pieces)]:
        spool.agreement.merge(part.agreement)
        spool.lengths.merge(part.lengths)
    spool.kinds = spool.agreement.settle(spool.tables())
    slices = [s for part in parts for s in part.slices]
    spool.rows = sum(s.rows for s in slices)
    return slices, [part.digest for part in parts[len(pieces) :]]


def _parsed(spark: "SparkSession", job: SparkJob, spool: Spool) -> list[LogFile]:
    """The files; those of text in the types that fit all, each parsed by a task."""
    text = [f for f in spool.log.files if f.text is not None]
    found: list[tuple[Settled, list[Path]]] = called(spark, len(text), partial(_parse, job, text))
    for settled, _ in found:
        spool.text.merge(settled)
    parts = {file.path: parts for file, (_, parts) in zip(text, found, strict=True)}
    used = dict.fromkeys(name for column in job.plan for name in column.inputs())
    return spool.text.typed(spool.log.files, parts, used)


def _parse(job: SparkJob, files: Sequence[LogFile], number: int) -> tuple[Settled, list[Path]]:
    settled, file = Settled(), files[number].text
    assert file is not None
    return settled, settled.parse(file, job.new("text", number))


def _pieces(number: int, file: LogFile, rows: int) -> list[_Piece]:
    if not file.in_rows:
        return [_Piece(number)]
    try:
        count = file.frame.select(pl.len()).collect().item()
    except pl.exceptions.PolarsError as error:
        raise file.explain(error) from None
    return [_Piece(number, first, rows) for first in range(0, count, rows)]


def _read(job: SparkJob, files: Sequence[LogFile], pieces: Sequence[_Piece], number: int) -> FilePart:
    """A piece of a file; after the pieces, the digest of a file."""
    part = FilePart(Agreement(job.plan))
    if number >= len(pieces):
        part.digest = digests([files[number - len(pieces)]])[0]
        return part
    piece = pieces[number]
    file, log = files[piece.file], replace(job.with_tables(), files=tuple(files))
    rows = piece.first
    for read in read_slices(file, log, job.plan, job.sizes.read_rows, first=piece.first, count=piece.count):
        part.agreement.add(read, rows)
        for column in (c for c in job.plan if read.frame.schema[c.name] == VECTOR):
            part.lengths.see(read.frame[column.name], column.where(file.path), rows)
        part.slices.append(TimeSlice.write(read.frame, job.new("slices", number, ".arrow")))
        rows += len(read.frame)
    return part
