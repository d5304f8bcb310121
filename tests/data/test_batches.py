from dataclasses import fields, replace

import polars as pl
import pytest
import torch
from samples import write_samples
from tiny import growing, sample_base

from coldrank.data.batches import BatchMaker, DataFolder, batches
from coldrank.data.errors import UserError
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader
from coldrank.models.batch import Batch
from coldrank.models.encode import FeatureEncoder
from coldrank.models.encode_many import ManyEncoder
from coldrank.models.features import Feature
from coldrank.train.checks import validate


def test_pinned_batches_are_the_same_with_their_unknown_ids(tmp_path, monkeypatch):
    """Page-locked memory needs a GPU: the copy stands in for it."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t) or t.clone())
    config = growing()
    make = BatchMaker(FeatureEncoder(validate(config)), config.tasks)
    reader = SampleReader(DataFolder.open(write_samples(tmp_path)).files(("train",)), make.columns(), 64)
    with batches(reader, make, 2) as plain, batches(reader, make, 2, pin=True) as locked:
        for one, two in zip(plain, locked, strict=True):
            assert len(pinned) >= 5
            assert torch.equal(one.sparse.values(), two.sparse.values()) and one.sparse.keys() == two.sparse.keys()
            assert torch.equal(one.sparse.lengths(), two.sparse.lengths())
            for name in ("dense", "sequence_lengths", "labels"):
                torch.testing.assert_close(getattr(two, name), getattr(one, name), rtol=0, atol=0, equal_nan=True)
            for table, unknown in one.unknown.items():
                assert len(unknown.ids) and all(map(torch.equal, unknown, two.unknown[table]))
            assert all(torch.equal(t, two.keys[k]) for k, t in one.keys.items())


def assert_equal(one: Batch, two: Batch) -> None:
    """Bit for bit, and in the types."""
    assert one.sparse.keys() == two.sparse.keys() and one.keys.keys() == two.keys.keys()
    pairs = [(one.sparse.values(), two.sparse.values()), (one.sparse.lengths(), two.sparse.lengths())]
    pairs += [(one.keys[k], two.keys[k]) for k in one.keys]
    tensors = [f.name for f in fields(Batch) if f.name not in ("sparse", "keys", "unknown", "sizes")]
    pairs += [(getattr(one, name), getattr(two, name)) for name in tensors if getattr(one, name) is not None]
    for x, y in pairs:
        torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)
    assert all((getattr(one, n) is None) == (getattr(two, n) is None) for n in tensors) and not two.unknown


@pytest.mark.parametrize("weight", ["", "user_views"])
@pytest.mark.parametrize("size", [1, 64, 90])
def test_batches_made_at_once_are_those_made_one_by_one(tmp_path, size, weight):
    config = sample_base()
    hashed = (
        Feature(name="user_hash", column="user_id", role="user", kind="id", table="tag", salted=True),
        Feature(name="user_plain", column="user_id", role="user", kind="id", table="tag"),
        Feature(name="age", column="user_gap_h", role="context", kind="bucket", edges=(0.25, 0.5, 0.75), dim=4),
        Feature(name="gap", column="user_gap_h", role="context", kind="number", transform="log1p"),
    )
    config = replace(config, features=(*config.features[:3], *hashed, *config.features[3:]))
    encoder = FeatureEncoder(validate(config))
    files = DataFolder.open(write_samples(tmp_path)).files(("train", "valid"))
    fit_encoder(encoder, files)
    make = BatchMaker(encoder, config.tasks, ["rate_user_long_view"], weight)
    reader = SampleReader(files, make.columns(training=True), size, shuffle_rows=256, seed=3)
    assert ManyEncoder.can(encoder) and make.rows_at_once > 1
    several = list(reader.several(1, 2, 200))
    assert len(several[0][1]) == {1: 200, 64: 2, 90: 2}[size]  # a buffer ends after 256, 256 and 180 rows
    assert sum(sum(sizes) for _, sizes in several) == 700 - 2 * size
    at_once = [batch for raw, sizes in several for batch in make.many(raw, sizes)]
    for one, two in zip(map(make, reader.epoch(1, 2)), at_once, strict=True):
        assert_equal(one, two)


def test_batches_whose_rows_depend_on_when_they_are_made_are_made_one_by_one():
    for config, rows in ((growing(), 1), (growing(mapping="managed"), 1), (growing(mapping="multi_hash"), 1)):
        assert BatchMaker(FeatureEncoder(validate(config)), config.tasks).rows_at_once == rows


@pytest.mark.tried("data folders", "a label that is not right for its task's head", "refused with file, column, row")
def test_a_label_that_cannot_be_is_named(tmp_path):
    file = DataFolder.open(write_samples(tmp_path)).files(("train",))[0]
    frame = pl.read_parquet(file, glob=False).with_row_index()
    odd = pl.when(pl.col("index") == 400).then(2).otherwise("label_like").cast(pl.Int8).alias("label_like")
    frame.with_columns(odd).drop("index").write_parquet(file, row_group_size=128)
    config = sample_base()
    make = BatchMaker(FeatureEncoder(validate(config)), config.tasks)
    wanted = (
        r"part-0.parquet: column 'label_like', row 401: 2.0 is neither 0 nor 1, as a binary task has them \(1 such\)"
    )
    with pytest.raises(UserError, match=wanted):
        list(SampleReader([file], make.columns(), 64).epoch(0))
