"""Vectors of floats, of items and of events: as they are given, of one length, finite, and read by training."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_logs import START, prepare_log
from hourly_log import ROWS, every, load, spec, table

from coldrank.data.audit.report import audit
from coldrank.data.errors import UserError
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, append, prepare
from coldrank.data.read import SampleReader
from coldrank.data.split import split_by_time
from coldrank.data.vectors import vector_column
from coldrank.models.features import Input

WITH_X = spec(context={"x": "x"})
ITEMS = {"item_table": "items.parquet", "item_table_id": "id", "item_features": {"emb": "emb"}}


def vector(i: int) -> list[float] | None:
    return None if i % 5 == 0 else [i / 8, -i, 0.5]


def written(folder: Path, log: pa.Table, as_json: bool = False, name: str = "a") -> None:
    folder.mkdir(exist_ok=True)
    if as_json:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log.to_pylist()))
    else:
        pq.write_table(log, folder / f"{name}.parquet")


KINDS = {
    "lists of 64 bits": pa.list_(pa.float64()),
    "lists of 32 bits": pa.large_list(pa.float32()),
    "fixed-size lists": pa.list_(pa.float32(), 3),
    "JSON arrays": pa.list_(pa.float64()),
}


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(
            h, marks=pytest.mark.tried("logs", f"vectors as {h}, of events and of a table's items", "as given")
        )
        for h in KINDS
    ],
)
def test_vectors_go_into_the_samples_and_are_read(how: str, tmp_path: Path) -> None:
    written(tmp_path / "log", table(x=every(vector, KINDS[how])), how == "JSON arrays")
    known = pa.array([[k / 4, 1.0] for k in range(9)], pa.list_(pa.float64(), 2))
    pq.write_table(pa.table({"id": range(9), "emb": known}), tmp_path / "log" / "items.parquet")
    content = prepare_log(open_log(tmp_path / "log", replace(WITH_X, **ITEMS)), tmp_path)  # type: ignore[arg-type]
    columns = {c["name"]: c for c in content["columns"]}
    assert (columns["x"]["type"], columns["x"]["length"]) == ("list<float32>", 3)
    assert (columns["item_emb"]["type"], columns["item_emb"]["length"]) == ("list<float32>", 2)
    paths = [tmp_path / "out" / p["path"] for p in sorted(content["partitions"], key=lambda p: p["time_min"])]
    inputs = [
        Input("time", "int"),
        Input("item_id", "int"),
        Input("x", "float", True),
        Input("item_emb", "float", True),
    ]
    for batch in SampleReader(paths, inputs, 64, shuffle_rows=100, seed=1).epoch(0):
        number = (batch["time"] - START) // 3_600_000  # type: ignore[operator]
        for name, wanted in (("x", vector), ("item_emb", lambda i: [i % 11 / 4, 1.0] if i % 11 < 9 else None)):
            values, offsets = batch[name]
            rows = [values[a:b].tolist() for a, b in pairwise(offsets)]
            assert values.dtype == np.float32 and rows == [wanted(int(i)) or [] for i in number]
    assert not [f for f in audit(tmp_path / "out").findings if f.severity == "error"]


FAULTS: list[tuple[str, Any, str]] = [
    ("of another length", [[1.0, 2.0, 3.0], None, [0.5]], "row 3: a vector of 1 numbers, but of 3 in row 1"),
    ("with NaN", [[1.0], [float("nan")]], "row 2: a vector with a number that is null, NaN or not finite"),
    ("with null", [[1.0, 2.0], [], [None, 1.0]], "row 3: a vector with a number that is null"),
    ("with a number beyond 32 bits", [[1e39]], "row 1: a vector with a number"),
    ("with infinity", [None, [1.0, float("-inf")]], "row 2: a vector with a number"),
]


@pytest.mark.parametrize(
    ("values", "message"),
    [pytest.param(*r, marks=pytest.mark.tried("logs", f"vectors {g}", "refused, with the row")) for g, *r in FAULTS],
)
def test_vectors_that_cannot_be(values: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"^there, {message}"):
        vector_column(pl.Series("x", values, pl.List(pl.Float64)), "there")


def test_all_that_is_unknown_is_empty() -> None:
    assert vector_column(pl.Series("x", [None, []], pl.List(pl.Float64)), "there").to_list() == [[], []]
    assert vector_column(pl.Series("x", [], pl.Array(pl.Float32, 2)), "there").dtype == pl.List(pl.Float32)


@pytest.mark.tried(
    "logs", "vectors of two lengths in two files; a table's that is not finite", "refused, with file and row"
)
def test_files_of_two_lengths(tmp_path: Path) -> None:
    other = every(lambda i: None if i < 2 else [0.5], pa.list_(pa.float32()))
    with pytest.raises(
        UserError, match=r"b.parquet: column x \(x\), row 3: a vector of 1 numbers, but of 3 in .*a.parquet"
    ):
        load(tmp_path, table(x=every(vector)), table(x=other), log_spec=WITH_X)
    bad = pa.table({"id": [1, 2], "emb": [[0.5], [float("nan")]]})
    pq.write_table(bad, tmp_path / "log" / "items.parquet")
    with pytest.raises(UserError, match=r"items.parquet: column emb \(item_emb\), row 2: a vector with a number"):
        open_log(tmp_path / "log", spec(**ITEMS))


@pytest.mark.tried("logs", "--append of vectors of another length, in the log or in a table", "refused")
@pytest.mark.parametrize("where", ["log", "table"])
def test_days_of_another_length(where: str, tmp_path: Path) -> None:
    split = lambda known: split_by_time(known.days, None, 1)
    options = PrepareOptions(history=2, arguments={"split": "time"})

    def days(name: str, first: int, x: list[float], emb: list[float]) -> Any:
        later = pa.array([START + (ROWS * 3_600_000 * first) + i * 3_600_000 for i in range(ROWS)])
        written(tmp_path / "log", table(x=every(lambda i: x), time=later), name=name)
        pq.write_table(pa.table({"id": [1, 2], "emb": [emb, emb]}), tmp_path / "log" / "items.parquet")
        return open_log(tmp_path / "log", replace(WITH_X, **ITEMS))  # type: ignore[arg-type]

    prepare(days("a", 0, [1.0, 2.0], [0.5]), tmp_path / "out", split, options)
    assert append(days("b", 1, [1.0, 2.5], [0.5]), tmp_path / "out", split, options) is not None
    log = days("c", 2, [1.0] if where == "log" else [1.0, 2.0], [0.5] if where == "log" else [0.5, 1.0])
    with pytest.raises(UserError, match=r"row 1: a vector of \d numbers, but of \d in what was prepared before"):
        append(log, tmp_path / "out", split, options)
