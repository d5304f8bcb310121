import polars as pl
import pytest
import torch
from samples import write_samples
from tiny import growing, sample_base

from coldrank.data.batches import BatchMaker, DataFolder, batches
from coldrank.data.errors import UserError
from coldrank.data.read import SampleReader
from coldrank.models.encode import FeatureEncoder
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
