"""A log of 200 events, one an hour, with the columns that a test gives it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from event_logs import START

from coldrank.data.events import Events
from coldrank.data.log import LogSpec
from coldrank.data.own_log import open_log
from coldrank.data.spool import load_events

ROWS = 200
TIMES = [START + i * 3_600_000 for i in range(ROWS)]


def spec(**more: Any) -> LogSpec:
    fields: dict[str, Any] = {"user": "user", "item": "item", "time": "time", "tasks": {"click": "click"}}
    return LogSpec(**(fields | more))


def table(**columns: Any) -> pa.Table:
    """200 events, one an hour, with other or further columns."""
    hourly: dict[str, Any] = {
        "user": pa.array([i % 7 for i in range(ROWS)], pa.int64()),
        "item": pa.array([i % 11 for i in range(ROWS)], pa.int64()),
        "time": pa.array(TIMES, pa.int64()),
        "click": pa.array([i % 2 for i in range(ROWS)], pa.int64()),
    }
    return pa.table({n: c for n, c in (hourly | columns).items() if c is not None})


def load(folder: Path, *tables: pa.Table, log_spec: LogSpec | None = None) -> Events:
    """The events of a log of these files, a.parquet, b.parquet, ..."""
    (folder / "log").mkdir()
    for name, content in zip("abc", tables, strict=False):
        pq.write_table(content, folder / "log" / f"{name}.parquet")
    return load_events(open_log(folder / "log", log_spec or spec()))


def every(value: Callable[[int], Any], kind: pa.DataType | None = None) -> pa.Array:
    return pa.array([value(i) for i in range(ROWS)], kind)
