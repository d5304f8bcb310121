"""Values of each kind of column in their final type, and the row that cannot be one."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from coldrank.data.columns import ColumnPlan, convert
from coldrank.data.errors import UserError

T = 1_650_000_000_123  # ms
FILE = Path("log.parquet")


@pytest.mark.parametrize(
    ("kind", "unit", "values", "wanted"),
    [
        ("time", "s", [1_650_000_000], [1_650_000_000_000]),
        ("time", "ms", [T], [T]),
        ("time", "us", [T * 1000 + 999], [T]),
        ("time", "ns", [T * 1_000_000 + 999_999], [T]),
        ("time", "s", [1_650_000_000.1234, 1_650_000_000.0006], [1_650_000_000_123, 1_650_000_000_001]),
        ("time", "ms", [float(T) + 0.6], [T + 1]),
        ("time", "us", [T * 1000 + 400.0], [T]),
        ("time", "ms", [datetime(2022, 4, 15, 5, 20, 0, 123_999, tzinfo=UTC)], [1_650_000_000_123]),
        ("time", "ms", [date(1970, 1, 3)], [2 * 86_400_000]),
        ("time", "ms", [0, 4_102_444_800_000], [0, 4_102_444_800_000]),
        ("birth", "s", [-5, None], [-5000, None]),
        ("time", "s", pl.Series([2.0**24, 1.5], dtype=pl.Float32), [2**24 * 1000, 1500]),
        ("birth", "ms", [float("nan"), 7.4, None], [None, 7, None]),
        ("day", "ms", [date(1970, 1, 11), None], [10, None]),
        ("day", "ms", pl.Series([None], dtype=pl.Null), [None]),
        ("flag", "ms", [True, False, None], [1, 0, None]),
        ("flag", "ms", [1.0, 0.0, float("nan"), None], [1, 0, None, None]),
        ("flag", "ms", pl.Series([None, None], dtype=pl.Null), [None, None]),
        ("probability", "ms", [0.0, 0.25, 1.0, None, float("nan")], [0.0, 0.25, 1.0, None, None]),
        ("probability", "ms", [1, 0], [1.0, 0.0]),
        ("id", "ms", [5, -(2**63)], [5, -(2**63)]),
        ("code", "ms", [5, None], [5, None]),
        ("code", "ms", [float("nan"), None], [None, None]),
        ("code", "ms", [3.0, float("nan"), None, -0.0], [3, None, None, 0]),
        ("id", "ms", [2.0**53, -(2.0**53)], [2**53, -(2**53)]),
        ("id", "ms", pl.Series([2.0**24], dtype=pl.Float32), [2**24]),
        ("id", "ms", [Decimal("7.00"), Decimal(2**63 - 1), Decimal(-(2**63))], [7, 2**63 - 1, -(2**63)]),
        ("feature", "ms", [0.5, None], [0.5, None]),
        ("feature", "ms", [True], [1]),
    ],
)
def test_values(kind: Any, unit: Any, values: Any, wanted: list[Any]) -> None:
    converted = convert(ColumnPlan("x", kind, "x", unit), pl.Series("x", values), FILE)
    types = {"flag": pl.Int8, "probability": pl.Float32, "day": pl.Int32, "feature": converted.dtype}
    assert converted.dtype == types.get(kind, pl.Int64) and converted.to_list() == wanted


@pytest.mark.parametrize(
    ("kind", "unit", "values", "message"),
    [
        ("time", "ms", [T, None], "row 2: None should not be empty"),
        ("time", "ms", [T, -1], "row 2: -1 is outside 1970..2100; is the time unit really ms"),
        ("time", "s", [4_102_444_801], "row 1: 4102444801 is outside 1970..2100; is the time unit really s"),
        ("time", "ms", [float("nan")], "row 1: nan should be a number of ms since 1970"),
        ("time", "ms", [2.0**70], "row 1: .* should be a number of ms since 1970"),
        (
            "time",
            "s",
            pl.Series([2.0**24, 1.65e9], dtype=pl.Float32),
            "row 2: 1650000000.0 may be rounded, as Float32 is coarse",
        ),
        ("birth", "ms", pl.Series([None, 1.65e12], dtype=pl.Float32), "row 2: .* may be rounded, as Float32 is coarse"),
        ("time", "ms", pl.Series([float("inf")], dtype=pl.Float32), "row 1: inf should be a number of ms since 1970"),
        ("time", "us", ["now"], "row 1: 'now' should be a time like 2022-05-04T12:30:00Z"),
        ("birth", "ms", ["x"], "row 1: 'x' should be a time like 2022-05-04T12:30:00Z"),
        ("time", "ms", [True], "type Boolean; should be a datetime, text or a number of ms"),
        ("day", "ms", ["4.5.2022"], "row 1: '4.5.2022' should be a day like 2022-05-04"),
        ("day", "ms", [3], "type Int64; should be a date"),
        ("flag", "ms", [0, 1, None, 2], "row 4: 2 is neither 0, 1 nor empty"),
        ("flag", "ms", [-1], "row 1: -1 is neither 0, 1 nor empty"),
        ("flag", "ms", ["yes"], r"type String; should be 0, 1 or empty \(unknown\)"),
        ("id", "ms", [1, None], "row 2: None should not be empty$"),
        ("id", "ms", [1.0, 1.5], r"row 2: 1.5; should be an integer or a string: a whole number, .* at most 2\^53"),
        ("id", "ms", [2.0**53 + 2], r"row 1: 9007199254740994.0; should be an integer or a string"),
        (
            "id",
            "ms",
            pl.Series([2.0**24, 2.0**24 + 2], dtype=pl.Float32),
            r"row 2: 16777218.0; .* in Float32 at most 2\^24",
        ),
        ("id", "ms", [1.0, float("nan")], "row 2: nan should not be empty"),
        ("code", "ms", [float("inf")], "row 1: inf; should be an integer or a string: a whole number"),
        ("code", "ms", [Decimal("7.50")], "row 1: 7.50; should be an integer or a string: a whole number"),
        ("code", "ms", [Decimal(2**63)], "row 1: 9223372036854775808; should be an integer or a string"),
        ("id", "ms", [[1]], r"type List\(Int64\); should be an integer or a string$"),
        ("probability", "ms", [0.5, 1.001], "row 2: 1.001 should be a probability, 0 to 1"),
        ("probability", "ms", [-0.001], "row 1: -0.001 should be a probability"),
    ],
)
def test_other_values_are_named(kind: Any, unit: Any, values: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"^log.parquet: column y \(x\)(: |, ){message}"):
        convert(ColumnPlan("x", kind, "y", unit), pl.Series("y", values), FILE)


def test_errors_name_the_columns_of_an_expression() -> None:
    plan = ColumnPlan("label:click", "flag", pl.col("a") + pl.col("b") * pl.col("a"))
    assert plan.inputs() == ["a", "b"] and plan.where(FILE) == "log.parquet: column a and b (label click)"
    assert ColumnPlan("one", "flag", pl.lit(1)).where(FILE) == "log.parquet: column one (one)"
