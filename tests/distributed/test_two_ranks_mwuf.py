"""MWUF on two gloo ranks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from launch import launch
from samples import write_samples
from tiny import growing

from coldrank.train.config import to_dict
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.hooks.mwuf import Mwuf

STEPS = 8


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["row_wise", "table_wise"])
def test_two_ranks_learn_and_remember_what_one_rank_does(tmp_path, sharding):
    """Losses, tables with the common initialisation, networks, and the users of every item."""
    base = growing()
    mwuf = Mwuf(max_views=59, users=8, refresh=2)
    config = replace(base, hooks=(mwuf,), sharding=ShardingConfig(default=sharding))
    path = tmp_path / "mwuf.json"
    path.write_text(json.dumps(to_dict(config)))
    data = write_samples(tmp_path / "data")
    command = [Path(__file__).with_name("steps.py"), "--config", path, "--data", data, "--steps", STEPS, "--out"]
    for ranks in (1, 2):
        (tmp_path / str(ranks)).mkdir()
        launch(ranks, *command, tmp_path / str(ranks))
    one, two = (torch.load(tmp_path / f"{ranks}/mwuf.pt") for ranks in (1, 2))
    assert one.keys() == two.keys()
    assert one["model/hooks.mwuf.present"].sum() > 5
    assert one["model/hooks.mwuf.common"].any()
    for key, value in one.items():
        tolerance = 1e-5 * value.abs().max() if value.is_floating_point() else 0
        assert (two[key].double() - value.double()).abs().max() <= tolerance, key
