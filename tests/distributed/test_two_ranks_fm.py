"""The factorization machine on two gloo ranks, whose tables are of element-wise Adagrad."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from launch import launch
from samples import write_samples
from tiny import sample_base, with_optim

from coldrank.models.fm import FM
from coldrank.train.config import to_dict
from coldrank.train.distributed.config import ShardingConfig

STEPS = 6


@pytest.mark.slow
def test_two_ranks_learn_what_one_rank_learns(tmp_path):
    """Losses, tables, the rows of numbers and optimizer states; the tolerance is that of test_two_ranks.py."""
    base = sample_base()
    features = tuple(replace(f, dim=8 if f.dim else 0) for f in base.features)
    machine = replace(base, features=features, tables=tuple(replace(t, dim=8) for t in base.tables), model=FM())
    machine = with_optim(machine, tables={"kind": "adagrad", "init": 0.3})
    (tmp_path / "fm.json").write_text(
        json.dumps(to_dict(replace(machine, sharding=ShardingConfig(default="row_wise"))))
    )
    data = write_samples(tmp_path / "data")
    command = [Path(__file__).with_name("steps.py"), "--config", tmp_path / "fm.json", "--data", data, "--steps", STEPS]
    for ranks in (1, 2):
        (tmp_path / str(ranks)).mkdir()
        launch(ranks, *command, "--out", tmp_path / str(ranks))
    one, two = (torch.load(tmp_path / f"{ranks}/fm.pt") for ranks in (1, 2))
    assert one.keys() == two.keys() and any("ranker.numbers" in key for key in one)
    assert len(one["loss"]) == STEPS and one["loss"][-1] != one["loss"][0]
    torch.testing.assert_close(two.pop("loss"), one.pop("loss"), rtol=1e-6, atol=0)
    for key, value in one.items():
        assert (two[key] - value).abs().max() <= 1e-5 * value.abs().max(), key
