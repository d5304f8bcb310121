"""A label column of every type that a log may have."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_logs import DAY_MS, START

from coldrank.data.errors import UserError
from coldrank.data.log import LogSpec
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, prepare
from coldrank.data.split import split_by_time
from coldrank.metrics.columns import label_column

SPEC = LogSpec(user="user", item="item", time="time", tasks={"click": "click"})
NAN = float("nan")
LABELS: dict[str, pa.Array] = {
    "booleans": pa.array([False, True, None]),
    "signed": pa.array([0, 1, None], pa.int8()),
    "long": pa.array([0, 1, None], pa.int64()),
    "unsigned": pa.array([0, 1, None], pa.uint64()),
    "floats with null": pa.array([0.0, 1.0, None], pa.float32()),
    "floats with NaN": pa.array([-0.0, 1.0, NAN], pa.float64()),
    "half floats": pa.array([0.0, 1.0, NAN]).cast(pa.float16()),
    "decimals": pa.array([Decimal("0.0"), Decimal("1.0"), None], pa.decimal128(5, 1)),
    "dictionary": pa.array([0, 1, None]).dictionary_encode(),
}


def labels_of(column: pa.Array, folder: Path) -> list[Any]:
    """The labels of a log of six events, two a day, whose label column repeats the three values."""
    table = pa.table(
        {
            "user": [1, 2] * 3,
            "item": list(range(6)),
            "time": [START + i // 2 * DAY_MS + i for i in range(6)],
            "click": pa.concat_arrays([column, column]),
        }
    )
    (folder / "log").mkdir()
    pq.write_table(table, folder / "log" / "a.parquet")
    options = PrepareOptions(history=2, arguments={})
    content = prepare(
        open_log(folder / "log", SPEC), folder / "out", lambda known: split_by_time(known.days, None, 0), options
    )
    parts = [pl.read_parquet(folder / "out" / p["path"], glob=False) for p in content["partitions"]]
    frame = pl.concat(parts).sort("time")
    assert frame["label_click"].dtype == pl.Int8
    return frame["label_click"].to_list()


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(k, marks=pytest.mark.tried("logs", f"labels: {k}", "0, 1; NaN and null are unknown"))
        for k in LABELS
    ],
)
def test_labels_of_every_type_of_number(kind: str, tmp_path: Path) -> None:
    assert labels_of(LABELS[kind], tmp_path) == [0, 1, None, 0, 1, None]


@pytest.mark.tried("logs", "a label column that is empty throughout", "unknown in every row")
def test_a_label_column_without_a_type_is_unknown(tmp_path: Path) -> None:
    assert labels_of(pa.nulls(3), tmp_path) == [None] * 6


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["0", "1", None]), r"a.parquet: column click \(label_click\): type String; should be 0, 1 or empty"),
        (pa.array([0.0, 0.5, NAN]), r"a.parquet: column click \(label_click\), row 2: 0.5 is neither 0, 1 nor empty"),
        (pa.array([0, 1, 2], pa.uint8()), r"row 3: 2 is neither 0, 1 nor empty"),
        (pa.array([0.0, float("inf"), 1.0]), r"row 2: inf is neither 0, 1 nor empty"),
        (pa.array([Decimal("0.5"), None, None]), r"row 1: Decimal\('0.5'\) is neither 0, 1 nor empty"),
    ],
)
@pytest.mark.tried("logs", "labels that are text, or neither 0, 1 nor empty", "refused, with file, column and row")
def test_other_labels_are_named(column: pa.Array, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        labels_of(column, tmp_path)


NUMBERS: dict[str, tuple[pa.Array, list[float | None]]] = {
    "floats": (pa.array([0.5, -3.25, 1e6], pa.float64()), [0.5, -3.25, 1e6]),
    "floats with NaN": (pa.array([0.5, NAN, None], pa.float32()), [0.5, None, None]),
    "integers": (pa.array([7, 0, None], pa.int64()), [7, 0, None]),
    "booleans": (pa.array([True, False, None]), [1, 0, None]),
    "decimals": (pa.array([Decimal("1.5"), Decimal("2.0"), None], pa.decimal128(5, 1)), [1.5, 2.0, None]),
    "nothing": (pa.nulls(3), [None, None, None]),
}


def prepared(column: pa.Array, folder: Path, **fields: Any) -> tuple[pl.Series, dict[str, Any]]:
    """Label `stay` of a log of six events, whose column repeats three values, and the manifest."""
    table = pa.table(
        {
            "user": [1, 2] * 3,
            "item": list(range(6)),
            "time": [START + i // 2 * DAY_MS + i for i in range(6)],
            "stay": pa.concat_arrays([column, column]),
        }
    )
    (folder / "log").mkdir()
    pq.write_table(table, folder / "log" / "a.parquet")
    spec = LogSpec(user="user", item="item", time="time", **fields)
    options = PrepareOptions(history=2, arguments={})
    split = lambda known: split_by_time(known.days, None, 0)
    content = prepare(open_log(folder / "log", spec), folder / "out", split, options)
    parts = [pl.read_parquet(folder / "out" / p["path"], glob=False) for p in content["partitions"]]
    return pl.concat(parts).sort("time")["label_stay"], content


@pytest.mark.tried("logs", "a label that is a number, of every type of number", "float32; NaN and null are unknown")
@pytest.mark.parametrize("kind", NUMBERS)
def test_a_label_may_be_a_number(kind: str, tmp_path: Path) -> None:
    column, values = NUMBERS[kind]
    labels, content = prepared(column, tmp_path, numbers={"stay": "stay"})
    assert labels.dtype == pl.Float32 and labels.to_list() == values * 2
    assert content["tasks"] == ["stay"] and content["labels"] == {"stay": "number"} and content["signals"] == []
    known = [v for v in values * 2 if v is not None][: content["label_rates"]["train"]["stay"]["known"]]
    mean = content["label_rates"]["train"]["stay"]["mean"]
    assert mean == (pytest.approx(sum(known) / len(known)) if known else None)
    (column_entry,) = [c for c in content["columns"] if c["name"] == "label_stay"]
    assert column_entry["meaning"] == "outcome: a number or null (unknown)"
    assert not [c for c in content["columns"] if c["name"] != "label_stay" and "stay" in c["name"]], "an input"


@pytest.mark.tried("logs", "a label of levels", "whole numbers; NaN and null are unknown")
def test_a_label_may_be_a_level(tmp_path: Path) -> None:
    labels, content = prepared(pa.array([5.0, NAN, 1.0]), tmp_path, levels={"stay": "stay"})
    assert labels.dtype == pl.Int64 and labels.to_list() == [5, None, 1] * 2
    assert content["labels"] == {"stay": "level"}


@pytest.mark.parametrize(
    ("column", "field", "message"),
    [
        (
            pa.array(["1", "2", None]),
            "numbers",
            r"a.parquet: column stay \(label_stay\): type String; should be a number or empty \(unknown\)",
        ),
        (pa.array([0.5, float("inf"), 1.0]), "numbers", r"column stay \(label_stay\), row 2: inf is not finite in"),
        (pa.array([0.5, 1e300, 1.0]), "numbers", r"row 2: 1e\+300 is not finite in float32"),
        (
            pa.array([1.0, 2.0, 2.5]),
            "levels",
            r"column stay \(label_stay\), row 3: 2.5 is no whole number, or too large",
        ),
        (pa.array([1, 2**24 + 1, 2]), "levels", "row 2: 16777217 is no whole number, or too large"),
    ],
)
@pytest.mark.tried("logs", "a label of numbers that is text or infinite, a level between two", "file, column and row")
def test_numbers_and_levels_that_cannot_be_are_named(
    column: pa.Array, field: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        prepared(column, tmp_path, **{field: {"stay": "stay"}})


@pytest.mark.tried("logs", "a spec with a label of two kinds", "refused, both fields named")
def test_a_label_is_of_one_kind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="spec: levels: 'stay' is one of numbers, too; a label is of one kind"):
        prepared(pa.array([1.0, 2.0, 3.0]), tmp_path, numbers={"stay": "stay"}, levels={"stay": "stay"})


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_predictions(kind: str) -> None:
    frame = pl.from_arrow(pa.table({"label_click": LABELS[kind]}))
    assert isinstance(frame, pl.DataFrame)
    assert label_column(frame, "click").tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("column", "message"), [(["0", "1.0"], "label_click is String; expected 0, 1"), ([0.0, 0.5], "is 0.5 at row 1")]
)
def test_other_labels_of_predictions_are_named(column: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        label_column(pl.DataFrame({"label_click": column}), "click")


def test_a_weight_is_written_and_is_no_feature(tmp_path: Path) -> None:
    weights = {"numbers": {"stay": "stay"}, "weight": "stay"}
    _, content = prepared(pa.array([0.5, 2.0, 0.0]), tmp_path, **weights)
    (entry,) = [c for c in content["columns"] if c["name"] == "weight"]
    assert (entry["type"], entry["nullable"]) == ("float32", False) and "never a feature" in entry["meaning"]
    parts = [pl.read_parquet(tmp_path / "out" / p["path"], glob=False) for p in content["partitions"]]
    assert pl.concat(parts).sort("time")["weight"].to_list() == [0.5, 2.0, 0.0] * 2
    assert content["weight"] == "weight"


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1.0, -0.5, 1.0]), r"a.parquet: column stay \(weight\), row 2: -0.5 is below 0, as no weight may be"),
        (pa.array([1.0, None, 1.0]), r"column stay \(weight\), row 2: None should not be empty"),
        (pa.array([1.0, 1.0, NAN]), r"column stay \(weight\), row 3: nan should not be empty"),
        (pa.array([float("inf"), 1.0, 1.0]), r"column stay \(weight\), row 1: inf is not finite in float32"),
    ],
)
@pytest.mark.tried("logs", "a weight below 0, empty or infinite", "refused, with file, column and row")
def test_weights_that_cannot_be_are_named(column: pa.Array, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        prepared(column, tmp_path, levels={"stay": pl.lit(1)}, weight="stay")
