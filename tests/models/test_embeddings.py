"""The sharded embedding stage against plain indexing, and against itself under another order of keys."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from embedded import static_of
from samples import write_samples
from tiny import sample_base
from torchrec import KeyedTensor

from coldrank.data.batches import BatchMaker, DataFolder, as_tensors
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader, take_rows
from coldrank.models.embeddings import EmbeddingStage, Inputs, rows_of_embedded
from coldrank.models.encode import FeatureEncoder
from coldrank.models.features import Feature, FeatureSet, Table
from coldrank.models.heads import Binary


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    config = sample_base()
    features = FeatureSet(config.features, config.tables)
    data = DataFolder.open(write_samples(tmp_path_factory.mktemp("data")))
    encoder = FeatureEncoder(features)
    fit_encoder(encoder, data.files(("train",)))
    make = BatchMaker(encoder, config.tasks)
    raw = next(SampleReader(data.files(("train",)), make.columns(), 37).epoch(0))
    torch.manual_seed(0)
    return features, encoder, EmbeddingStage(features), make(raw), raw


def rows(encoder, table, ids):
    return encoder.maps[table](torch.as_tensor(ids))


def test_embeddings_equal_plain_indexing(case):
    features, encoder, stage, batch, raw = case
    weight = {n: b.weight for n, b in stage.ebc.embedding_bags.items()}
    embedded = stage(batch)
    static, sequence = static_of(features, embedded), Inputs(features).sequence(embedded, "history")
    assert static.shape == (37, Inputs(features).static_dim - len(features.numbers)) and embedded["pc"].shape == (
        37,
        28,
    )
    assert sequence.shape == (37, 6, 8 + 24)
    tensors = as_tensors(raw)
    for b in range(37):
        values, offsets = raw["item_tags"]
        tags = weight["tag"][rows(encoder, "tag", values[offsets[b] : offsets[b + 1]])]
        expected = [
            weight["user"][rows(encoder, "user", raw["user_id"][b : b + 1])[0]],
            weight["item"][raw["item_id"][b]],
            tags.mean(0) if len(tags) else torch.zeros(12),
            *(
                weight[f"{c}_views_bucket"][encoder.buckets[f"{c}_views_bucket"](tensors[f"{c}_views"])[b]]
                for c in ("user", "item")
            ),
            weight["user_gap_h"][encoder.buckets["user_gap_h"](tensors["user_gap_h"])[b]],
        ]
        torch.testing.assert_close(static[b], torch.cat(expected))
        items, offsets = raw["hist_item_id"]
        low, high = offsets[b], offsets[b + 1]
        assert batch.sequence_lengths[0, b] == high - low
        history = sequence[b]
        torch.testing.assert_close(history[: high - low, :8], weight["item"][items[low:high]])
        codes = 3 * (raw["hist_long_view"][0][low:high] + 1) + raw["hist_like"][0][low:high] + 1
        torch.testing.assert_close(history[: high - low, 8:], weight["hist_signals"][codes])
        assert not history[high - low :].any()


def test_any_order_of_keys_gives_the_same(case):
    _, _, stage, batch, _ = case
    pooled = stage.ebc(batch.sparse)
    expected = stage(batch)
    order = np.random.default_rng(0).permutation(len(pooled.keys()))
    keys = [pooled.keys()[i] for i in order]
    shuffled = KeyedTensor(keys, [pooled.length_per_key()[i] for i in order], torch.cat([pooled[k] for k in keys], 1))
    parts, whole = stage._split(shuffled, 37), stage._split(pooled, 37)
    assert parts.keys() >= expected.keys()
    assert all(torch.equal(parts[k], whole[k]) for k in expected)
    for name in ("hist_item_id", "hist_signals"):
        torch.testing.assert_close(parts[name], expected[name])


@pytest.mark.tried("ranks", "a rank with fewer rows than another in a step", "its lookup is padded with empty bags")
@pytest.mark.parametrize("rows", [37, 5, 0])
def test_a_padded_lookup_gives_the_rows_and_their_gradients(case, rows):
    """The step's largest rank has 40 rows: what the padding gives is cut off, and no row of a table is read for it."""
    _, encoder, stage, _, raw = case
    make = BatchMaker(encoder, {"long_view": Binary(), "like": Binary()})
    batch = make(take_rows(raw, np.arange(rows)))
    padded = replace(batch, sizes=(40, rows))
    assert padded.lookup.stride() == 40 and padded.lookup.values() is batch.sparse.values()
    assert padded.lookup.lengths().sum() == len(batch.sparse.values())
    found = {}
    for name, given in (("plain", batch), ("padded", padded)):
        embedded = stage(given) if rows or given is padded else None
        if embedded is not None:
            stage.zero_grad()
            all_of = list(embedded.values())
            assert {len(t) for t in all_of} == {rows}
            sum((t**2).sum() for t in all_of).backward()
            found[name] = [*all_of, *(p.grad.clone() for p in stage.parameters())]
    if rows:
        assert all(torch.equal(a, b) for a, b in zip(found["plain"], found["padded"], strict=True))
    else:
        assert not any(t.any() for t in found["padded"])


@pytest.mark.tried("ranks", "two histories of different lengths in a padded lookup", "each has its own lengths and ids")
def test_two_sequences_have_lengths_of_their_own(case):
    """Histories of up to 6 and, of the same rows, of 3 of row % 5 ids; the step's largest rank has 40 rows."""
    features, _, _, _, raw = case
    recent = Feature(name="recent_item_id", role="sequence", kind="id", table="item", sequence="recent", length=3)
    features = FeatureSet((*features.features, recent), sample_base().tables)
    counts = np.arange(37) % 5
    offsets = np.concatenate([[0], counts.cumsum()])
    values = np.arange(offsets[-1]) % 50
    encoder, stage = FeatureEncoder(features), EmbeddingStage(features)
    batch = BatchMaker(encoder, {"long_view": Binary(), "like": Binary()})(raw | {"recent_item_id": (values, offsets)})
    history = np.diff(raw["hist_item_id"][1])
    names = list(features.sequences)
    assert batch.sequence_lengths[names.index("recent")].tolist() == np.minimum(counts, 3).tolist()
    assert batch.sequence_lengths[names.index("history")].tolist() == np.minimum(history, 6).tolist()
    assert (np.minimum(counts, 3) != np.minimum(history, 6)).any()
    weight = stage.ebc.embedding_bags["item"].weight
    for given in (batch, replace(batch, sizes=(40, 37))):
        found = stage(given)
        assert found["recent_item_id"].shape == (37, 3, 8) and found["hist_item_id"].shape[:2] == (37, 6)
        for row, count in enumerate(np.minimum(counts, 3)):
            own = rows(encoder, "item", values[offsets[row] : offsets[row] + count])
            torch.testing.assert_close(found["recent_item_id"][row, :count], weight[own])
            assert not found["recent_item_id"][row, count:].any()


def test_vocabulary_is_of_the_training_split_alone(case):
    _, encoder, _, _, _ = case
    known = encoder.maps["user"].ids
    known = known[known < torch.iinfo(torch.int64).max]
    assert 30 < len(known) <= 40 and rows(encoder, "user", [1_000_000]).item() == 0


def test_the_rows_of_several_hashes_are_summed_before_the_mean_of_many_values(case):
    """Single ids, many values and histories; the means are over ids, not over rows."""
    *_, raw = case
    config = sample_base()
    tables = tuple(replace(t, mapping="multi_hash", hashes=3, min_count=1) for t in config.tables)
    features = FeatureSet(config.features, tables)
    encoder = FeatureEncoder(features)
    batch, stage = BatchMaker(encoder, config.tasks)(raw), EmbeddingStage(features)
    embedded = stage(batch)
    summed = {
        t.name: lambda ids, name=t.name: stage.ebc.embedding_bags[name].weight[rows(encoder, name, ids)].sum(-2)
        for t in tables
    }
    (tags, tag_ends), (items, ends) = raw["item_tags"], raw["hist_item_id"]
    for b in range(37):
        own = summed["tag"](tags[tag_ends[b] : tag_ends[b + 1]])
        expected = [
            summed["user"](raw["user_id"][b : b + 1])[0],
            summed["item"](raw["item_id"][b : b + 1])[0],
            own.mean(0) if len(own) else torch.zeros(12),
        ]
        first = [embedded[name][b] for name in ("user_id", "item_id", "item_tags")]
        torch.testing.assert_close(torch.cat(first), torch.cat(expected))
        low, high = ends[b], ends[b + 1]
        assert batch.sequence_lengths[0, b] == high - low
        torch.testing.assert_close(embedded["hist_item_id"][b, : high - low], summed["item"](items[low:high]))


def test_columns_of_a_sequence_are_of_one_length():
    table = Table(name="item", rows=9, dim=4)
    one = Feature(name="a", role="sequence", kind="id", table="item", sequence="past", length=3)
    features = [Feature(name="item", role="item", kind="id", table="item"), one, replace(one, name="b", length=5)]
    with pytest.raises(ValueError, match=r"features of sequence 'past' differ in length: \[3, 5\]"):
        FeatureSet(features, [table])


def test_rows_of_what_was_embedded_are_theirs_without_gradients(case):
    _, _, stage, batch, _ = case
    embedded, chosen = stage(batch), torch.tensor([5, 0, 30])
    part = rows_of_embedded(embedded, chosen)
    assert part.keys() == embedded.keys()
    for name, values in part.items():
        assert torch.equal(values, embedded[name][chosen]) and embedded[name].requires_grad and not values.requires_grad
