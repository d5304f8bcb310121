"""Ids of 64 bits -> rows, against Python's integers and dictionaries."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coldrank.models.features import Table
from coldrank.models.ids.growing import GrowingMap
from coldrank.models.ids.maps import HashMap, MultiHashMap, VocabularyMap
from coldrank.models.ids.mixing import mix64

MASK = (1 << 64) - 1


def splitmix64(x: int) -> int:
    """The published algorithm, in Python integers."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    x ^= x >> 31
    return x - (1 << 64) if x >> 63 else x


def test_mix64_is_splitmix64():
    ids = [0, 1, -1, 7583, 2**63 - 1, -(2**63), 123456789012345]
    assert mix64(torch.tensor(ids)).tolist() == [splitmix64(i & MASK) for i in ids]


def test_hash_spreads_near_ids_and_stays_in_range():
    rows = HashMap(1000)(torch.arange(-50_000, 50_000))
    counts = torch.bincount(rows, minlength=1000)
    assert int(rows.min()) >= 0 and int(rows.max()) < 1000
    assert counts.float().std() == pytest.approx(10.0, rel=0.15)  # Poisson: 100 per row


def test_vocabulary_gives_own_rows_and_zero_for_others():
    vocabulary = VocabularyMap(5)
    vocabulary.set(torch.tensor([70, -3, 20]))
    ids = torch.tensor([-3, 20, 70, 21, 0, 2**63 - 1, -(2**63)])
    assert vocabulary(ids).tolist() == [1, 2, 3, 0, 0, 0, 0]
    full = VocabularyMap(3)
    full.set(torch.tensor([1, 2]))
    assert full(torch.tensor([1, 2, 3])).tolist() == [1, 2, 0]


def test_multi_hash_keeps_ids_apart_that_one_hash_does_not():
    ids = torch.arange(-20_000, 20_000)
    rows = MultiHashMap(1000, 2)(ids)
    assert rows.shape == (40_000, 2) and int(rows.min()) >= 0 and int(rows.max()) < 1000
    assert torch.equal(rows[:, 0], HashMap(1000)(ids)) and torch.equal(rows[:, 1], HashMap(1000)(mix64(ids)))
    for column in rows.T:
        assert torch.bincount(column, minlength=1000).float().std() == pytest.approx(40**0.5, rel=0.15)
    # Independent: 40,000 ids on 500,500 pairs without order meet in as many as chance would have it.
    met = len(ids) - len(rows.sort(1).values.unique(dim=0))
    assert met == pytest.approx(40_000**2 / 2 / 500_500, rel=0.15)


IDS = st.lists(
    st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9) | st.sampled_from([2**63 - 1, -(2**63)]), max_size=12
)


def table_of(rows: int, **fields: object) -> Table:
    return Table(name="t", rows=rows, dim=4, mapping="growing", **fields)


def grow(table: GrowingMap, ids: Tensor) -> Tensor:
    """What training does with the ids of a batch."""
    return table.add(torch.unique(ids[table(ids) == 0]))


@given(st.integers(2, 40), st.lists(st.tuples(IDS, st.booleans()), max_size=9))
def test_growing_map_is_a_dictionary_that_fills_up(rows, batches):
    """Ids of a batch in ascending order, as long as there are rows; what has a row keeps it. Merged or not."""
    table, truth, states = GrowingMap(table_of(rows)), {}, {}
    order = [1 + i * table.stride % (rows - 1) for i in range(rows - 1)]
    assert sorted(order) == list(range(1, rows))
    for ids, merges in batches:
        given_rows = grow(table, torch.tensor(ids, dtype=torch.int64)).tolist()
        new = sorted(set(ids) - truth.keys())
        fits = new[: rows - 1 - len(truth)]
        assert given_rows == [order[len(truth) + i] if i < len(fits) else 0 for i in range(len(new))]
        truth |= {x: order[len(truth) + i] for i, x in enumerate(fits)}
        states[len(truth)] = dict(truth)
        if merges:
            table.merge_tail()
        for x in [*ids, 2**63 - 1, -(2**63), 5]:
            assert int(table(torch.tensor([x]))) == truth.get(x, 0)
        assert int(table.size) == len(truth)
    table.merge_tail()
    for size, known in states.items():
        ids, places = table.first(size)
        assert {int(x): int(row) for x, row in zip(ids, places, strict=True) if row} == known


def test_growing_map_comes_back_from_its_state_and_scripts():
    table, again = GrowingMap(table_of(5000)), GrowingMap(table_of(5000))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(-(2**62), 2**62, (6000,), generator=generator) * 2
    for batch in ids[:3000].split(500):
        grow(table, batch)
    again.load_state_dict(table.state_dict())
    scripted = torch.jit.script(again)
    assert int(again.size) == 3000 and again.tail.shape[1] == 0
    for batch in ids[2000:].split(500):
        assert torch.equal(again(batch), table(batch)) and torch.equal(scripted(batch), again(batch))
        assert torch.equal(grow(table, batch), grow(again, batch))
    assert int(table.size) == 4999 and torch.equal(table.state_dict()["known"], again.state_dict()["known"])


def test_growing_map_is_read_while_it_grows():
    """Every id reads its own row, or 0 up to the time that it is known to have one."""
    table, done, wrong = GrowingMap(table_of(200_000)), threading.Event(), []
    ids = mix64(torch.arange(60_000)).sort().values[torch.randperm(60_000, generator=torch.Generator().manual_seed(1))]
    known = 0

    def read() -> None:
        while not done.is_set():
            before = known
            rows = table(ids)
            right = (1 + order * table.stride % table.places == rows) | (rows == 0)
            if not right.all() or not rows[:before].all():
                wrong.append(before)

    order = torch.cat([torch.argsort(torch.argsort(part)) + 500 * n for n, part in enumerate(ids.split(500))])
    reader = threading.Thread(target=read)
    reader.start()
    for part in ids.split(500):
        grow(table, part)
        known += len(part)
    done.set()
    reader.join()
    assert not wrong and table(ids).all()


def test_vocabulary_finds_many_ids_whatever_it_remembers():
    rng = np.random.default_rng(5)
    module = VocabularyMap(3000)
    scripted = torch.jit.script(module)
    for vocabulary in (rng.integers(0, 1 << 40, 2500), rng.integers(-50, 3000, 800)):  # what is remembered gets stale
        known = np.unique(vocabulary)
        module.set(torch.from_numpy(known))
        for ids in (rng.choice(known, 10_000), rng.integers(-60, 3100, 10_000)):
            place = {int(x): i + 1 for i, x in enumerate(known)}
            wanted = torch.tensor([place.get(int(x), 0) for x in ids])
            for _ in range(2):
                assert torch.equal(module(torch.from_numpy(ids)), wanted)
                assert torch.equal(scripted(torch.from_numpy(ids)), wanted)
    assert set(module.state_dict()) == {"ids"}
