"""What is made of sampled negatives after `prepare`: nobody met them, and who evaluates can tell them apart."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from retrieving import two_tower
from samples import write_samples
from tiny import sample_base

from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.experiments.warm_up.protocol import Protocol, write_splits
from coldrank.metrics.retrieval import Met
from coldrank.models.features import Feature
from coldrank.train.checks import validate
from coldrank.train.trainer import train


def with_negatives(folder: Path) -> DataFolder:
    """Samples of which every third is a negative."""
    write_samples(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for part in manifest["partitions"]:
        frame = pl.read_parquet(folder / part["path"], hive_partitioning=False)
        sampled = (pl.int_range(pl.len()) % 3 == 2).cast(pl.Int8)
        label = pl.when(sampled == 1).then(0).otherwise("label_long_view").cast(pl.Int8)
        frame.with_columns(sampled=sampled, label_long_view=label).write_parquet(folder / part["path"])
    manifest["columns"].append({"name": "sampled", "type": "int8", "nullable": False, "meaning": ""})
    (folder / "manifest.json").write_text(json.dumps(manifest | {"negatives": {"column": "sampled"}}))
    return DataFolder.open(folder)


def test_predictions_tell_negatives_and_retrieval_leaves_them_out(tmp_path, ranks):
    data = with_negatives(tmp_path / "data")
    config = two_tower()
    config = replace(config, train=replace(config.train, steps=4), retrieval=replace(config.retrieval, batch=50))
    rows = train(config, data, tmp_path / "run", ranks, fresh=True, diff="")
    predictions = pl.read_parquet(tmp_path / "run" / "predictions-test.parquet")
    assert predictions.schema["sampled"] == pl.Int8 and predictions["sampled"].sum() == 66
    # In batches of 50 events, whose other users did not meet the item.
    events, met = predictions.filter(pl.col("sampled") == 0), Met(data.paths(data.manifest["partitions"]))
    counts = []
    for part in events.iter_slices(50):
        users = part["user_id"].unique().to_numpy()
        for row in part.filter(pl.col("label_long_view") == 1).iter_rows(named=True):
            others = users[~met.table(np.array([row["item_id"]]), users)[0]]
            counts.append(1 + int(part["user_id"].is_in(others.tolist()).sum()))
    found = {r["metric"]: (r["value"], r["n"]) for r in rows if r["cohort"] == "all"}
    assert found["candidates"] == (pytest.approx(np.mean(counts)), len(counts)) and found["recall@5"][1] == len(counts)


def test_who_met_what_is_told_by_events_alone(tmp_path):
    frame = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [5, 6, 5], "sampled": [0, 1, 0]})
    frame.write_parquet(tmp_path / "a.parquet")
    met = Met([tmp_path / "a.parquet"])
    assert met.items.tolist() == [5] and met.users.tolist() == [1, 2] and len(met.pairs) == 2


@pytest.mark.tried("configs and runs", "a feature that reads whether a sample is a sampled negative", "refused")
def test_whether_it_is_sampled_is_no_input():
    base = sample_base()
    leak = Feature(name="leak", column="sampled", role="context", kind="id", table="user")
    with pytest.raises(UserError, match="feature 'leak' reads 'sampled': an outcome is no input"):
        validate(replace(base, features=(*base.features, leak)))


@pytest.mark.tried("hooks", "warm_up on data with sampled negatives", "refused: events are counted")
def test_warm_up_counts_events(tmp_path):
    data = with_negatives(tmp_path / "data")
    with pytest.raises(UserError, match="holds sampled negatives"):
        write_splits(data, tmp_path / "out", Protocol())
