"""Weighted ids of a log: maps, lists of pairs and two lists side by side, as two columns of samples."""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_logs import START, prepare_log, read_samples
from hourly_log import ROWS, every, spec, table

from coldrank.data.audit.report import audit
from coldrank.data.errors import UserError
from coldrank.data.ids import as_column, string_id
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, append, prepare
from coldrank.data.split import split_by_time
from coldrank.data.weighted import split


def pairs(i: int) -> list[tuple[str, float]] | None:
    return None if i % 5 == 0 else [(f"t{k % 7}", (k % 9) / 4 - 1) for k in range(i, i + i % 3)]


STRUCT = pa.struct([("tag", pa.string()), ("score", pa.float64())])
KINDS: dict[str, tuple[Any, dict[str, pa.Array]]] = {
    "a map": ("tags", {"tags": every(pairs, pa.map_(pa.string(), pa.float32()))}),
    "a list of structs": (
        "tags",
        {"tags": every(lambda i: pairs(i) and [{"tag": t, "score": s} for t, s in pairs(i) or ()], pa.list_(STRUCT))},
    ),
    "two lists": (
        pl.struct("tags", "scores"),
        {
            "tags": every(lambda i: [t for t, _ in pairs(i) or ()], pa.list_(pa.string())),
            "scores": every(lambda i: [s for _, s in pairs(i) or ()], pa.list_(pa.float64())),
        },
    ),
}


@pytest.mark.parametrize(
    "how", [pytest.param(h, marks=pytest.mark.tried("logs", f"weighted ids as {h}", "ids and weights")) for h in KINDS]
)
def test_weighted_ids_are_two_columns(how: str, tmp_path: Path):
    source, columns = KINDS[how]
    (tmp_path / "log").mkdir()
    pq.write_table(table(**columns), tmp_path / "log" / "a.parquet")
    content = prepare_log(open_log(tmp_path / "log", spec(context={"tags": source})), tmp_path)
    types = {c["name"]: (c["type"], c["meaning"]) for c in content["columns"]}
    assert types["tags"][0] == "list<int64>"
    assert types["tags_weights"] == ("list<float32>", "weights of tags, one for each")
    samples = read_samples(tmp_path).sort("time")
    for i, row in enumerate(samples.iter_rows(named=True)):
        assert row["tags"] == [string_id(t) for t, _ in pairs(i) or ()]
        assert row["tags_weights"] == [s for _, s in pairs(i) or ()]
    assert not [f for f in audit(tmp_path / "out").findings if f.severity == "error"]


def test_weighted_ids_of_a_table(tmp_path: Path):
    (tmp_path / "log").mkdir()
    pq.write_table(table(), tmp_path / "log" / "a.parquet")
    tags = pa.array([[(4, 0.5), (9, 2.0)], None, []], pa.map_(pa.int64(), pa.float32()))
    pq.write_table(pa.table({"id": [0, 1, 2], "tags": tags}), tmp_path / "log" / "items.parquet")
    of_table = {"item_table": "items.parquet", "item_table_id": "id", "item_features": {"tags": "tags"}}
    prepare_log(open_log(tmp_path / "log", spec(**of_table)), tmp_path)
    rows = read_samples(tmp_path).select("item_id", "item_tags", "item_tags_weights").unique().rows()
    assert {i: (t, w) for i, t, w in rows} == {i: ([4, 9], [0.5, 2.0]) if i == 0 else ([], []) for i in range(11)}


def test_days_are_added(tmp_path: Path):
    """As prepared at once: the types of what was prepared before are those of what comes."""
    log_spec = spec(context={"tags": "tags"})
    options = PrepareOptions(history=2, arguments={"split": "time"})
    by_time = lambda known: split_by_time(known.days, None, 1)
    for name, first in (("a", 0), ("b", 1)):
        later = pa.array([START + (ROWS * first + i) * 3_600_000 for i in range(ROWS)])
        (tmp_path / "log").mkdir(exist_ok=True)
        _, columns = KINDS["a map"]
        pq.write_table(table(**columns, time=later), tmp_path / "log" / f"{name}.parquet")
        log = open_log(tmp_path / "log", log_spec)
        if name == "a":
            prepare(log, tmp_path / "out", by_time, options)
        else:
            assert append(log, tmp_path / "out", by_time, options) is not None
    samples = read_samples(tmp_path).sort("time")
    assert len(samples) == 2 * ROWS
    for i, row in enumerate(samples.iter_rows(named=True)):
        assert row["tags"] == [string_id(t) for t, _ in pairs(i % ROWS) or ()]
        assert row["tags_weights"] == [s for _, s in pairs(i % ROWS) or ()]


PAIR = pl.List(pl.Struct({"a": pl.Int64, "b": pl.Float64}))
FAULTS: list[tuple[str, pl.Series, str]] = [
    (
        "a weight that is NaN",
        pl.Series([[{"a": 1, "b": 1.0}], [{"a": 1, "b": float("nan")}]], dtype=PAIR),
        "row 2: a w",
    ),
    (
        "a weight that is null",
        pl.Series([[], [{"a": 1, "b": None}]], dtype=PAIR),
        "row 2: a weight is null, NaN or not",
    ),
    ("a weight beyond 32 bits", pl.Series([[{"a": 1, "b": 1e39}]], dtype=PAIR), "row 1: a weight is null, NaN or not"),
    ("an id that is null", pl.Series([[{"a": None, "b": 1.0}]], dtype=PAIR), "row 1: an id is null beside its weight"),
    (
        "two lists of two lengths",
        pl.DataFrame({"a": [[1], [1, 2]], "b": [[0.5], [0.5]]}).to_struct("x"),
        "row 2: 2 ids, but 1 weights; should be equally many",
    ),
    (
        "weights that are text",
        pl.Series([[{"a": 1, "b": "x"}]], dtype=pl.List(pl.Struct({"a": pl.Int64, "b": pl.String}))),
        "weights of type String; should be numbers",
    ),
    ("triples", pl.Series([[{"a": 1, "b": 1, "c": 1}]]), "should be pairs of an id and its weight"),
]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(*r, marks=pytest.mark.tried("logs", f"weighted ids: {g}", "refused, with the row"))
        for g, *r in FAULTS
    ],
)
def test_weighted_ids_that_cannot_be(values: pl.Series, message: str):
    with pytest.raises(UserError, match=f"^there[,:].*{message}"):
        as_column(values, "there")


def test_all_that_is_unknown_is_empty():
    ids, weights = split(as_column(pl.Series("x", [None, []], PAIR), "there"))
    assert ids.to_list() == weights.to_list() == [[], []] and weights.name == "x_weights"
    assert as_column(pl.Series("x", [], PAIR), "there").len() == 0
