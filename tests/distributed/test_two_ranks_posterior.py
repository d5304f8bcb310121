"""The posterior on two gloo ranks."""

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
from coldrank.train.hooks.posterior import Posterior

STEPS = 8


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["row_wise", "table_wise", "column_wise"])
def test_two_ranks_learn_what_one_rank_does(tmp_path, sharding):
    """Losses, tables with the means of cold items and users, what their events have told, and the priors."""
    base = growing()
    how = ShardingConfig(default=sharding, **({"column_width": 4} if sharding == "column_wise" else {}))
    posterior = Posterior(item_max_views=180, user="user_id", user_max_views=27, refresh=2, prior="mean")
    config = replace(base, hooks=(posterior,), sharding=how)
    path = tmp_path / "posterior.json"
    path.write_text(json.dumps(to_dict(config)))
    data = write_samples(tmp_path / "data")
    command = [Path(__file__).with_name("steps.py"), "--config", path, "--data", data, "--steps", STEPS, "--out"]
    for ranks in (1, 2):
        (tmp_path / str(ranks)).mkdir()
        launch(ranks, *command, tmp_path / str(ranks))
    one, two = (torch.load(tmp_path / f"{ranks}/posterior.pt") for ranks in (1, 2))
    assert one.keys() == two.keys()
    for role in ("item", "user"):
        assert one[f"model/hooks.posterior.ids.{role}.begun"].sum() > 3
        assert one[f"model/hooks.posterior.ids.{role}.precision"].any()
    for key, value in one.items():
        tolerance = 2e-5 * value.abs().max() if value.is_floating_point() else 0
        assert (two[key].double() - value.double()).abs().max() <= tolerance, key
