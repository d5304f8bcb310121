"""Tables that are read un-pooled, against the same tables in bags."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from samples import write_samples
from tiny import sample_base
from torch import Tensor

from coldrank.data.batches import BatchMaker, DataFolder
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader, take_rows
from coldrank.models.batch import Batch
from coldrank.models.embeddings import EmbeddingStage
from coldrank.models.encode import FeatureEncoder
from coldrank.models.features import Feature, FeatureSet
from coldrank.models.unpooled import Unpooled

LIKED = Feature(name="liked", role="user", kind="id", table="item", many=True, column="liked")
RECENT = Feature(name="recent_item_id", role="sequence", kind="id", table="item", sequence="recent", length=3)
# The tables of sequences, of 8 columns and of 24; and all tables, so that none is pooled.
SOME = ("item", "hist_signals")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """37 rows, and to them a second history of row % 5 items and row % 4 liked ones, of which some are there twice."""
    config = sample_base()
    data = DataFolder.open(write_samples(tmp_path_factory.mktemp("data")))
    encoder = FeatureEncoder(FeatureSet(config.features, config.tables))
    columns = BatchMaker(encoder, config.tasks).columns()
    read = next(SampleReader(data.files(("train",)), columns, 37).epoch(0))
    for name, modulus, ids in (("recent_item_id", 5, 50), ("liked", 4, 7)):
        offsets = np.concatenate([[0], (np.arange(37) % modulus).cumsum()])
        read[name] = (np.arange(offsets[-1]) % ids, offsets)
    return data, read


def stages(raw, unpooled, mapping="identity", distinct=True):
    """Encoded batches and stages of one set of weights: in bags, and with some tables un-pooled."""
    config, data = sample_base(), raw[0]
    tables = [replace(t, mapping=mapping) if t.name == "item" else t for t in config.tables]
    features = FeatureSet((*config.features, RECENT, LIKED), tables)
    encoder = FeatureEncoder(features)
    fit_encoder(encoder, data.files(("train",)))
    names = [t.name for t in features.tables] if unpooled == "all" else unpooled
    torch.manual_seed(0)
    bags = EmbeddingStage(features)
    other = EmbeddingStage(features, unpooled=names, distinct=distinct)
    for name, module in other.table_modules.items():
        module.weight.data.copy_(bags.table_modules[name].weight)
    making = lambda how: BatchMaker(encoder, config.tasks, unpooled=how)
    return (making(None), bags), (making(other.unpooled), other)


def learnt(stage: EmbeddingStage, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Embeddings, and gradients of the tables, of a loss that treats every element in its own way."""
    stage.zero_grad()
    embedded = stage(batch)
    gen = torch.Generator().manual_seed(0)
    sum(((torch.rand(40, *t.shape[1:], generator=gen)[: len(t)] * t).sin()).sum() for t in embedded.values()).backward()
    return embedded, {name: module.weight.grad.clone() for name, module in stage.table_modules.items()}


@pytest.mark.tried("ranks", "histories, candidates and many values of one table, read un-pooled", "what bags give")
@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("mapping", ["identity", "multi_hash"])
@pytest.mark.parametrize("unpooled", [SOME, "all"])
@pytest.mark.parametrize("rows", [37, 5, 1, 0])
def test_embeddings_and_gradients_are_those_of_bags(raw, unpooled, mapping, distinct, rows):
    (in_bags, bags), (make, stage) = stages(raw, unpooled, mapping, distinct)
    read = take_rows(raw[1], np.arange(rows))
    # The step's largest rank has 40 rows.
    batch, other = (replace(m(read), sizes=(40, rows)) for m in (in_bags, make))
    (wanted, gradients), (embedded, found) = learnt(bags, batch), learnt(stage, other)
    assert embedded.keys() == wanted.keys() and found.keys() == gradients.keys()
    for name, value in wanted.items():
        assert embedded[name].shape == value.shape
        torch.testing.assert_close(embedded[name], value, rtol=1e-6, atol=1e-7)
    for name, value in gradients.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)
    assert any(value.any() for value in gradients.values()) == (rows > 0)


def test_a_row_is_looked_up_once(raw):
    _, (make, _) = stages(raw, SOME)
    batch = make(raw[1])
    read = batch.sparse.to_dict()
    of_items = ["item_id", "hist_item_id", "recent_item_id", "liked"]
    for table, width, features in (("item", "8", of_items), ("hist_signals", "24", ["hist_signals"])):
        mine = [t.values() for k, t in read.items() if k.partition(".")[0] in features]
        rows = batch.unpooled_lookup.rows[width]
        assert rows.keys() == [table]
        assert rows.values().tolist() == torch.cat(mine).unique().tolist() != torch.cat(mine).tolist()
        assert rows.lengths().sum() == len(rows.values()) and rows.lengths().max() - rows.lengths().min() <= 1
    pooled = {key.partition(".")[0] for key in batch.lookup.to_dict()}
    assert pooled and not pooled & {*of_items, "hist_signals"}


@pytest.mark.tried("ranks", "a table in two collections, of which TorchRec would make two", "every table is in one")
@pytest.mark.parametrize("unpooled", [(), ("item",), SOME, "all"])
def test_no_table_is_in_two_collections(raw, unpooled):
    """TorchRec takes one name in two collections for two tables, which then learn apart."""
    _, (_, stage) = stages(raw, unpooled)
    named = [name for name, _ in stage.ebc.named_parameters()] + [
        name for ec in stage.ecs.values() for name, _ in ec.named_parameters()
    ]
    tables = [name.split(".")[1] for name in named]
    assert sorted(tables) == sorted(t.name for t in stage.tables)
    for width, ec in stage.ecs.items():
        assert {p.shape[1] for p in ec.parameters()} == {int(width)}


def test_keys_are_selected_in_their_order():
    features = FeatureSet(
        [
            Feature(name="item_id", role="item", kind="id", table="item"),
            Feature(name="user_id", role="user", kind="id", table="user"),
            RECENT,
        ],
        [t for t in sample_base().tables if t.name in ("user", "item")],
    )
    found = Unpooled.of(features, {"item"})
    assert found.pooled == (0,) and found.collections == {"8": {"item": (1, 2, 3, 4)}}
