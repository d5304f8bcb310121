"""The merged line of files against sorting all rows, and what ranks take of it."""

import numpy as np
import polars as pl
import pytest

from coldrank.models.features import Input
from coldrank.train.data.by_time import After, Every, TimeReader
from coldrank.train.errors import UserError

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
    assert min(len(t) for t in taken) == readers[0].common_batches
    line = [row for n in range(max(map(len, taken))) for t in taken for row in (t[n] if n < len(t) else [])]
    assert line == list(zip(expected["time"].to_list(), expected["tags"].to_list(), strict=True))
    assert readers[0].total_rows == len(line)
    late = [rows(raw) for raw in readers[-1].epoch(5, start=2)]
    assert late == taken[-1][2:]


def test_a_file_that_is_not_sorted_is_refused(tmp_path):
    pl.DataFrame({"time": [5, 7, 6]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        UserError, match=r"a.parquet: column time, row 3 of those read: 6 is earlier than the row before"
    ):
        TimeReader([tmp_path / "a.parquet"], [Input("time", "int")], 4)
