"""Crosses: their hash against Python's integers, what may be crossed, and their rows in every encoder."""

import hashlib
import math
from dataclasses import replace

import pytest
import torch

from coldrank.configs.base import cross, numbers
from coldrank.models.encode import FeatureEncoder, crossed
from coldrank.models.encode_many import ManyEncoder
from coldrank.models.features import Feature, FeatureSet, Table
from coldrank.models.heads import Binary
from coldrank.models.two_tower import TwoTower

IDS = [0, 1, -1, 7, 2**63 - 1, -(2**63), 123456789012345]
MASK = 2**64 - 1


def mixed(x: int) -> int:
    """splitmix64 of an integer, modulo 2 ** 64."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def hashed(start: int, values: tuple[int, ...], rows: int) -> int:
    h = start & MASK
    for value in values:
        h = mixed(h ^ (value & MASK))
    return (h - 2**64 if h >> 63 else h) % rows


def start_of(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)


@pytest.mark.parametrize("rows", [1, 10, 1_000_003, 2**40])
def test_the_hash_is_that_of_python_s_integers(rows: int):
    pairs = [(a, b) for a in IDS for b in IDS]
    a, b = torch.tensor(pairs).T
    for start in (0, -5, start_of("a_x_b")):
        wanted = [hashed(start, pair, rows) for pair in pairs]
        assert crossed([a, b], start, rows).tolist() == wanted
        assert torch.jit.script(crossed)([a, b], start, rows).tolist() == wanted
    assert crossed([a[:0], b[:0]], 3, rows).shape == (0,)


USER = Feature(name="user", role="user", kind="id", table="id", default=-1)
ITEM = Feature(name="item", role="item", kind="id", table="id", salted=True)
AGE = Feature(name="age", role="user", kind="bucket", edges=(18.0, 40.0), dim=4)
TABLES = (Table(name="id", rows=30, dim=4),)
BOTH = cross("user", "item", "age", rows=1000, dim=4)


def test_ids_and_buckets_are_crossed_by_their_values():
    features = FeatureSet([BOTH, USER, ITEM, AGE], TABLES)
    assert [i.name for i in features.inputs] == ["user", "item", "age"] and features.columns(BOTH) == BOTH.of
    encoder = FeatureEncoder(features)
    raw = {
        "user": torch.tensor([5, -1, 5]),
        "item": torch.tensor([9, 9, 2**62]),
        "age": torch.tensor([17, math.nan, 40]),
    }
    values, lengths, *_ = encoder(raw)
    parts = [(5, 9, 1), (-1, 9, 0), (5, 2**62, 3)]
    at = 3 * encoder.keys.index("user_x_item_x_age")
    assert values[at : at + 3].tolist() == [hashed(start_of("user_x_item_x_age"), of, 1000) for of in parts]
    assert lengths.tolist() == [1] * 12
    double = {name: torch.cat([x, x[:2]]) for name, x in raw.items()}
    for n, ours in zip((3, 2), ManyEncoder(encoder)(double, [3, 2]), strict=True):
        theirs = encoder({name: x[:n] for name, x in raw.items()})
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    other = FeatureSet([replace(BOTH, name="other"), USER, ITEM, AGE], TABLES)
    assert FeatureEncoder(other)(raw)[0][at : at + 3].tolist() != values[at : at + 3].tolist()


TAGS = Feature(name="tags", role="item", kind="id", table="id", many=True)
PAST = Feature(name="past", role="sequence", kind="id", table="id", sequence="h", length=3)
CODE = Feature(name="code", role="pc", kind="bucket", edges=(1.0,), dim=4)
PRICE = Feature(name="price", role="item", kind="number")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        pytest.param(w, m, marks=pytest.mark.tried("configs and runs", f"a cross of {what}", "refused"), id=what)
        for what, w, m in [
            (
                "many values",
                cross("user", "tags", rows=9, dim=4),
                "of: 'tags' has many=True; a cross is of single",
            ),
            ("a sequence", cross("user", "past", rows=9, dim=4), "of: 'past' has role='sequence'"),
            ("a personalization code", cross("user", "code", rows=9, dim=4), "of: 'code' has role='pc'"),
            ("a number", cross("user", "price", rows=9, dim=4), "of: 'price' has kind='number'"),
            ("an unknown feature", cross("user", "itm", rows=9, dim=4), "of: 'itm' is no feature"),
            ("another cross", cross("user", "user_x_item_x_age", rows=9, dim=4), "has kind='cross'"),
            ("one feature", cross("user", "user", rows=9, dim=4), "a cross is of two or more features"),
            ("no rows", cross("user", "item", rows=0, dim=4), "rows=0: a cross needs the rows of its table"),
            ("no width", cross("user", "item", rows=9, dim=0), "a cross feature needs the width"),
            ("rows without a cross", replace(USER, name="u", rows=3), "of and rows are for kind 'cross'"),
        ]
    ],
)
def test_what_cannot_be_crossed_is_refused(wrong: Feature, message: str):
    with pytest.raises(ValueError, match=f"feature {wrong.name!r}: .*{message}"):
        FeatureSet([wrong, BOTH, USER, ITEM, AGE, TAGS, PAST, CODE, PRICE], TABLES)


def test_a_tower_reads_crosses_of_its_own_side():
    said = lambda *crosses: TwoTower().problem(FeatureSet([USER, ITEM, AGE, *crosses], TABLES), {"a": Binary()})
    assert said(cross("user", "age", rows=9, dim=4)) == ""
    assert "crosses what one tower does not read" in said(cross("user", "item", rows=9, dim=4))
    assert "crosses what one tower does not read" in said(cross("user", "age", rows=9, dim=4, role="item"))


def test_a_list_of_numbers_is_declared_at_once():
    made = numbers(["f0", "f1"], "item", transform="log1p", buckets=8, dim=4)
    assert [(f.name, f.raw_columns, f.kind) for f in made] == [
        ("f0", ("f0",), "number"),
        ("f1", ("f1",), "number"),
        ("f0_bucket", ("f0",), "bucket"),
        ("f1_bucket", ("f1",), "bucket"),
    ]
    assert {f.role for f in made} == {"item"} and len(numbers([f"f{i}" for i in range(30)], "context")) == 30
