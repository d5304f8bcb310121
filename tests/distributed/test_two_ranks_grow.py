"""Growing tables on two ranks: the maps of one, and its weights."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from launch import launch
from samples import write_samples
from tiny import growing

from coldrank.train.config import to_dict
from coldrank.train.distributed.config import ShardingConfig

STEPS = 8


@pytest.mark.slow
@pytest.mark.parametrize("mapping", ["growing", "managed"])
def test_two_ranks_give_the_rows_that_one_gives(tmp_path, mapping):
    """On the same global batches; the users' table fills up on the way."""
    data, one_user_less = write_samples(tmp_path / "data"), 25
    for name in ("table_wise", "row_wise"):
        config = replace(growing(mapping=mapping), sharding=ShardingConfig(default=name))
        config = replace(config, data=replace(config.data, batch_size=16))
        tables = tuple(replace(t, rows=one_user_less) if t.name == "user" else t for t in config.tables)
        (tmp_path / f"{name}.json").write_text(json.dumps(to_dict(replace(config, tables=tables))))
    configs = [str(tmp_path / f"{name}.json") for name in ("table_wise", "row_wise")]
    command = [str(Path(__file__).with_name("steps.py")), "--data", str(data), "--steps", str(STEPS)]
    for ranks, of_them in ((1, configs[:1]), (2, configs)):
        (tmp_path / str(ranks)).mkdir()
        launch(ranks, *command, "--config", *of_them, "--out", str(tmp_path / str(ranks)))
    one = torch.load(tmp_path / "1/table_wise.pt")
    if mapping == "growing":
        assert (one["encoder/maps.user.known"][1] > 0).sum() == one_user_less - 1
        assert 40 < (one["encoder/maps.item.known"][1] > 0).sum() <= 60
    else:
        assert (one["encoder/maps.user.ids"] < torch.iinfo(torch.int64).max).sum() == one_user_less - 1
        assert one["encoder/maps.user.scores"].unique().numel() > 1
    for name in ("table_wise", "row_wise"):
        two = torch.load(tmp_path / f"2/{name}.pt")
        assert one.keys() == two.keys()
        for key, value in one.items():
            if key.startswith("encoder/"):
                assert torch.equal(two[key], value), key
            else:
                assert (two[key] - value).abs().max() <= 1e-5 * value.abs().max(), key


@pytest.mark.slow
def test_a_run_on_two_ranks_gives_every_id_a_row_and_goes_on_on_one(tmp_path):
    data = write_samples(tmp_path / "data")
    config = growing()
    config = replace(config, data=replace(config.data, batch_size=16))
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    command = ["-m", "coldrank.train.main", "train", "--config", str(tmp_path / "config.json"), "--data", str(data)]
    command += ["--out", str(tmp_path / "run")]
    launch(2, *command, "--set", "train.steps=2")
    after_2 = json.loads((tmp_path / "run/run.json").read_text())["growing_tables"]
    launch(1, *command)
    grown = json.loads((tmp_path / "run/run.json").read_text())["growing_tables"]
    read = pl.concat([pl.read_parquet(p, hive_partitioning=False) for p in data.glob("samples/split=[tv][ra]*/*/*")])
    assert after_2["user"]["ids"] < grown["user"]["ids"] == read["user_id"].n_unique()
    assert grown["tag"] == {"ids": 9, "rows": 32, "values_without_a_row": 0}
