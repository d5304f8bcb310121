import torch

from coldrank.models.encode import Bucketize, FeatureEncoder, Standardize
from coldrank.models.features import Feature, FeatureSet, Table


def test_buckets_of_edges_missing_and_infinite_tail():
    bucketize = Bucketize((1.0, 2.0, 4.0), 0)
    values = torch.tensor([float("nan"), -5.0, 0.99, 1.0, 3.0, 4.0, 1e9])
    assert bucketize(values).tolist() == [0, 1, 1, 2, 3, 4, 4]


def test_standardize_transforms_clips_and_keeps_missing_at_zero():
    module = Standardize(["log1p", "logit", "none"])
    module.moments[0] = torch.tensor([1.0, 0.5])
    nan = float("nan")
    out = module(torch.tensor([[nan, nan, nan], [0.0, 0.5, 3.0], [torch.e - 1, 0.0, -9.0], [1e30, 0.9, 0.25]]))
    expected = [[0, 0, 0], [-2, 0, 3], [0, -8, -8], [8, torch.log(torch.tensor(9.0)), 0.25]]
    torch.testing.assert_close(out, torch.tensor(expected))


def test_encoder_lays_a_history_out_position_by_position():
    features = FeatureSet(
        [
            Feature(name="item", role="item", kind="id", table="film"),
            Feature(name="tags", role="item", kind="id", table="film", many=True),
            Feature(name="hist", role="sequence", kind="id", table="film", sequence="h", length=2),
            Feature(name="sig", role="sequence", kind="signals", columns=("a", "b"), dim=2, sequence="h", length=2),
            Feature(name="x", role="context", kind="number"),
        ],
        [Table(name="film", rows=100, dim=4, mapping="identity")],
    )
    raw = {
        "item": torch.tensor([5, 6, 7]),
        "tags": torch.tensor([1, 2]),
        "tags.lengths": torch.tensor([2, 0, 0]),
        "hist": torch.tensor([11, 12, 13, 21]),  # three of sample 0 (one too many), none of 1, one of 2
        "hist.lengths": torch.tensor([3, 0, 1]),
        "a": torch.tensor([1, 0, 0, -1]),
        "a.lengths": torch.tensor([3, 0, 1]),
        "b": torch.tensor([0, 1, 0, -1]),
        "b.lengths": torch.tensor([3, 0, 1]),
        "x": torch.tensor([1.0, 2.0, float("nan")]),
    }
    encoder = FeatureEncoder(features)
    values, lengths, dense, sequence_lengths = encoder(raw)
    assert encoder.keys == ["item", "tags", "hist.0", "hist.1", "sig.0", "sig.1"]
    assert lengths.view(6, 3).tolist() == [[1, 1, 1], [2, 0, 0], [1, 0, 1], [1, 0, 0], [1, 0, 1], [1, 0, 0]]
    # signals (1, 0) -> 2*3+1 = 7, (-1, -1) -> 0, (0, 1) -> 1*3+2 = 5
    assert values.tolist() == [5, 6, 7, 1, 2, 11, 21, 12, 7, 0, 5]
    assert sequence_lengths.tolist() == [[2, 0, 1]]
    assert dense.tolist() == [[1.0], [2.0], [0.0]]
