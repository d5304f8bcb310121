"""Lists of floats as training reads them: refused with file and row, fitted to the days trained on, and checked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import kinds
import numpy as np
import polars as pl
import pytest

from coldrank.data.audit.report import audit
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader
from coldrank.models.encode import FeatureEncoder
from coldrank.models.features import Input
from coldrank.train.checks import as_arm, validate

VECTOR = Input("x", "float", is_list=True, required=True, width=2)
IDS, LIKE = Input("ids", "int", is_list=True), Input("x", "float", is_list=True, like="ids")
FAULTS: list[tuple[str, Any, list[Input], str]] = [
    ("a vector of another length", [[1.0, 2.0], [], [1.0]], [VECTOR], "row 3: a vector of 1 numbers; must have 2"),
    ("a vector with null", [[1.0, 2.0], [None, 1.0]], [VECTOR], "row 2: null; must be a number"),
    ("a vector with NaN", [[], [float("nan"), 1.0]], [VECTOR], "row 2: nan is not a finite number"),
    ("an infinite number of a history", [[], [float("inf"), 1.0]], [LIKE], "row 2: inf is not a finite number"),
    ("more numbers than ids", [[1.0], [], [1.0, 2.0]], [IDS, LIKE], "row 3: 2 values, but 1 of 'ids'; must be equally"),
]


@pytest.mark.parametrize(
    ("values", "inputs", "message"),
    [
        pytest.param(
            *rest, marks=pytest.mark.tried("data folders", f"{given}, in training", "refused with file and row")
        )
        for given, *rest in FAULTS
    ],
)
def test_lists_that_cannot_be_are_refused(values: Any, inputs: list[Input], message: str, tmp_path: Path):
    lists = pl.Series(values, dtype=pl.List(pl.Float32))
    ids = [[1] * min(len(v), 1) for v in values]
    path = tmp_path / "a.parquet"
    pl.DataFrame({"x": lists, "ids": pl.Series(ids, dtype=pl.List(pl.Int64))}).write_parquet(path, row_group_size=2)
    with pytest.raises(UserError, match=f"a.parquet: column 'x', {message}"):
        list(SampleReader([path], inputs, 64).epoch(0))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return kinds.prepared(tmp_path_factory.mktemp("kinds"))


def test_edges_and_moments_are_those_of_the_days_trained_on(data: DataFolder):
    encoder = FeatureEncoder(validate(kinds.base()))
    files = data.files(("train",))
    fit_encoder(encoder, files)
    read = pl.concat([pl.read_parquet(path) for path in files])
    hours = read["hist_clicks_hours"].explode().drop_nulls().cast(pl.Float64).to_numpy()
    edges = np.unique(np.quantile(hours, np.arange(1, 6) / 6))
    assert encoder.buckets["hours_bucket"].edges.tolist() == pytest.approx(edges.tolist())
    logs = np.log1p(hours)
    moments = encoder.of_floats["hours"].standardize.moments[0].tolist()
    assert moments == pytest.approx([logs.mean(), logs.std()])
    prices = np.log1p(read["price"].drop_nulls().to_numpy())
    assert encoder.numbers.moments[0].tolist() == pytest.approx([prices.mean(), prices.std()])


@pytest.mark.tried(
    "data folders", "`check` of vectors of another length than the arm reads", "an error with both lengths"
)
def test_check_finds_vectors_of_another_length(data: DataFolder):
    config = kinds.base()
    errors = lambda arm: [f for f in audit(data.path, as_arm(arm) if arm else None).findings if f.severity == "error"]
    assert not errors(None) and not errors(config)
    wide = tuple(replace(f, length=9) if f.name == "item_emb" else f for f in config.features)
    (found,) = errors(replace(config, features=wide))
    assert (found.where, found.what) == ("item_emb", "vectors of 4 numbers; the arm reads 9")


def test_check_finds_columns_of_a_named_history_that_differ_in_length(data: DataFolder, tmp_path: Path):
    copy = tmp_path / "copy"
    (copy / "samples").mkdir(parents=True)
    manifest = (data.path / "manifest.json").read_text()
    for path in data.files(("train", "valid", "test")):
        there = copy / path.relative_to(data.path)
        there.parent.mkdir(parents=True, exist_ok=True)
        frame = pl.read_parquet(path, hive_partitioning=False)
        frame.with_columns(pl.col("hist_clicks_hours").list.head(1)).write_parquet(there)
    (copy / "manifest.json").write_text(manifest)
    assert any("columns differ in length" in f.what for f in audit(copy).findings)
