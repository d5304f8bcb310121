"""Replicas of the tables on four gloo ranks, in two groups: TorchRec's DMPCollection, its GPU parts stood in for."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from halves import STEPS, expected, is_sharded, replicated
from launch import launch
from steps import gathered

from coldrank.train import checkpoint
from coldrank.train.config import to_dict
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.evaluate import predict
from coldrank.train.run import build
from coldrank.train.trainer import train

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).parent / "replicas.py"


@pytest.fixture(scope="module")
def out(data, tmp_path_factory) -> Path:
    """What four ranks have made in two groups: averaged every step, and every second one."""
    out = tmp_path_factory.mktemp("replicas")
    for every in (1, 2):
        (out / f"{every}.json").write_text(json.dumps(to_dict(replicated(every))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONOPTIMIZE", "1")
        files = [out / "1.json", out / "2.json"]
        launch(4, PROGRAM, "--config", *files, "--data", data.path, "--out", out, "--steps", STEPS)
    return out


@pytest.mark.parametrize("every", [1, 2])
def test_trains_as_the_mean_of_groups(out, data, ranks, every):
    found, wanted = torch.load(out / f"{every}.pt"), expected(data, ranks, every)
    assert found.keys() == wanted.keys() and any(map(is_sharded, wanted))
    torch.testing.assert_close(found["loss"], wanted["loss"], rtol=1e-6, atol=0)
    for path, value in wanted.items():
        assert (found[path] - value).abs().max() <= 2e-6 * value.abs().max(), path


@pytest.mark.tried("ranks", "a run in 2 replicas, begun with the weights of another", "each has all of them")
def test_replicas_begin_with_the_weights_of_a_run(out, data, ranks):
    """`gathered` has seen to it that both groups hold the same."""
    begun = torch.load(out / "warm.pt")
    run = build(replace(replicated(), sharding=ShardingConfig()), data, ranks)
    first = {name: value.clone() for name, value in gathered(run.state, ranks).items()}
    run.load(out / "run/checkpoints", {})
    wanted = gathered(run.state, ranks)
    weights = [name for name in wanted if name.startswith("model/")]
    assert begun.pop("left") == 0 and any("embedding_bags" in name for name in weights)
    for name in weights:
        assert torch.equal(begun[name], wanted[name]), name
    assert any(not torch.equal(first[name], wanted[name]) for name in weights)
    sums = [name for name in wanted if "momentum1" in name]
    assert sums and not any(begun[name].any() for name in sums)  # weights alone


@pytest.mark.tried("ranks", "a run in 4 replicas, then 2, at one rank without", "is scored alike, and goes on")
def test_a_run_is_scored_and_goes_on_without_replicas(out, data, ranks):
    alone = replace(replicated(), sharding=ShardingConfig())
    run = build(alone, data, ranks)
    assert checkpoint.steps(out / "run/checkpoints")[-1] == 5
    run.load(out / "run/checkpoints", {})
    scores = predict(run, "test")
    assert scores is not None
    theirs = pl.read_parquet(out / "run/predictions-test.parquet")
    found, wanted = (frame["prob_long_view"].to_torch() for frame in (scores, theirs))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)
    piped = pl.read_parquet(out / "piped/predictions-test.parquet")
    assert piped.equals(theirs)
    longer = replace(alone, train=replace(alone.train, steps=7))
    assert train(longer, data, out / "run", ranks, fresh=False, diff="")
    assert json.loads((out / "run/run.json").read_text())["steps"] == 7
