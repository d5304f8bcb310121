"""PAM's inner and outer updates on two gloo ranks equal those of one process that holds both halves of the batch."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from launch import launch
from retrieving import two_tower
from samples import write_samples

from coldrank.train.config import to_dict
from coldrank.train.hooks.pam import Pam

KINDS = {
    "rank": {"across": "rank", "rate": 0.2, "serve_decay": 0.5},
    "ranks": {"across": "ranks", "rate": 0.2, "serve_decay": 0.5},
    "group": {"across": "ranks", "rate": 0.2, "query_average": "group"},
    "own": {"steps": 0, "support": 0.0, "own": True},
}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learnt")
    data = write_samples(folder / "data")
    for kind, settings in KINDS.items():
        pam = Pam(cuts=(20, 60, 120, 500), **settings)
        config = two_tower()
        tables = tuple(replace(t, mapping="hash") for t in config.tables)
        config = replace(config, hooks=(pam,), tables=tables)
        (folder / f"{kind}.json").write_text(json.dumps(to_dict(config)))
    configs = [str(folder / f"{kind}.json") for kind in KINDS]
    for ranks in (1, 2):
        (folder / str(ranks)).mkdir()
        command = [str(Path(__file__).with_name("pam_step.py")), "--config", *configs, "--data", str(data)]
        launch(ranks, *command, "--out", str(folder / str(ranks)))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_adapt_and_learn_as_the_reference(learnt, kind):
    """Weights, those that groups have of their own, rates, tables, optimizer states and the weights that serve.

    Tolerance: the largest difference was 4e-5 of a tensor's largest element, in a table, whose optimizer scales up
    gradients near zero; a temperature of 0.07 makes second derivatives large.
    """
    one, two = (torch.load(learnt / f"{ranks}/{kind}.pt") for ranks in (1, 2))
    assert one.keys() == two.keys() and any("shift" in key for key in one)
    assert kind != "own" or any("own_towers" in key and value.any() for key, value in one.items())
    torch.testing.assert_close(two.pop("loss"), one.pop("loss"), rtol=2e-6, atol=0)
    for key, value in one.items():
        assert (two[key] - value).abs().max() <= 1e-4 * value.abs().max() + 1e-12, key


@pytest.mark.slow
def test_adapting_together_is_another_update(learnt):
    alone, together = (torch.load(learnt / f"2/{across}.pt")["loss"] for across in ("rank", "ranks"))
    assert not torch.equal(alone, together)
