"""Models that read histories by parts of their own, on two gloo ranks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from launch import launch
from samples import write_samples
from tiny import sample_base, with_optim

from coldrank.models.din import DIN
from coldrank.models.gru4rec import GRU4Rec
from coldrank.train.config import to_dict
from coldrank.train.distributed.config import ShardingConfig

STEPS = 6
MODELS = {"gru4rec": GRU4Rec(state_dim=5), "din": DIN()}


@pytest.mark.slow
def test_two_ranks_learn_what_one_rank_learns(tmp_path):
    """Losses, tables, dense weights and optimizer states; the tolerance is that of test_two_ranks.py."""
    base = with_optim(sample_base(), tables={"init": 0.3})
    base = replace(base, sharding=ShardingConfig(default="row_wise"))
    for name, model in MODELS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(to_dict(replace(base, model=model))))
    data, configs = write_samples(tmp_path / "data"), [tmp_path / f"{name}.json" for name in MODELS]
    command = [Path(__file__).with_name("steps.py"), "--config", *configs, "--data", data, "--steps", STEPS]
    for ranks in (1, 2):
        (tmp_path / str(ranks)).mkdir()
        launch(ranks, *command, "--out", tmp_path / str(ranks))
    for name, part in {"gru4rec": "ranker.states.history", "din": "ranker.interests.history"}.items():
        one, two = (torch.load(tmp_path / f"{ranks}/{name}.pt") for ranks in (1, 2))
        assert one.keys() == two.keys() and any(part in key for key in one)
        assert len(one["loss"]) == STEPS and one["loss"][-1] != one["loss"][0]
        torch.testing.assert_close(two.pop("loss"), one.pop("loss"), rtol=1e-6, atol=0)
        for key, value in one.items():
            assert (two[key] - value).abs().max() <= 1e-5 * value.abs().max(), key
