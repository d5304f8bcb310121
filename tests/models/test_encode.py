import hashlib

import pytest
import torch

from coldrank.models.encode import Bucketize, FeatureEncoder, Standardize, bucket_of, joint_state
from coldrank.models.features import Feature, FeatureSet, Table
from coldrank.models.ids.mixing import Share


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


FILM = Table(name="film", rows=100, dim=4, mapping="identity")


def test_sequences_have_lengths_of_their_own_and_may_come_first():
    features = FeatureSet(
        [
            Feature(name="seen", role="sequence", kind="id", table="film", sequence="long", length=3),
            Feature(name="liked", role="sequence", kind="id", table="film", sequence="short", length=2),
            Feature(name="item", role="item", kind="id", table="film"),
        ],
        [FILM],
    )
    raw = {
        "seen": torch.tensor([1, 2, 3, 4]),
        "seen.lengths": torch.tensor([3, 1]),
        "liked": torch.tensor([7, 8]),
        "liked.lengths": torch.tensor([0, 2]),
        "item": torch.tensor([5, 6]),
    }
    values, lengths, dense, sequence_lengths = FeatureEncoder(features)(raw)
    assert values.tolist() == [1, 4, 2, 3, 7, 8, 5, 6]
    assert lengths.view(6, 2).tolist() == [[1, 1], [1, 0], [1, 0], [0, 1], [0, 1], [1, 1]]
    assert dense.shape == (2, 0) and lengths.dtype == torch.int32
    assert sequence_lengths.tolist() == [[3, 1], [0, 2]] and sequence_lengths.dtype == torch.int64


def test_a_batch_without_sequences_has_no_lengths():
    encoder = FeatureEncoder(FeatureSet([Feature(name="item", role="item", kind="id", table="film")], [FILM]))
    *_, dense, sequence_lengths = encoder({"item": torch.tensor([5, 6, 9])})
    assert dense.shape == (3, 0) and sequence_lengths.shape == (0, 3)


def test_salted_ids_are_other_ids_and_unsalted_ones_are_shared():
    table = Table(name="shared", rows=1000, dim=4)
    features = [
        Feature(name="a", role="user", kind="id", table="shared"),
        Feature(name="b", role="item", kind="id", table="shared"),
        Feature(name="f", role="item", kind="id", table="shared", salted=True),
    ]
    encoder, ids = FeatureEncoder(FeatureSet(features, [table])), torch.tensor([3, -4, 10**15])
    a, b, f = encoder({"a": ids, "b": ids, "f": ids})[0].view(3, 3)
    salt = int.from_bytes(hashlib.blake2b(b"f", digest_size=8).digest(), "little", signed=True)
    assert salt < 0, "a name whose salt needs its sign"
    assert torch.equal(a, b) and torch.equal(f, encoder.maps["shared"](ids ^ salt)) and not torch.equal(a, f)


def test_several_hashes_are_several_values_of_an_id():
    table = Table(name="film", rows=50, dim=4, mapping="multi_hash", hashes=3)
    features = [
        Feature(name="item", role="item", kind="id", table="film"),
        Feature(name="tags", role="item", kind="id", table="film", many=True),
        Feature(name="seen", role="sequence", kind="id", table="film", sequence="h", length=2),
    ]
    encoder = FeatureEncoder(FeatureSet(features, [table]))
    raw = {
        "item": torch.tensor([5, 6]),
        "tags": torch.tensor([1, 2, 3]),
        "tags.lengths": torch.tensor([1, 2]),
        "seen": torch.tensor([9, 8, 7]),
        "seen.lengths": torch.tensor([2, 1]),
    }
    values, lengths, *_ = encoder(raw)
    assert torch.equal(values.view(-1, 3), encoder.maps["film"](torch.tensor([5, 6, 1, 2, 3, 9, 7, 8])))
    assert lengths.view(4, 2).tolist() == [[3, 3], [3, 6], [3, 3], [3, 0]]


def test_edges_may_be_those_of_each_value():
    edges = torch.tensor([[1.0, 2.0], [-1.0, 5.0]], dtype=torch.float64)
    values = torch.tensor([[0.0, 1.0, 2.0], [float("nan"), -1.0, 4.0]])
    assert bucket_of(values, edges).tolist() == [[1, 2, 3], [0, 2, 2]]


def test_buckets_begin_without_edges():
    assert Bucketize((), 4)(torch.tensor([float("nan"), 1e30])).tolist() == [0, 1]
    assert Bucketize((), 4).edges.shape == (3,)


def test_slots_are_transformed_by_their_own_rule():
    module = Standardize(["log1p", "log1p", "logit", "logit", "none"])
    found = module.transform(torch.tensor([[0.0, 7.0, 0.5, 0.9, -3.0], [-5.0, 1.0, 0.0, 1.0, 2.0]]))
    limit = 9.21024036697585  # log((1 - 1e-4) / 1e-4)
    wanted = [[0.0, 2.0794415, 0.0, 2.1972246, -3.0], [0.0, 0.6931472, -limit, limit, 2.0]]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    plain = Standardize(["none", "none"])
    assert plain(torch.tensor([[8.5, -8.5]])).tolist() == [[8.0, -8.0]] and plain.moments.tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize(("signals", "state"), [([-1], 0), ([1], 2), ([0, -1], 3), ([1, 0, -1], 21), ([1, 1, 1], 26)])
def test_joint_states_are_digits_of_base_three(signals: list[int], state: int):
    assert joint_state([torch.tensor([s], dtype=torch.int8) for s in signals]).tolist() == [state]


def test_what_has_no_row_is_found_behind_features_of_every_kind():
    """Places in the values count several hashes, buckets, lists and sequences before them."""
    tables = [
        Table(name="hashed", rows=50, dim=4, mapping="multi_hash", hashes=3),
        Table(name="user", rows=9, dim=4, mapping="growing"),
        Table(name="item", rows=9, dim=4, mapping="managed"),
    ]
    features = [
        Feature(name="a", role="item", kind="id", table="hashed"),
        Feature(name="tags", role="item", kind="id", table="hashed", many=True),
        Feature(name="age", role="user", kind="bucket", edges=(1.0,), dim=2),
        Feature(name="user", role="user", kind="id", table="user"),
        Feature(name="seen", role="sequence", kind="id", table="item", sequence="h", length=2),
        Feature(name="friends", role="user", kind="id", table="user", many=True),
    ]
    encoder = FeatureEncoder(FeatureSet(features, tables))
    encoder.maps["user"].add(torch.tensor([70]))
    raw = {
        "a": torch.tensor([1, 2]),
        "tags": torch.tensor([3]),
        "tags.lengths": torch.tensor([0, 1]),
        "age": torch.tensor([0.5, 2.0]),
        "user": torch.tensor([70, 71]),
        "seen": torch.tensor([5, 6, 7]),
        "seen.lengths": torch.tensor([1, 2]),
        "friends": torch.tensor([72, 70, 71]),
        "friends.lengths": torch.tensor([2, 1]),
    }
    values = encoder(raw)[0]
    found = encoder.unknown(raw, values)
    # Table by table: behind 6 values of `a` and 3 of tags, 2 of `user` and 3 of friends; what a sequence holds is no
    # event.
    users = ([10, 11, 13], [0, 1, 0], [71, 72], [2, 1], [2, 1])
    items = ([14, 15, 16], [0, 1, 2], [5, 6, 7], [1, 1, 1], [0, 0, 0])
    assert {name: tuple(part.tolist() for part in of) for name, of in found.items()} == {"user": users, "item": items}
    shared = FeatureEncoder(FeatureSet(features, tables), Share(1, 2))
    shared.maps["user"].add(torch.tensor([70, 71]))
    values = shared(raw)[0]
    assert values[[9, 10, 11, 12, 13]].tolist() == [-1] * 5, "what lies with several ranks is left to training"
    of_users = [part.tolist() for part in shared.unknown(raw, values)["user"]]
    assert of_users == [[9, 10, 11, 12, 13], [0, 1, 2, 0, 1], [70, 71, 72], [2, 2, 1], [2, 2, 1]]
