"""Two towers and PAM on two gloo ranks: read un-pooled, histories train as in bags."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from launch import launch
from retrieving import PAM, with_events
from samples import write_samples
from tiny import growing

from coldrank.configs import base as arms
from coldrank.models.features import Table
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.distributed.config import Sequences, ShardingConfig
from coldrank.train.hooks.metacf import MetaCF
from coldrank.train.hooks.pam import Pam

STEPS = 4
WAYS: tuple[Sequences, ...] = ("bags", "unpooled")


def cases() -> dict[str, RunConfig]:
    """Whose losses compare the rows of a rank: both ways are given the same rows on each."""
    towers = with_events()
    users = Table(name="user", rows=64, dim=8, mapping="vocabulary")
    towers = replace(towers, tables=tuple(users if t.name == "user" else t for t in towers.tables))
    metacf = MetaCF(items="events", max_views=100, steps=2)
    return {
        "towers": replace(towers, hooks=(metacf,)),
        "towers, PAM": replace(towers, hooks=(replace(PAM, gamma=(1.0, 3.0, 2.0)), metacf)),
        "ranker, PAM": replace(arms.poso(growing(64)), hooks=(Pam(cuts=(20, 60, 120, 500), rate=0.1),)),
    }


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CASE-WAY.pt: what `steps.py` leaves on two ranks."""
    folder = tmp_path_factory.mktemp("learnt")
    data, paths = write_samples(folder / "data"), []
    for name, config in cases().items():
        for way in WAYS:
            paths.append(folder / f"{name}-{way}.json")
            asked = replace(config, sharding=ShardingConfig(default="row_wise", sequences=way))
            paths[-1].write_text(json.dumps(to_dict(asked)))
    command = [Path(__file__).with_name("steps.py"), "--config", *paths, "--data", data, "--steps", STEPS]
    launch(2, *command, "--out", folder)
    return folder


@pytest.mark.slow
@pytest.mark.tried(
    "ranks", "retrieval and PAM, histories un-pooled, two ranks", "losses, weights, optimizers of bags, to rounding"
)
@pytest.mark.parametrize("case", cases())
def test_unpooled_learns_what_bags_learn(learnt, case):
    bags, unpooled = (torch.load(learnt / f"{case}-{way}.pt") for way in WAYS)
    assert bags.keys() == unpooled.keys() and any("momentum1" in key for key in bags)
    assert len(set(bags["loss"].tolist())) == STEPS
    torch.testing.assert_close(unpooled.pop("loss"), bags.pop("loss"), rtol=1e-6, atol=0)
    for key, value in bags.items():
        tolerance = 1e-5 * value.abs().max() if value.is_floating_point() else 0
        assert (unpooled[key].double() - value.double()).abs().max() <= tolerance, key
