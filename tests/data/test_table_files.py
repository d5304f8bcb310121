"""User and item tables of several files: what goes together, and what is refused."""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coldrank.data.errors import UserError
from coldrank.data.log import LogSpec
from coldrank.data.own_log import load_spec, open_log


def spec(**more: Any) -> LogSpec:
    return LogSpec(user="user", item="item", time="time", tasks={"click": "click"}, **more)


def table() -> pa.Table:
    """Two events."""
    return pa.table({"user": [1, 2], "item": [3, 3], "time": [10**12, 10**12 + 1], "click": [0, 1]})


PARTS: list[tuple[str, dict[str, Any], pl.DataType, list[Any]]] = [
    ("columns in another order", {"age": [7], "id": [3]}, pl.Int64(), [5, 6, 7]),
    ("integers of 32 bits", {"id": pa.array([3], pa.int32()), "age": pa.array([7], pa.int32())}, pl.Int64(), [5, 6, 7]),
    ("nulls without a type", {"id": [3], "age": pa.nulls(1)}, pl.Int64(), [5, 6, None]),
    ("nulls of text", {"id": [3], "age": pa.nulls(1, pa.string())}, pl.Int64(), [5, 6, None]),
    ("floats beside integers", {"id": [3.0], "age": [0.5]}, pl.Float64(), [5.0, 6.0, 0.5]),
    ("unsigned integers", {"id": [3], "age": pa.array([2**64 - 1], pa.uint64())}, pl.UInt64(), [5, 6, 2**64 - 1]),
    ("another column besides", {"id": [3], "age": [7], "more": ["x"]}, pl.Int64(), [5, 6, 7]),
    ("no rows, of another type", {"id": pa.nulls(0, pa.string()), "age": pa.nulls(0, pa.string())}, pl.Int64(), [5, 6]),
]


def parts_of_a_table(folder: Path, other: dict[str, Any], log_spec: LogSpec) -> pl.DataFrame:
    """The user table of two files, one and `other`."""
    (folder / "users").mkdir()
    pq.write_table(table(), folder / "log.parquet")
    pq.write_table(pa.table({"id": [1, 2], "age": [5, 6]}), folder / "users" / "one.parquet")
    pq.write_table(pa.table(other), folder / "users" / "two.parquet")
    users = open_log(folder, log_spec).users
    assert users is not None
    return users


@pytest.mark.parametrize(
    ("other", "kind", "ages"),
    [
        pytest.param(*r, marks=pytest.mark.tried("logs", f"a table of two files, one with {g}", "one table"))
        for g, *r in PARTS
    ],
)
def test_files_of_a_table_that_go_together(
    other: dict[str, Any], kind: pl.DataType, ages: list[Any], tmp_path: Path
) -> None:
    log_spec = spec(user_table="users", user_table_id="id", user_features={"age": "age", "mean": pl.col("age").count()})
    users = parts_of_a_table(tmp_path, other, log_spec)
    assert users["user_id"].to_list() == [1, 2, 3][: len(ages)] and users["user_age"].dtype == kind
    assert users["user_age"].to_list() == ages
    assert users["user_mean"].to_list() == [len(ages) - ages.count(None)] * len(ages)  # of the table, not of its files


OTHER_PARTS = [
    ("ids as text", {"id": ["3"], "age": [7]}, r"two.parquet: column id .*: text, but numbers in .*one.parquet"),
    ("a feature as text", {"id": [3], "age": ["7"]}, r"two.parquet: column age .*: text, but numbers in .*one.parquet"),
    (
        "a feature as lists",
        {"id": [3], "age": [[7]]},
        r"two.parquet: column age: List\(Int64\), but Int64 in .*one.parquet",
    ),
    ("no such column", {"id": [3]}, r"two.parquet: no column 'age'; it has id"),
    ("an id of the first", {"id": [2], "age": [7]}, r"users: user_id, row 2: 2 stands twice"),
]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        pytest.param(*r, marks=pytest.mark.tried("logs", f"a table of two files, one with {g}", "refused"))
        for g, *r in OTHER_PARTS
    ],
)
def test_files_of_a_table_that_do_not(other: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        parts_of_a_table(tmp_path, other, spec(user_table="users", user_table_id="id", user_features={"age": "age"}))


@pytest.mark.tried("logs", "a table's integers that its other file's floats would change", "refused, with the row")
def test_integers_of_a_table_that_floats_would_change(tmp_path: Path) -> None:
    log_spec = spec(user_table="users", user_table_id="id", user_features={"age": "age"})
    (tmp_path / "users").mkdir()
    pq.write_table(table(), tmp_path / "log.parquet")
    pq.write_table(pa.table({"id": [1], "age": [0.5]}), tmp_path / "users" / "one.parquet")
    pq.write_table(pa.table({"id": [2, 3], "age": [4, 2**24 + 1]}), tmp_path / "users" / "two.parquet")
    with pytest.raises(UserError, match=r"two.parquet: column age, row 2: 16777217 would become 16777216"):
        open_log(tmp_path, log_spec)


@pytest.mark.tried("logs", "a spec that ends itself with exit code 0", "refused, with the line")
def test_a_spec_that_exits_is_named(tmp_path: Path) -> None:
    (tmp_path / "spec.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(UserError, match=r"spec.py, line 2: 0$"):
        load_spec(tmp_path / "spec.py")
