"""Features of every kind on two gloo ranks."""

import json
from dataclasses import replace
from pathlib import Path

import kinds
import pytest
import torch
from launch import launch

from coldrank.train.config import RunConfig, to_dict

STEPS = 5


def row_wise() -> RunConfig:
    """Tables by rows, histories un-pooled where the plan finds it faster, and micro-batches."""
    config = kinds.poso()
    tables = {t.name: "row_wise" for t in config.tables}
    sharding = replace(config.sharding, tables=tables)
    return replace(config, name="row_wise", sharding=sharding, train=replace(config.train, accumulate=2))


@pytest.mark.slow
def test_two_ranks_learn_what_one_rank_learns(tmp_path):
    """Losses, tables, maps of vectors and optimizer states; the tolerance is that of test_two_ranks.py."""
    paths = [tmp_path / f"{config.name}.json" for config in (kinds.base(), row_wise())]
    for path, config in zip(paths, (kinds.base(), row_wise()), strict=True):
        path.write_text(json.dumps(to_dict(config)))
    data = kinds.prepared(tmp_path).path
    command = [Path(__file__).with_name("steps.py"), "--config", *paths, "--data", data, "--steps", STEPS, "--out"]
    for ranks in (1, 2):
        (tmp_path / str(ranks)).mkdir()
        launch(ranks, *command, tmp_path / str(ranks))
    for name in (path.stem for path in paths):
        one, two = (torch.load(tmp_path / f"{ranks}/{name}.pt") for ranks in (1, 2))
        assert one.keys() == two.keys() and any("projected.vectors.item_emb" in key for key in one)
        torch.testing.assert_close(two.pop("loss"), one.pop("loss"), rtol=1e-6, atol=0)
        for key, value in one.items():
            assert (two[key] - value).abs().max() <= 1e-5 * value.abs().max(), key
