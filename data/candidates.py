"""The samples of events that have not happened yet, as of their times, from the state of a prepared folder."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from coldrank.data.append import Prepared, check_same, origin, same_types
from coldrank.data.errors import UserError
from coldrank.data.events import plan_columns, static_table
from coldrank.data.formats import event_file
from coldrank.data.log import EventLog, LogFile, check_spec
from coldrank.data.output import partial_of, put_file
from coldrank.data.partitions import ROW_GROUP
from coldrank.data.samples import SampleBuilder
from coldrank.data.spool import Spool, check_any
from coldrank.data.statistics import compute_statistics
from coldrank.data.text.words import type_of

# Kinds of columns that are known before the event.
_KNOWN = ("id", "time", "feature", "birth")


def write_candidates(log: EventLog, data: Path, file: Path, samples: Path, arguments: dict[str, Any]) -> int:
    """Writes the samples of a file of events, one for each row, by time, user and item; returns how many.

    log: the log of `data`, for its spec and tables. file: in any format, in the columns of the log; those of outcomes
    may lack. None of the events sees another. arguments: as they were for `data`.
    Raises UserError for an event that is not later than all of `data`, and as `prepare --append` does.
    """
    check_spec(log.spec)
    base = Prepared.open(data)
    check_same(base, origin(log, arguments))
    opened = event_file(file, log.spec)
    words = base.ledger.origin.get("text", {})
    known = {n for c in plan_columns(log) if c.kind in _KNOWN or c.name.startswith("key:") for n in c.inputs()}
    kinds = {n: type_of(w) for n, w in words.items()} | _columns(log.files[0])
    lacking = {n: kind for n, kind in kinds.items() if n not in known}
    # No event sees the outcome of another, whenever it is known.
    at_once = {s: after if isinstance(after, int | float) else 0 for s, after in log.spec.known_after.items()}
    of_file = replace(log, files=(opened,), spec=replace(log.spec, known_after=at_once))
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(of_file, Path(folder), chunk_rows=2**62, before=base.ledger.origin)
        spool.read([opened], lacking=lacking)
        check_any(spool)
        same_types(spool, base.ledger.origin)
        events = spool.chunks(True).load(0)
        last = base.ledger.whole.last
        if events.time[0] <= last:
            raise UserError(
                f"{file}: an event of {events.time[0]} (ms): should be later than {last}, the last of {data}"
            )
        statistics = compute_statistics(events, base.ledger.state(base.data), advance=False)
        tables = (
            None if table is None else static_table(table, f"{name}_id", f"{name} features")
            for name, table in (("user", log.users), ("item", log.items))
        )
        builder = SampleBuilder.from_events(log.spec, events, statistics, *tables)
        _write(builder, samples, len(events.time))
    return len(events.time)


def _columns(file: LogFile) -> dict[str, pl.DataType]:
    """The columns of a file, without those of text, and of its folders."""
    return dict(file.frame.with_columns(value for _, value in file.folders.values()).collect_schema())


def _write(builder: SampleBuilder, path: Path, rows: int) -> None:
    partial = partial_of(path)
    schema: pa.Schema = builder.schema
    with pq.ParquetWriter(partial, schema, compression="zstd", write_page_checksum=True) as writer:
        for first in range(0, rows, ROW_GROUP):
            writer.write_table(builder.table(np.arange(first, min(first + ROW_GROUP, rows))))
    put_file(partial, path)
