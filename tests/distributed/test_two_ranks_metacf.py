"""MetaCF on two gloo ranks, alone and before MWUF."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from launch import launch
from samples import write_samples
from tiny import sample_base

from coldrank.models.features import Table
from coldrank.train.config import to_dict
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.hooks.metacf import MetaCF
from coldrank.train.hooks.mwuf import Mwuf

STEPS = 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "hooks"), [("general", ("metacf",)), ("neural", ("metacf",)), ("neural", ("metacf", "mwuf"))]
)
def test_two_ranks_learn_what_one_rank_learns(tmp_path, learner, hooks):
    """Losses, tables, learner, rates and optimizer states; the tolerance is that of test_two_ranks.py."""
    base = sample_base()
    tables = tuple(
        Table(name="user", rows=64, dim=8, mapping="vocabulary") if t.name == "user" else t for t in base.tables
    )
    metacf = MetaCF(max_views=14, learner=learner)
    mwuf = Mwuf(max_views=59, users=8, refresh=2)
    by_name = {"metacf": metacf, "mwuf": mwuf}
    config = replace(base, tables=tables, hooks=tuple(by_name[name] for name in hooks))
    config = replace(config, sharding=ShardingConfig(default="row_wise"))
    path = tmp_path / "metacf.json"
    path.write_text(json.dumps(to_dict(config)))
    data = write_samples(tmp_path / "data")
    command = [Path(__file__).with_name("steps.py"), "--config", path, "--data", data, "--steps", STEPS, "--out"]
    for ranks in (1, 2):
        (tmp_path / str(ranks)).mkdir()
        launch(ranks, *command, tmp_path / str(ranks))
    one, two = (torch.load(tmp_path / f"{ranks}/metacf.pt") for ranks in (1, 2))
    assert one.keys() == two.keys() and any("metacf.learner" in key for key in one)
    torch.testing.assert_close(two.pop("loss"), one.pop("loss"), rtol=1e-6, atol=0)
    for key, value in one.items():
        tolerance = 1e-5 * value.abs().max() if value.is_floating_point() else 0
        assert (two[key].double() - value.double()).abs().max() <= tolerance, key
