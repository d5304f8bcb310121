"""What is read of no table, against plain Python: vectors and their map, and the numbers of a sequence."""

import math

import pytest
import torch
from torch import Tensor

from coldrank.models.encode import FeatureEncoder, PositionNumbers, VectorInput, padded
from coldrank.models.encode_many import ManyEncoder
from coldrank.models.features import Feature, FeatureSet, Table
from coldrank.models.projected import Projected

TABLE = Table(name="film", rows=100, dim=4, mapping="identity")
ITEM = Feature(name="item", role="item", kind="id", table="film")
NAN = math.nan


def lists(rows: list[list[float]]) -> tuple[Tensor, Tensor]:
    return torch.tensor([x for row in rows for x in row]), torch.tensor([len(row) for row in rows], dtype=torch.int64)


CASES = [
    pytest.param([[3.0, 4.0], [], [0.0, 0.0], [-1.0, 1e-20]], id="some missing"),
    pytest.param([[1e30, -1e30]], id="one row"),
    pytest.param([[], [], []], id="all missing"),
    pytest.param([], id="no rows"),
]


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("rows", CASES)
def test_a_vector_is_its_numbers_and_whether_it_is_missing(rows: list[list[float]], unit: bool):
    module = VectorInput(2, unit)
    wanted = []
    for row in rows:
        length = math.hypot(*row) if unit and any(row) else 1.0
        wanted.append([x / length for x in row or [0.0, 0.0]] + [float(not row)])
    found = module(*lists(rows))
    torch.testing.assert_close(found, torch.tensor(wanted).view(-1, 3))
    assert torch.equal(torch.jit.script(module)(*lists(rows)), found) and found.dtype == torch.float32


def test_vectors_go_through_their_map_and_a_missing_one_has_a_row_of_its_own():
    vector = Feature(name="emb", role="item", kind="vector", length=2, dim=3)
    features = FeatureSet([vector, ITEM], [TABLE])
    torch.manual_seed(0)
    projected, embedded = Projected(features), {"item": torch.rand(3, 4)}
    values, lengths = lists([[3.0, 4.0], [], [0.0, 2.0]])
    floats = FeatureEncoder(features).floats({"emb": values, "emb.lengths": lengths})
    found = projected(embedded, floats)
    assert list(found) == ["emb", "item"] and found["item"] is embedded["item"]
    weight, bias = projected.vectors["emb"].weight, projected.vectors["emb"].bias
    wanted = torch.stack([weight @ torch.tensor(x) + bias for x in ([0.6, 0.8, 0.0], [0.0, 0, 1], [0.0, 1, 0])])
    torch.testing.assert_close(found["emb"], wanted)
    found["emb"].sum().backward()
    torch.testing.assert_close(weight.grad, torch.tensor([[0.6, 1.8, 1.0]] * 3))
    assert Projected(FeatureSet([ITEM], [TABLE]))(embedded, None) is embedded


@pytest.mark.parametrize("transform", ["none", "log1p"])
def test_numbers_of_positions_are_standardised_and_missing_ones_are_0(transform: str):
    module = PositionNumbers(3, transform)
    module.standardize.moments[0] = torch.tensor([1.0, 2.0])
    rows = [[5.0, NAN, 1.0, 7.0], [], [0.0], [1e9, 1e30]]
    t = math.log1p if transform == "log1p" else float
    scaled = [[0.0 if math.isnan(x) else max(-8.0, min(8.0, (t(x) - 1) / 2)) for x in row[:3]] for row in rows]
    wanted = torch.tensor([row + [0.0] * (3 - len(row)) for row in scaled])
    torch.testing.assert_close(module(*lists(rows)), wanted)
    assert torch.equal(torch.jit.script(module)(*lists(rows)), module(*lists(rows)))
    assert module(*lists([])).shape == (0, 3) and torch.equal(module(*lists([[]])), torch.zeros(1, 3))


def test_lists_are_padded():
    assert padded(torch.tensor([1, 2, 3, 4]), torch.tensor([3, 0, 1]), 2).tolist() == [[1, 2], [0, 0], [4, 0]]
    assert padded(torch.zeros(0), torch.tensor([0, 0]), 2).tolist() == [[0, 0], [0, 0]]


HOURS = {"column": "hours", "role": "sequence", "sequence": "h", "length": 2}


def of_positions() -> FeatureSet:
    return FeatureSet(
        [
            ITEM,
            Feature(name="since", kind="number", **HOURS),
            Feature(name="bucket", kind="bucket", edges=(1.0, 4.0), dim=3, **HOURS),
            Feature(name="hist", role="sequence", kind="id", table="film", sequence="h", length=2),
        ],
        [TABLE],
    )


def test_numbers_and_buckets_stand_beside_the_ids_of_a_history():
    features = of_positions()
    encoder, (hours, lengths) = FeatureEncoder(features), lists([[0.5, 4.0, 9.0], [], [NAN]])
    raw = {"item": torch.tensor([7, 8, 9]), "hours": hours, "hours.lengths": lengths}
    raw |= {"hist": torch.tensor([11, 12, 13, 21]), "hist.lengths": lengths}
    values, counts, _, ends = encoder(raw)
    assert encoder.keys == ["item", "hist.0", "hist.1", "bucket.0", "bucket.1"] and ends.tolist() == [[2, 0, 1]]
    assert counts.view(5, 3).tolist() == [[1, 1, 1], [1, 0, 1], [1, 0, 0], [1, 0, 1], [1, 0, 0]]
    # 0.5 is below both edges, 4 above, NaN missing.
    assert values.tolist() == [7, 8, 9, 11, 21, 12, 1, 0, 3]
    assert encoder.floats(raw).tolist() == [[0.5, 4.0], [0.0, 0.0], [0.0, 0.0]]
    for ours, theirs in zip(ManyEncoder(encoder)(raw, [3]), [encoder(raw)], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert [i.like for i in features.inputs] == ["", "", "hours"] and features.dim(features.features[1]) == 1
    embedded = {"item": torch.rand(3, 4), "bucket": torch.rand(3, 2, 3), "hist": torch.rand(3, 2, 4)}
    read = Projected(features)(embedded, encoder.floats(raw))
    assert list(read) == ["item", "since", "bucket", "hist"]
    assert read["since"].squeeze(2).tolist() == [[0.5, 4.0], [0.0, 0.0], [0.0, 0.0]]
