"""Files and tables of one log that store the same columns in different ways."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_logs import DAY_MS
from hourly_log import ROWS, TIMES, every, load, spec, table

from coldrank.data.errors import UserError
from coldrank.data.ids import string_id
from coldrank.data.log import Column, check_spec
from coldrank.data.own_log import open_log
from coldrank.data.spool import load_events

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
    assert len(events.time) == ROWS


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
    [pytest.param(*rest, marks=pytest.mark.tried("logs", case, "refused")) for case, *rest in CLASHES],
)
def test_files_that_do_not_go_together(
    column: str, more: dict[str, Any], one: Any, other: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"b.parquet: .*{message}") as error:
        load(tmp_path, table(**{column: one}), table(**{column: other}), log_spec=spec(**more))
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
    events = load(tmp_path, table(x=one), table(x=other, time=later), log_spec=spec(context={"x": "x"}))
    assert events.frame["x"].dtype == kind
    assert events.frame["x"].gather([0, ROWS]).to_list() == values


@pytest.mark.tried("logs", "a column of nulls without a type that an expression reads", "as in the other files")
@pytest.mark.parametrize("first", ["text", "null"])
def test_expressions_over_a_column_without_a_type(first: str, tmp_path: Path) -> None:
    text, null = every(lambda i: "a,b"), pa.nulls(ROWS)
    later = pa.array([t + ROWS * DAY_MS for t in TIMES])
    tags: Column = pl.col("x").str.split(",")
    parts = [table(x=text), table(x=null, time=later)]
    events = load(tmp_path, *(parts if first == "text" else parts[::-1]), log_spec=spec(context={"tags": tags}))
    assert events.frame["tags"].gather([0, ROWS]).to_list() == [[string_id("a"), string_id("b")], []]


@pytest.mark.tried("logs", "a key that pandas wrote as NaN throughout in one file", "unknown there")
def test_a_key_of_nan_is_unknown(tmp_path: Path) -> None:
    later = pa.array([t + ROWS * DAY_MS for t in TIMES])
    nan = table(x=every(lambda i: float("nan")), time=later)
    events = load(tmp_path, table(x=every(lambda i: i % 3)), nan, log_spec=spec(keys={"tag": "x"}))
    assert events.codes["tag"].tolist() == [i % 3 for i in range(ROWS)] + [-1] * ROWS


@pytest.mark.tried("logs", "a CSV table with a feature that is empty throughout", "null, also in expressions over it")
def test_a_csv_column_without_a_value_is_null(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "users.csv").write_text("id,age\n1,\n2,\n")
    with_table = spec(user_table="users.csv", user_table_id="id", user_features={"age": "age"})
    pq.write_table(table(), tmp_path / "log" / "a.parquet")
    old = replace(with_table, context={"old": pl.col("user_age") > 25})
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
    with_table = spec(user_table="users.parquet", user_table_id="id", user_features={"age": "age"})
    with pytest.raises(UserError, match=message):
        load_events(open_log(tmp_path / "log", with_table))


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
        load(tmp_path, table(x=every(lambda i: 0.5)), table(x=x), log_spec=spec(**more))


@pytest.mark.tried(
    "logs", "times that are floats of 32 bits (which tell seconds apart to two minutes)", "refused, with the row"
)
def test_times_of_32_bits_are_refused(tmp_path: Path) -> None:
    seconds = pa.array([t / 1000 for t in TIMES], pa.float32())
    with pytest.raises(
        UserError, match=r"a.parquet: column time \(time\), row 1: 1\d{9}.0 may be rounded, as Float32 is coarse"
    ):
        load(tmp_path, table(time=seconds), log_spec=spec(time_unit="s"))


@pytest.mark.parametrize("name", ["user_id", "time", "label_click"])
@pytest.mark.tried("logs", "a spec whose context is named as another column of the samples", "refused")
def test_a_context_of_a_taken_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^spec: two columns are named '{name}'; rename the feature or context$"):
        load(tmp_path, table(), log_spec=spec(context={name: "user"}))


def test_a_context_named_sampled_is_refused_with_and_without_negatives() -> None:
    with pytest.raises(UserError, match="^spec: context: 'sampled' is taken by negatives; choose another name$"):
        check_spec(spec(context={"sampled": "user"}))
