"""The merged line of files against sorting all rows, and what ranks take of it."""

import numpy as np
import polars as pl
import pytest

from coldrank.data.by_time import After, Every, TimeReader
from coldrank.data.errors import UserError
from coldrank.models.features import Input

COLUMNS = [Input("time", "int"), Input("tags", "int", is_list=True)]


def write(folder, sizes, seed=0):
    rng = np.random.default_rng(seed)
    paths = []
    for i, n in enumerate(sizes):
        tags = [rng.integers(0, 9, k).tolist() for k in rng.integers(0, 4, n)]
        frame = pl.DataFrame(
            {"time": np.sort(rng.integers(0, 40, n)), "tags": tags}, schema_overrides={"tags": pl.List(pl.Int64)}
        )
        paths.append(folder / f"{i}.parquet")
        frame.write_parquet(paths[-1], row_group_size=7)
    return paths


def rows(raw):
    values, offsets = raw["tags"]
    return [(int(t), values[a:b].tolist()) for t, a, b in zip(raw["time"], offsets, offsets[1:], strict=False)]


@pytest.mark.parametrize("sizes", [(23,), (23, 17, 1), (0, 30)])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("only", [None, After(20), Every(3)])
def test_steps_of_all_ranks_read_the_rows_in_order_of_time(tmp_path, sizes, ranks, only):
    paths = write(tmp_path, sizes)
    frames = [pl.read_parquet(p).with_row_index().with_columns(file=pl.lit(i)) for i, p in enumerate(paths)]
    if isinstance(only, After):
        frames = [f.filter(pl.col("time") > 20) for f in frames]
    if isinstance(only, Every):
        frames = [f.filter(pl.col("index") % 7 % 3 == 0) for f in frames]
    expected = pl.concat(frames).sort("time", "file", "index")
    readers = [TimeReader(paths, COLUMNS, 4, rank=r, world_size=ranks, only=only) for r in range(ranks)]
    taken = [[rows(raw) for raw in reader.epoch(0)] for reader in readers]
    assert [len(t) for t in taken] == [reader.batches for reader in readers]
    assert [readers[0].sizes(n) for n in range(readers[0].batches)] == [
        tuple(len(t[n]) for t in taken) for n in range(len(taken[0]))
    ]
    line = [row for n in range(len(taken[0])) for t in taken for row in t[n]]
    assert line == list(zip(expected["time"].to_list(), expected["tags"].to_list(), strict=True))
    assert readers[0].total_rows == len(line)
    for reader, share in zip(readers, taken, strict=True):
        several = [(rows(raw), sizes) for raw, sizes in reader.several(0, 1, 10)]
        assert [row for raw, _ in several for row in raw] == [row for batch in share[1:] for row in batch]
        assert [size for _, sizes in several for size in sizes] == [len(batch) for batch in share[1:]]
    late = [rows(raw) for raw in readers[-1].epoch(5, start=2)]
    assert late == taken[-1][2:]


@pytest.mark.parametrize(("ranks", "first"), [(1, [9]), (2, [4, 5]), (3, [3, 3, 3]), (4, [2, 2, 2, 3])])
def test_steps_of_a_global_batch_are_the_same_rows_whatever_the_ranks(tmp_path, ranks, first):
    paths = write(tmp_path, (23, 17))
    by_rank = [
        list(TimeReader(paths, COLUMNS, 1, global_batch_size=9, rank=r, world_size=ranks).epoch(0))
        for r in range(ranks)
    ]
    assert [len(raw["time"]) for raw, *_ in by_rank] == first
    steps = [[row for raw in parts for row in rows(raw)] for parts in zip(*by_rank, strict=True)]
    (whole,) = TimeReader(paths, COLUMNS, 40).epoch(0)
    assert [len(step) for step in steps] == [9, 9, 9, 9, 4] and [r for step in steps for r in step] == rows(whole)


@pytest.mark.tried("ranks", "a period of fewer rows than ranks", "ranks without a row take part with none")
def test_ranks_without_rows_have_empty_batches(tmp_path):
    paths = write(tmp_path, (0, 2))
    by_rank = [list(TimeReader(paths, COLUMNS, 4, rank=r, world_size=3).epoch(0)) for r in range(3)]
    assert [[len(raw["time"]) for raw in raws] for raws in by_rank] == [[0], [1], [1]]
    (empty,) = by_rank[0]
    assert empty["tags"][0].dtype == np.int64 and empty["tags"][1].tolist() == [0]


def test_a_file_that_is_not_sorted_is_refused(tmp_path):
    pl.DataFrame({"time": [5, 7, 6]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        UserError, match=r"a.parquet: column time, row 3 of those read: 6 is earlier than the row before"
    ):
        TimeReader([tmp_path / "a.parquet"], [Input("time", "int")], 4)
