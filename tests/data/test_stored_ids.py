"""Ids are the same integers however a file stores them."""

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_logs import DAY_MS
from hourly_log import ROWS, TIMES, every, spec, table

from coldrank.data.check import to_numpy
from coldrank.data.ids import string_id
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, prepare
from coldrank.data.split import split_by_time
from coldrank.data.spool import load_events
from coldrank.models.features import Input


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            k, marks=pytest.mark.tried("logs", f"ids, keys and a table's ids of whole {n} beside integers", "the same")
        )
        for k, n in ((pa.float64(), "floats"), (pa.float32(), "floats of 32 bits"), (pa.decimal128(20, 2), "decimals"))
    ],
)
def test_whole_numbers_are_the_integers(kind: pa.DataType, tmp_path: Path) -> None:
    later = pa.array([t + ROWS * DAY_MS for t in TIMES])
    users, keys = every(lambda i: 5 + i % 7, kind), every(lambda i: None if i % 3 == 1 else i % 3, kind)
    tables = [table(user=every(lambda i: 5 + i % 7), x=every(lambda i: i % 3)), table(user=users, x=keys, time=later)]
    (tmp_path / "log").mkdir()
    known = pa.table({"id": pa.array(range(5, 12), kind), "age": [10 * i for i in range(7)]})
    pq.write_table(known, tmp_path / "log" / "users.parquet")
    with_table = spec(user_table="users.parquet", user_table_id="id", user_features={"age": "age"}, keys={"tag": "x"})
    for name, content in zip("ab", tables, strict=True):
        pq.write_table(content, tmp_path / "log" / f"{name}.parquet")
    events = load_events(open_log(tmp_path / "log", replace(with_table, context={"old": pl.col("user_age") + 1})))
    assert events.frame["user_id"].to_list() == [5 + i % 7 for i in range(ROWS)] * 2
    assert events.frame["old"].to_list() == [10 * (i % 7) + 1 for i in range(ROWS)] * 2
    assert events.codes["tag"].tolist() == [i % 3 for i in range(ROWS)] + [
        -1 if i % 3 == 1 else i % 3 for i in range(ROWS)
    ]


LARGE = [2**63 + 5, 2**64 - 1, 7]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("with_table", [False, True])
@pytest.mark.tried(
    "logs", "unsigned ids from 2^63 on, with a user table and without", "the signed integer of their bits"
)
def test_large_unsigned_ids(with_table: bool, ending: str, tmp_path: Path) -> None:
    log = table(user=every(lambda i: LARGE[i % 3], pa.uint64()))
    users = pl.DataFrame({"id": pl.Series(LARGE, dtype=pl.UInt64), "age": [30, 40, 50]})
    (tmp_path / "log").mkdir()
    pq.write_table(log, tmp_path / "log" / "a.parquet")
    path = tmp_path / "log" / f"users.{ending}"
    users.write_csv(path) if ending == "csv" else users.write_parquet(path)
    more = {"user_table": path.name, "user_table_id": "id", "user_features": {"age": "age"}}
    more |= {"context": {"old": pl.col("user_age") > 45}}
    log_spec = spec(**(more if with_table else {}))
    opened = open_log(path.with_name("a.parquet") if not with_table else tmp_path / "log", log_spec)
    content = prepare(
        opened,
        tmp_path / "out",
        lambda known: split_by_time(known.days, None, 1),
        PrepareOptions(history=2, arguments={}),
    )
    samples = pl.concat(pl.read_parquet(tmp_path / "out" / p["path"], glob=False) for p in content["partitions"])
    signed = [-(2**63) + 5, -1, 7]
    assert samples.sort("time")["user_id"].to_list() == [signed[i % 3] for i in range(ROWS)]
    if with_table:
        assert dict(samples.select("user_id", "user_age").rows()) == dict(zip(signed, (30, 40, 50), strict=True))
        assert dict(samples.select("user_id", "old").rows()) == dict(zip(signed, (0, 0, 1), strict=True))
    # What is scored reads the same ids of the log's own type.
    read = to_numpy(Input("user", "int"), log["user"], Path("x"), lambda i: i)
    assert isinstance(read, np.ndarray) and read[:3].tolist() == signed


UUIDS = [UUID(int=7**40 + i) for i in range(7)]
STORED = {
    "text": [str(u) for u in UUIDS],
    "bytes of text": [str(u).encode() for u in UUIDS],
    "Parquet's UUIDs": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([u.bytes for u in UUIDS], pa.binary(16))),
}


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(
            h, marks=pytest.mark.tried("logs", f"UUIDs as {h}, beside text, and in a user table", "the same ids")
        )
        for h in STORED
    ],
)
@pytest.mark.parametrize("of_table", STORED)
def test_text_bytes_and_uuids_are_the_same(how: str, of_table: str, tmp_path: Path) -> None:
    """Two files that say the same: their rows are duplicates."""
    (tmp_path / "log").mkdir()
    rows = [i % 7 for i in range(ROWS)]
    for name, values in (("a", STORED["text"]), ("b", STORED[how])):
        users = pa.array(values) if isinstance(values, list) else values
        pq.write_table(table(user=users.take(pa.array(rows))), tmp_path / "log" / f"{name}.parquet")
    known = pa.table({"id": STORED[of_table], "age": range(7)})
    pq.write_table(known, tmp_path / "log" / "users.parquet")
    with_table = spec(user_table="users.parquet", user_table_id="id", user_features={"age": "age"})
    events = load_events(open_log(tmp_path / "log", replace(with_table, context={"old": pl.col("user_age")})))
    assert events.frame["user_id"].to_list() == [string_id(str(UUIDS[r])) for r in rows]
    assert events.frame["old"].to_list() == rows
