import itertools
import threading

import numpy as np
import polars as pl
import pytest

from coldrank.data.errors import UserError
from coldrank.data.read import AtMost, Line, Prefetcher, SampleReader, take
from coldrank.models.features import Input

COLUMNS = [Input("id", "int", default=-1), Input("x", "float"), Input("list", "int", is_list=True)]


def write(folder, name="a.parquet", n=100, start=0, group=7, **extra):
    ids = np.arange(start, start + n)
    frame = pl.DataFrame({"id": ids, "x": ids / 2, "list": [list(range(i % 4)) for i in ids]})
    frame.with_columns(**extra).write_parquet(folder / name, row_group_size=group)
    return folder / name


def chained(lists):
    return list(itertools.chain.from_iterable(lists))


def ids(batches):
    return [b["id"].tolist() for b in batches]


def test_every_row_once_and_lists_stay_with_their_row(tmp_path):
    paths = [write(tmp_path), write(tmp_path, "b.parquet", 50, 100)]
    reader = SampleReader(paths, COLUMNS, 16, shuffle_rows=40, seed=3)
    seen = []
    for batch in reader.epoch(0):
        values, offsets = batch["list"]
        for i, row in enumerate(batch["id"]):
            assert values[offsets[i] : offsets[i + 1]].tolist() == list(range(row % 4))
            assert batch["x"][i] == row / 2
        seen += batch["id"].tolist()
    assert sorted(seen) == list(range(150)) and seen != list(range(150))
    assert reader.batches == len(ids(reader.epoch(0))) == 10


def test_order_is_of_time_without_shuffling_and_of_seed_and_epoch_with(tmp_path):
    path = write(tmp_path)
    assert chained(ids(SampleReader([path], COLUMNS, 16).epoch(5))) == list(range(100))
    in_time = chained(ids(SampleReader([path], COLUMNS, 16, shuffle_rows=32, seed=1).epoch(0)))
    assert sorted(in_time[:32]) == list(range(32)) and in_time[:32] != list(range(32))
    shuffled = SampleReader([path], COLUMNS, 16, shuffle_rows=64, in_time=False, seed=1)
    assert sorted(chained(ids(shuffled.epoch(0)))[:64]) != list(range(64))
    assert ids(shuffled.epoch(0)) == ids(shuffled.epoch(0))
    assert ids(shuffled.epoch(0)) != ids(shuffled.epoch(1))
    assert ids(shuffled.epoch(0)) != ids(SampleReader([path], COLUMNS, 16, shuffle_rows=64, seed=2).epoch(0))


@pytest.mark.parametrize("shuffle_rows", [0, 48])
def test_resumes_at_any_batch(tmp_path, shuffle_rows):
    reader = SampleReader([write(tmp_path)], COLUMNS, 16, shuffle_rows=shuffle_rows, seed=1)
    whole = ids(reader.epoch(2))
    for start in range(reader.batches + 1):
        assert ids(reader.epoch(2, start)) == whole[start:]
        several = [(raw["id"].tolist(), sizes) for raw, sizes in reader.several(2, start, 40)]
        assert chained(rows for rows, _ in several) == chained(whole[start:])
        assert chained(sizes for _, sizes in several) == [len(batch) for batch in whole[start:]]


@pytest.mark.parametrize(("n", "group"), [(100, 7), (99, 80), (1000, 333)])
@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_share_the_rows_evenly_and_walk_together(tmp_path, n, group, world_size):
    path = write(tmp_path, n=n, group=group)
    readers = [
        SampleReader([path], COLUMNS, 4, rank=r, world_size=world_size, shuffle_rows=8) for r in range(world_size)
    ]
    shares = [ids(r.epoch(0)) for r in readers]
    assert sorted(chained(chained(shares))) == list(range(n))
    sizes = [sum(map(len, s)) for s in shares]
    assert max(sizes) - min(sizes) <= 1 and {r.batches for r in readers} == set(map(len, shares))
    assert [readers[0].sizes(k) for k in range(readers[0].batches)] == list(
        zip(*[map(len, s) for s in shares], strict=True)
    )
    for k in range(readers[0].batches + 1):
        assert readers[0].rows_before(k) == sum(len(batch) for share in shares for batch in share[:k])
    step = [i for share in shares for i in share[0]]
    assert max(step) < 8 * world_size  # the first batches of all ranks are of the first stretch
    for reader, share in zip(readers, shares, strict=True):
        assert ids(reader.epoch(0, 3)) == share[3:]


@pytest.mark.tried("ranks", "data.global_batch_size on 1, 2, 3, 4 and 7 ranks", "the same rows in every step")
@pytest.mark.parametrize("shuffle_rows", [0, 48])
@pytest.mark.parametrize("n", [100, 96, 5, 2])
def test_batches_of_all_ranks_are_the_same_rows_whatever_their_number(tmp_path, shuffle_rows, n):
    """12 rows a step: 8 whole steps of 100 rows and one of 4; of 5 rows one step, with ranks that have none."""
    path = write(tmp_path, n=n)
    settings = {"global_batch_size": 12, "shuffle_rows": shuffle_rows}
    open_reader = lambda **ranks: SampleReader([path], COLUMNS, 1, **settings, **ranks)
    alone = open_reader()
    expected = ids(alone.epoch(3))
    assert [len(batch) for batch in expected] == [12] * (n // 12) + ([n % 12] if n % 12 else [])
    assert sorted(chained(expected)) == list(range(n))
    assert (chained(expected) == list(range(n))) == (shuffle_rows == 0 or n <= 12)
    for world_size in (2, 3, 4, 7):
        readers = [open_reader(rank=r, world_size=world_size) for r in range(world_size)]
        shares = [ids(r.epoch(3)) for r in readers]
        assert [chained(parts) for parts in zip(*shares, strict=True)] == expected
        sizes = [tuple(map(len, parts)) for parts in zip(*shares, strict=True)]
        assert sizes == [readers[0].sizes(k) for k in range(readers[0].batches)]
        assert all(max(s) - min(s) <= 1 for s in sizes)
        assert [readers[0].rows_before(k) for k in range(len(sizes) + 1)] == [
            sum(map(sum, sizes[:k])) for k in range(len(sizes) + 1)
        ]
        for reader, share in zip(readers, shares, strict=True):
            assert ids(reader.epoch(3, len(share) // 2)) == share[len(share) // 2 :]


def test_batches_of_all_ranks_are_shuffled_in_lanes_and_ranks_decode_their_own(tmp_path, monkeypatch):
    """4 rows a step, stretches of 24: each of 4 lanes gives one row to each of 6 steps. 2 ranks have 2 lanes each."""
    path = write(tmp_path, n=48, group=1)
    reader = SampleReader([path], COLUMNS, 1, global_batch_size=4, shuffle_rows=24, seed=5)
    steps = ids(reader.epoch(0))
    for step, batch in enumerate(steps):
        first = 24 * (step // 6)
        assert [i - first for i in batch] == [6 * lane + (i - first) % 6 for lane, i in enumerate(batch)]
    assert len({tuple(i % 6 for i in batch) for batch in steps}) > 6, "lanes are shuffled apart"
    decode, decoded = Line._decode, []
    monkeypatch.setattr(Line, "_decode", lambda line, group: decoded.append(group.index) or decode(line, group))
    for rank, rows in enumerate([[*range(12), *range(24, 36)], [*range(12, 24), *range(36, 48)]]):
        share = SampleReader([path], COLUMNS, 1, global_batch_size=4, shuffle_rows=24, seed=5, rank=rank, world_size=2)
        assert sorted(chained(ids(share.epoch(0)))) == decoded == rows
        decoded.clear()


@pytest.mark.parametrize("in_time", [True, False])
def test_a_row_group_of_a_buffer_is_decoded_by_one_rank(tmp_path, monkeypatch, in_time):
    path = write(tmp_path, n=96, group=8)
    decode, decoded = Line._decode, []
    monkeypatch.setattr(Line, "_decode", lambda line, group: decoded.append(group.index) or decode(line, group))
    for rank in range(3):
        share = SampleReader([path], COLUMNS, 4, shuffle_rows=16, in_time=in_time, seed=5, rank=rank, world_size=3)
        assert len(chained(ids(share.epoch(0)))) == 32
    assert sorted(decoded) == list(range(12))


def test_a_pass_that_goes_on_decodes_no_row_group_before_its_position(tmp_path, monkeypatch):
    path = write(tmp_path, n=96, group=8)
    decode, decoded = Line._decode, []
    monkeypatch.setattr(Line, "_decode", lambda line, group: decoded.append(group.index) or decode(line, group))
    reader = SampleReader([path], COLUMNS, 4, shuffle_rows=16, in_time=False, seed=5)
    whole = ids(reader.epoch(1))
    every, decoded[:] = list(decoded), []
    assert ids(reader.epoch(1, 9)) == whole[9:] and decoded == every[4:] and len(every) == 12


def test_nulls_become_the_default_and_nan(tmp_path):
    path = tmp_path / "n.parquet"
    pl.DataFrame({"id": [4, None], "x": [None, 1.0], "list": [[1], []]}).write_parquet(path)
    (batch,) = SampleReader([path], COLUMNS, 4).epoch(0)
    assert batch["id"].tolist() == [4, -1] and np.isnan(batch["x"][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": pl.when(pl.col.id == 23).then(float("nan")).otherwise(1.0)}, "column 'x', row 24: nan is not a finite"),
        ({"id": pl.when(pl.col.id == 31).then(77).otherwise(1)}, "column 'id', row 32: 77 is outside 0..50"),
        ({"id": pl.col.x}, "column 'id' is double, should be an integer"),
        ({"list": pl.col.id}, "column 'list' is int64, should be a list of integers"),
        ({"x": pl.col.id.cast(pl.String)}, "column 'x' is .*string, should be a number"),
        ({"list": pl.when(pl.col.id == 9).then(None).otherwise(pl.col.list)}, "column 'list', row 10: null"),
    ],
)
def test_bad_values_are_named(tmp_path, change, message):
    path = write(tmp_path, n=50, **change)
    columns = [Input("id", "int", low=0, high=50), *COLUMNS[1:]]
    with pytest.raises(UserError, match=rf"a\.parquet: {message}"):
        list(SampleReader([path], columns, 16).epoch(0))


def test_bad_value_in_a_list_names_the_row(tmp_path):
    lists = [[1], [], [2, 3], [4, 99]]
    pl.DataFrame({"list": lists}).write_parquet(tmp_path / "l.parquet")
    with pytest.raises(UserError, match="column 'list', row 4: 99 is outside 0..9"):
        list(SampleReader([tmp_path / "l.parquet"], [Input("list", "int", True, low=0, high=9)], 2).epoch(0))


def test_missing_column_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.parquet: no column 'y' among its 3; near it: id, x, list"):
        SampleReader([write(tmp_path)], [Input("y", "float")], 4)


def test_take_reorders_lists():
    values, offsets = take((np.array([1, 2, 3, 4]), np.array([0, 2, 2, 4])), np.array([2, 0, 1, 2]))
    assert values.tolist() == [3, 4, 1, 2, 3, 4] and offsets.tolist() == [0, 2, 4, 4, 6]


def test_prefetcher_hands_errors_on_and_leaves_no_thread():
    def broken():
        yield 1
        raise UserError("row 7")

    with Prefetcher(broken, 1) as source, pytest.raises(UserError, match="row 7"):
        list(source)
    with Prefetcher(lambda: iter(range(1000)), 2) as source:
        assert next(iter(source)) == 0
    assert not any(t.name == "coldrank-prefetch" for t in threading.enumerate())


def test_only_some_rows(tmp_path):
    paths = [
        write(tmp_path, age=pl.Series([i % 10 for i in range(100)])),
        write(tmp_path, "b.parquet", 9, 100, age=pl.lit(9)),
    ]
    reader = SampleReader(paths, COLUMNS, 8, shuffle_rows=16, in_time=False, seed=1, only=AtMost("age", 2))
    batches = list(reader.epoch(0))
    wanted = [i for i in range(100) if i % 10 <= 2]
    assert sorted(chained(ids(batches))) == wanted and reader.total_rows == 30 and reader.batches == len(batches)
    for batch in batches:
        values, offsets = batch["list"]
        assert [values[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [
            list(range(i % 4)) for i in batch["id"]
        ]
    shares = [
        SampleReader(paths, COLUMNS, 8, shuffle_rows=16, seed=1, rank=r, world_size=2, only=AtMost("age", 2))
        for r in range(2)
    ]
    assert sorted(chained(chained(ids(s.epoch(0)) for s in shares))) == wanted
    bad = write(
        tmp_path, "bad.parquet", x=pl.Series([float("nan") if i == 51 else 0.0 for i in range(100)]), age=pl.lit(1)
    )
    with pytest.raises(UserError, match=r"bad.parquet: column 'x', row 52"):
        list(SampleReader([bad], COLUMNS, 8, only=AtMost("id", 51)).epoch(0))


def test_lists_of_equal_lengths_share_their_offsets(tmp_path):
    path = tmp_path / "l.parquet"
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 5, 60)
    frame = pl.DataFrame(
        {
            "id": range(60),
            "a": [[10 * i + k for k in range(n)] for i, n in enumerate(lengths)],
            "b": [[-i] * n for i, n in enumerate(lengths)],
            "other": [[i] for i in range(60)],
        }
    )
    frame.write_parquet(path, row_group_size=25)
    columns = [Input("id", "int"), *(Input(n, "int", is_list=True) for n in ("a", "b", "other"))]
    for batch in SampleReader([path], columns, 7, shuffle_rows=28, seed=1).epoch(0):
        assert batch["a"][1] is batch["b"][1] and batch["a"][1] is not batch["other"][1]
        rows = frame[batch["id"].tolist()]
        for name in ("a", "b", "other"):
            values, offsets = batch[name]
            assert [values[x:y].tolist() for x, y in itertools.pairwise(offsets)] == rows[name].to_list()
