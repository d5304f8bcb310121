"""Files and tables of one log that store the same columns in different ways."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_logs import DAY_MS, START

from coldrank.models.features import Input
from coldrank.train.data.check import to_numpy
from coldrank.train.data.events import Events, load_events
from coldrank.train.data.ids import string_id
from coldrank.train.data.log import Column, LogSpec
from coldrank.train.data.own_log import open_log
from coldrank.train.data.prepare import PrepareOptions, prepare
from coldrank.train.data.split import split_by_time
from coldrank.train.errors import UserError

ROWS = 200
TIMES = [START + i * 3_600_000 for i in range(ROWS)]


def spec(**more: Any) -> LogSpec:
    fields: dict[str, Any] = {"user": "user", "item": "item", "time": "time", "tasks": {"click": "click"}}
    return LogSpec(**(fields | more))


def table(**columns: Any) -> pa.Table:
    """200 events, one an hour, with other or further columns."""
    own: dict[str, Any] = {
        "user": pa.array([i % 7 for i in range(ROWS)], pa.int64()),
        "item": pa.array([i % 11 for i in range(ROWS)], pa.int64()),
        "time": pa.array(TIMES, pa.int64()),
        "click": pa.array([i % 2 for i in range(ROWS)], pa.int64()),
    }
    return pa.table({n: c for n, c in (own | columns).items() if c is not None})


def load(folder: Path, *tables: pa.Table, of: LogSpec | None = None) -> Events:
    """The events of a log of these files, a.parquet, b.parquet, ..."""
    (folder / "log").mkdir()
    for name, content in zip("abc", tables, strict=False):
        pq.write_table(content, folder / "log" / f"{name}.parquet")
    return load_events(open_log(folder / "log", of or spec()))


def every(value: Callable[[int], Any], kind: pa.DataType | None = None) -> pa.Array:
    return pa.array([value(i) for i in range(ROWS)], kind)


MOMENT = datetime(2022, 5, 4, 12, 30, 0, 250_000, tzinfo=UTC)
# The same 200 values of a column `x`, stored in two ways.
SAME: dict[str, tuple[Any, Any]] = {
    "int32 and int64": (every(lambda i: i, pa.int32()), every(lambda i: i, pa.int64())),
    "uint64 and int64": (every(lambda i: i, pa.uint64()), every(lambda i: i, pa.int64())),
    "integers and whole floats": (every(lambda i: i, pa.int64()), every(float)),
    "float32 and float64": (every(lambda i: i / 8, pa.float32()), every(lambda i: i / 8, pa.float64())),
    "integers and booleans": (every(lambda i: i % 2), every(lambda i: i % 2 == 1)),
    "decimals and floats": (every(lambda i: Decimal(i) / 10, pa.decimal128(9, 3)), every(lambda i: i / 10)),
    "decimals of two scales": (
        every(lambda i: Decimal(i), pa.decimal128(9, 2)),
        every(lambda i: Decimal(i), pa.decimal128(20, 0)),
    ),
    "string and large string": (every(str), every(str, pa.large_string())),
    "string and dictionary": (every(str), every(str).dictionary_encode()),
    "integers and a dictionary of them": (every(lambda i: i), every(lambda i: i).dictionary_encode()),
    "ms and ns": (
        every(lambda i: MOMENT + timedelta(hours=i), pa.timestamp("ms")),
        every(lambda i: MOMENT + timedelta(hours=i), pa.timestamp("ns")),
    ),
    "instants of two zones": (
        every(lambda i: MOMENT, pa.timestamp("us", "UTC")),
        every(lambda i: MOMENT, pa.timestamp("us", "Asia/Tokyo")),
    ),
    "days and their midnights": (
        every(lambda i: MOMENT.date(), pa.date32()),
        every(lambda i: MOMENT.replace(hour=0, minute=0, microsecond=0), pa.timestamp("s")),
    ),
    "null and no column": (pa.nulls(ROWS, pa.int64()), None),
    "null and NaN": (pa.nulls(ROWS, pa.float64()), every(lambda i: float("nan"))),
    "0.0 and -0.0": (every(lambda i: 0.0), every(lambda i: -0.0)),
    "lists of int32 and int64": (
        every(lambda i: [i, None], pa.list_(pa.int32())),
        every(lambda i: [i, None], pa.large_list(pa.int64())),
    ),
    "durations in s and in us": (
        every(lambda i: timedelta(seconds=i), pa.duration("s")),
        every(lambda i: timedelta(seconds=i), pa.duration("us")),
    ),
    "structs in another order": (every(lambda i: {"p": i, "q": "x"}), every(lambda i: {"q": "x", "p": i})),
}


@pytest.mark.parametrize(
    "how",
    [pytest.param(k, marks=pytest.mark.tried("logs", f"equal rows of two files: {k}", "one event")) for k in SAME],
)
def test_values_make_a_duplicate(how: str, tmp_path: Path) -> None:
    one, other = SAME[how]
    events = load(tmp_path, table(x=one), table(x=other))
    assert (events.events_read, len(events.time)) == (2 * ROWS, ROWS)


@pytest.mark.tried(
    "logs", "equal rows of two files: columns in another order, ids and times in other types", "one event"
)
def test_the_order_and_types_of_columns_do_not_matter(tmp_path: Path) -> None:
    other = table(
        user=every(lambda i: i % 7, pa.uint16()),
        time=every(lambda i: datetime.fromtimestamp(TIMES[i] / 1000, UTC), pa.timestamp("us", "UTC")),
        click=every(lambda i: float(i % 2)),
    )
    assert len(load(tmp_path, table(), other.select(other.column_names[::-1])).time) == ROWS


DIFFERENT: dict[str, tuple[Any, Any]] = {
    "0.1 in 32 and in 64 bits": (every(lambda i: 0.1, pa.float32()), every(lambda i: 0.1)),
    "integers beyond 2^53": (every(lambda i: 2**53), every(lambda i: 2**53 + 1)),
    "-1 and 2^64 - 1": (every(lambda i: -1), every(lambda i: 2**64 - 1, pa.uint64())),
    "2^64 - 1 and 2^64 - 2": (every(lambda i: 2**64 - 1, pa.uint64()), every(lambda i: 2**64 - 2, pa.uint64())),
    "a null and 0": (pa.nulls(ROWS, pa.int64()), every(lambda i: 0)),
    "a number and its text": (every(lambda i: i), every(str)),
    "a microsecond": (
        every(lambda i: MOMENT, pa.timestamp("us")),
        every(lambda i: MOMENT + timedelta(microseconds=1), pa.timestamp("us")),
    ),
    "long decimals": (
        every(lambda i: Decimal("1234567890123456789.12"), pa.decimal128(30, 2)),
        every(lambda i: Decimal("1234567890123456789.13"), pa.decimal128(30, 2)),
    ),
    "lists in another order": (every(lambda i: [1, 2]), every(lambda i: [2, 1])),
}


@pytest.mark.parametrize(
    "how",
    [pytest.param(k, marks=pytest.mark.tried("logs", f"rows that differ in {k}", "two events")) for k in DIFFERENT],
)
def test_other_values_make_another_event(how: str, tmp_path: Path) -> None:
    one, other = DIFFERENT[how]
    assert len(load(tmp_path, table(x=one), table(x=other)).time) == 2 * ROWS


def test_values_that_change_columns_are_not_the_same(tmp_path: Path) -> None:
    one, other = every(lambda i: 1), every(lambda i: 2)
    assert len(load(tmp_path, table(x=one, y=other), table(x=other, y=one)).time) == 2 * ROWS


CLASHES: list[tuple[str, str, dict[str, Any], Any, Any, str]] = [
    ("the users as numbers and as text", "user", {}, every(lambda i: i), every(str), "text, but numbers in"),
    ("the items as text and as numbers", "item", {}, every(str), every(lambda i: i), "numbers, but text in"),
    (
        "a key as numbers and as text",
        "x",
        {"keys": {"tag": "x"}},
        every(lambda i: i),
        every(str).dictionary_encode(),
        r"column x \(key tag\): text, but numbers in",
    ),
    (
        "tags as numbers and as text",
        "x",
        {"context": {"tags": "x"}},
        every(lambda i: [i]),
        every(lambda i: [str(i)]),
        r"column x \(tags\): text, but numbers in",
    ),
    (
        "users of -1 and of 2^64 - 1",
        "user",
        {},
        every(lambda i: -1),
        every(lambda i: 2**64 - 1, pa.uint64()),
        r"integers from 2\^63 on, but integers below 0 in",
    ),
    (
        "users as integers and as fractions",
        "user",
        {},
        every(lambda i: i),
        every(lambda i: i + 0.5 * (i == 3)),
        r"column user \(user_id\), row 4: 3.5; should be an integer or a string: a whole number",
    ),
    (
        "users of 2^63 and of -1.0",
        "user",
        {},
        every(lambda i: 2**63, pa.uint64()),
        every(lambda i: -1.0),
        r"integers below 0, but integers from 2\^63 on in",
    ),
    (
        "a feature as a list and as a number",
        "x",
        {"context": {"x": "x"}},
        every(lambda i: [i]),
        every(lambda i: i),
        r"column x \(x\): Int64, but List\(Int64\) in .*a.parquet",
    ),
    (
        "a feature as floats and as integers that 32 bits change",
        "x",
        {"context": {"x": "x"}},
        every(lambda i: 0.5),
        every(lambda i: 2**24 + (i == 3)),
        r"column x \(x\), row 4: 16777217 would become 16777216: other files hold floats",
    ),
]


@pytest.mark.parametrize(
    ("column", "more", "one", "other", "message"),
    [pytest.param(*rest, marks=pytest.mark.tried("logs", given, "refused")) for given, *rest in CLASHES],
)
def test_files_that_do_not_go_together(
    column: str, more: dict[str, Any], one: Any, other: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"b.parquet: .*{message}") as error:
        load(tmp_path, table(**{column: one}), table(**{column: other}), of=spec(**more))
    assert "\n" not in str(error.value)


FITS: list[tuple[str, Any, Any, pl.DataType, list[Any]]] = [
    ("numbers and nulls without a type", every(lambda i: i), pa.nulls(ROWS), pl.Int64(), [0, None]),
    ("nulls without a type and text", pa.nulls(ROWS), every(lambda i: "x"), pl.Int64(), [None, string_id("x")]),
    ("integers and NaN throughout", every(lambda i: i), every(lambda i: float("nan")), pl.Int64(), [0, None]),
    ("integers and fractions", every(lambda i: 3), every(lambda i: 0.5), pl.Float32(), [3.0, 0.5]),
    ("lists and nulls without a type", every(lambda i: [i]), pa.nulls(ROWS), pl.List(pl.Int64), [[0], []]),
    (
        "text and null in another type",
        every(lambda i: "x"),
        pa.nulls(ROWS, pa.int8()),
        pl.Int64(),
        [string_id("x"), None],
    ),
]


@pytest.mark.parametrize(
    ("one", "other", "kind", "values"),
    [pytest.param(*rest, marks=pytest.mark.tried("logs", f"a column of {g}", "one column")) for g, *rest in FITS],
)
def test_types_that_go_together(one: Any, other: Any, kind: pl.DataType, values: list[Any], tmp_path: Path) -> None:
    later = pa.array([t + ROWS * DAY_MS for t in TIMES])
    events = load(tmp_path, table(x=one), table(x=other, time=later), of=spec(context={"x": "x"}))
    assert events.frame["x"].dtype == kind
    assert events.frame["x"].gather([0, ROWS]).to_list() == values


@pytest.mark.tried("logs", "a column of nulls without a type that an expression reads", "as in the other files")
@pytest.mark.parametrize("first", ["text", "null"])
def test_expressions_over_a_column_without_a_type(first: str, tmp_path: Path) -> None:
    text, null = every(lambda i: "a,b"), pa.nulls(ROWS)
    later = pa.array([t + ROWS * DAY_MS for t in TIMES])
    tags: Column = pl.col("x").str.split(",")
    parts = [table(x=text), table(x=null, time=later)]
    events = load(tmp_path, *(parts if first == "text" else parts[::-1]), of=spec(context={"tags": tags}))
    assert events.frame["tags"].gather([0, ROWS]).to_list() == [[string_id("a"), string_id("b")], []]


@pytest.mark.tried("logs", "a key that pandas wrote as NaN throughout in one file", "unknown there")
def test_a_key_of_nan_is_unknown(tmp_path: Path) -> None:
    later = pa.array([t + ROWS * DAY_MS for t in TIMES])
    nan = table(x=every(lambda i: float("nan")), time=later)
    events = load(tmp_path, table(x=every(lambda i: i % 3)), nan, of=spec(keys={"tag": "x"}))
    assert events.codes["tag"].tolist() == [i % 3 for i in range(ROWS)] + [-1] * ROWS


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
    of = spec(user_table="users.parquet", user_table_id="id", user_features={"age": "age"}, keys={"tag": "x"})
    for name, content in zip("ab", tables, strict=True):
        pq.write_table(content, tmp_path / "log" / f"{name}.parquet")
    events = load_events(open_log(tmp_path / "log", replace(of, context={"old": pl.col("user_age") + 1})))
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
    own = spec(**(more if with_table else {}))
    opened = open_log(path.with_name("a.parquet") if not with_table else tmp_path / "log", own)
    content = prepare(
        opened,
        tmp_path / "out",
        lambda e: split_by_time(e.time, e.day, None, 1),
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


@pytest.mark.tried("logs", "a CSV table with a feature that is empty throughout", "null, also in expressions over it")
def test_a_csv_column_without_a_value_is_null(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "users.csv").write_text("id,age\n1,\n2,\n")
    own = spec(user_table="users.csv", user_table_id="id", user_features={"age": "age"})
    pq.write_table(table(), tmp_path / "log" / "a.parquet")
    old = replace(own, context={"old": pl.col("user_age") > 25})
    assert load_events(open_log(tmp_path / "log", old)).frame["old"].to_list() == [None] * ROWS


TABLES = [
    (
        "a user table of text beside a log of numbers",
        {"id": ["1", "2"]},
        r"user \(user_id\): Int64, but String in its table",
    ),
    (
        "a user table whose ids are fractions",
        {"id": [1.0, 2.5]},
        r"users.parquet: column id, row 2: 2.5; should be an integer or a string",
    ),
    (
        "a user table with an infinite feature",
        {"age": [1.0, float("inf")]},
        r"users.parquet: column age \(user_age\), row 2: inf",
    ),
    (
        "a user table of -1 beside a log of 2^64 - 1",
        {"id": [-1, 7]},
        r"2\^63 on, but integers below 0 in the table of user_id",
    ),
]


@pytest.mark.parametrize(
    ("change", "message"), [pytest.param(*rest, marks=pytest.mark.tried("logs", g, "refused")) for g, *rest in TABLES]
)
def test_tables_that_do_not_fit(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    kind = pa.uint64() if change.get("id") == [-1, 7] else pa.int64()
    log = table(user=every(lambda i: 2**64 - 1 if kind == pa.uint64() else i % 7, kind))
    (tmp_path / "log").mkdir()
    pq.write_table(log, tmp_path / "log" / "a.parquet")
    pl.DataFrame({"id": [1, 2], "age": [1.0, 2.0], **change}).write_parquet(tmp_path / "log" / "users.parquet")
    own = spec(user_table="users.parquet", user_table_id="id", user_features={"age": "age"})
    with pytest.raises(UserError, match=message):
        load_events(open_log(tmp_path / "log", own))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 1e39])
@pytest.mark.parametrize(
    ("more", "role"),
    [
        ({"context": {"x": "x"}}, r"column x \(x\), row 3: .* is no finite number of 32 bits"),
        ({"user_features": {"x": "x"}}, r"column x \(user_x\), row 3: .* is no finite number"),
        ({"truth": {"click": "x"}}, r"column x \(true_click\), row 3: "),
        ({"item_birth": "x"}, r"column x \(birth\), row 3: .* should be a number of ms"),
    ],
)
@pytest.mark.tried(
    "logs", "an infinite number, or one beyond 32 bits, in any column", "refused, with file, column and row"
)
def test_infinite_numbers_are_named(more: dict[str, Any], role: str, value: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"b.parquet: {role}"):
        x = every(lambda i: value if i == 2 else 0.5)
        load(tmp_path, table(x=every(lambda i: 0.5)), table(x=x), of=spec(**more))


@pytest.mark.tried(
    "logs", "times that are floats of 32 bits (which tell seconds apart to two minutes)", "refused, with the row"
)
def test_times_of_32_bits_are_refused(tmp_path: Path) -> None:
    seconds = pa.array([t / 1000 for t in TIMES], pa.float32())
    with pytest.raises(
        UserError, match=r"a.parquet: column time \(time\), row 1: 1\d{9}.0 may be rounded, as Float32 is coarse"
    ):
        load(tmp_path, table(time=seconds), of=spec(time_unit="s"))


@pytest.mark.parametrize("name", ["user_id", "time", "label_click"])
@pytest.mark.tried("logs", "a spec whose context is named as another column of the samples", "refused")
def test_a_context_of_a_taken_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^spec: two columns are named '{name}'; rename the feature or context$"):
        load(tmp_path, table(), of=spec(context={name: "user"}))
