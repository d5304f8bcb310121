"""Ids with weights, against plain Python: what is pooled, its gradient to the table, in bags and un-pooled."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor

from coldrank.models.batch import Batch
from coldrank.models.embeddings import EmbeddingStage
from coldrank.models.encode import FeatureEncoder, shares
from coldrank.models.features import Feature, FeatureSet, Table
from coldrank.models.unpooled import Unpooled


def features(mapping: str = "identity") -> FeatureSet:
    """Weighted tags, the same tags without, and a single id, all of one table; and an id of another."""
    return FeatureSet(
        [
            Feature(name="tags", role="item", kind="id", table="tag", many=True, weights="scores"),
            Feature(name="plain", column="tags", role="item", kind="id", table="tag", many=True),
            Feature(name="item", role="item", kind="id", table="item"),
            Feature(name="topic", role="item", kind="id", table="tag"),
        ],
        [Table(name="tag", rows=20, dim=4, mapping=mapping), Table(name="item", rows=9, dim=4, mapping="identity")],
    )


ROWS: dict[str, list[tuple[list[int], list[float]]]] = {
    "some": [([3, 7, 3], [0.5, -1.5, 2.0]), ([], []), ([5], [-0.25]), ([1, 2], [0.0, 0.0]), ([4, 4], [1e30, 1e30])],
    "one row": [([6, 2], [3.0, 1.0])],
    "all empty": [([], []), ([], [])],
}


def batch_of(encoder: FeatureEncoder, rows: list[tuple[list[int], list[float]]], how: Unpooled | None) -> Batch:
    lengths = torch.tensor([len(ids) for ids, _ in rows])
    raw = {
        "tags": torch.tensor([i for ids, _ in rows for i in ids], dtype=torch.int64),
        "tags.lengths": lengths,
        "scores": torch.tensor([w for _, weights in rows for w in weights]),
        "item": torch.arange(len(rows)),
        "topic": torch.arange(len(rows)) + 3,
    }
    values, counts, dense, ends = encoder(raw)
    weights = encoder.weights(raw, counts)
    sparse = KeyedJaggedTensor(keys=encoder.keys, values=values, lengths=counts, weights=weights)
    # As on the rank with fewer rows of two.
    sizes = (len(rows), len(rows) + 3)
    return Batch(sparse, dense, ends, torch.zeros(len(rows), 1), {}, sizes=sizes, unpooled=how)


def wanted(encoder: FeatureEncoder, weight: Mapping[str, Tensor], rows: list[tuple[list[int], list[float]]]):
    """By loops: sum of w / sum |w| times the sum of the id's rows."""
    row = lambda i: weight["tag"][encoder.maps["tag"](torch.tensor([i])).flatten()].sum(0)
    tags, plain = [], []
    for ids, weights in rows:
        total = sum(abs(w) for w in weights) or 1.0
        tags.append(sum((w / total * row(i) for i, w in zip(ids, weights, strict=True)), torch.zeros(4)))
        plain.append(sum((row(i) for i in ids), torch.zeros(4)) / max(len(ids), 1))
    of_item = torch.stack([weight["item"][i] for i in range(len(rows))])
    of_topic = torch.stack([row(i + 3) for i in range(len(rows))])
    return {"tags": torch.stack(tags), "plain": torch.stack(plain), "item": of_item, "topic": of_topic}


@pytest.mark.parametrize("unpooled", [(), ("tag",), ("tag", "item")])
@pytest.mark.parametrize("mapping", ["identity", "multi_hash"])
@pytest.mark.parametrize("name", ROWS)
def test_weighted_ids_are_averaged_by_their_weights(name: str, mapping: str, unpooled: tuple[str, ...]):
    chosen, rows = features(mapping), ROWS[name]
    encoder = FeatureEncoder(chosen)
    torch.manual_seed(0)
    stage = EmbeddingStage(chosen, unpooled=unpooled)
    found = stage(batch_of(encoder, rows, stage.unpooled))
    weight = {t: m.weight.detach().clone().requires_grad_() for t, m in stage.table_modules.items()}
    expected = wanted(encoder, weight, rows)
    for feature, value in expected.items():
        torch.testing.assert_close(found[feature], value, rtol=1e-5, atol=1e-6)
    for values in (found, expected):
        sum((k + 1.5) * (x * x).sum() for k, x in enumerate(values.values())).backward()
    for table, module in stage.table_modules.items():
        torch.testing.assert_close(module.weight.grad, weight[table].grad, rtol=1e-4, atol=1e-6)


def test_weights_of_1_are_no_weights():
    chosen, rows = features(), [([3, 7, 3], [1.0, 1.0, 1.0]), ([1], [1.0])]
    stage = EmbeddingStage(chosen)
    found = stage(batch_of(FeatureEncoder(chosen), rows, None))
    torch.testing.assert_close(found["tags"], found["plain"])


def test_shares_scripted_and_of_nothing():
    weights, lengths = torch.tensor([1.0, -3.0, 0.0, 0.0, 5.0]), torch.tensor([2, 0, 2, 1])
    assert shares(weights, lengths).tolist() == [0.25, -0.75, 0.0, 0.0, 1.0]
    assert torch.jit.script(shares)(weights, lengths).tolist() == [0.25, -0.75, 0.0, 0.0, 1.0]
    assert shares(torch.zeros(0), torch.zeros(3, dtype=torch.int64)).shape == (0,)


@pytest.mark.parametrize("field", [{"role": "sequence", "sequence": "h", "length": 2, "many": False}, {"many": False}])
def test_weights_are_for_many_ids(field: dict[str, object]):
    fields = {"name": "a", "role": "item", "kind": "id", "table": "tag", "weights": "w"} | field
    with pytest.raises(ValueError, match="weights='w': are for ids with many=True"):
        FeatureSet([Feature(**fields)], [Table(name="tag", rows=3, dim=4)])  # type: ignore[arg-type]
