"""Tasks of every kind on two gloo ranks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from launch import launch
from valued import valued_base, write_valued

from coldrank.train.config import RunConfig, to_dict

STEPS = 6


def weighted() -> RunConfig:
    """Samples weigh by a column, those of new users twice that."""
    base = valued_base()
    return replace(base, cold_weight=2.0, data=replace(base.data, weight_column="weight"))


@pytest.mark.slow
@pytest.mark.parametrize("make", [valued_base, weighted])
def test_two_ranks_learn_what_one_rank_learns(make, tmp_path):
    """Losses, tables, thresholds and optimizer states; the tolerance is that of test_two_ranks.py."""
    path = tmp_path / "heads.json"
    path.write_text(json.dumps(to_dict(make())))
    data = write_valued(tmp_path / "data")
    command = [Path(__file__).with_name("steps.py"), "--config", path, "--data", data, "--steps", STEPS, "--out"]
    for ranks in (1, 2):
        (tmp_path / str(ranks)).mkdir()
        launch(ranks, *command, tmp_path / str(ranks))
    one, two = (torch.load(tmp_path / f"{ranks}/heads.pt") for ranks in (1, 2))
    assert one.keys() == two.keys() and any("label_stars.gaps" in key for key in one)
    torch.testing.assert_close(two.pop("loss"), one.pop("loss"), rtol=1e-6, atol=0)
    for key, value in one.items():
        assert (two[key] - value).abs().max() <= 1e-5 * value.abs().max(), key
