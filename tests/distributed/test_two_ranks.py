"""Two gloo ranks on localhost, started as torchx starts them."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from launch import launch
from samples import write_samples
from tiny import sample_base, with_optim

from coldrank.cli.main import main
from coldrank.configs import base as arms
from coldrank.train.config import to_dict
from coldrank.train.distributed.config import ShardingConfig

STEPS = 8


@pytest.mark.slow
def test_two_ranks_train_and_score_every_row(tmp_path):
    """Histories un-pooled; what is exported gives the scores that training's evaluation gave."""
    data = write_samples(tmp_path / "data", {"train": 600, "valid": 100, "test": 300})
    config = tmp_path / "config.json"
    unpooled = ShardingConfig(default="row_wise", sequences="unpooled")
    config.write_text(json.dumps(to_dict(replace(sample_base(), sharding=unpooled))))
    out = tmp_path / "run"
    command = ["-m", "coldrank.train.main", "train", "--config", str(config)]
    launch(2, *command, "--data", str(data), "--out", str(out), "--set", "train.epochs=2")
    frame = pl.read_parquet(out / "predictions-test.parquet")
    truth = pl.read_parquet(data / "samples/split=test", hive_partitioning=False)
    keys = ["user_id", "item_id", "time"]
    assert frame.select(keys).equals(truth.select(keys).sort("time", "user_id", "item_id"))
    summary = json.loads((out / "summary.json").read_text())
    assert any(r["metric"] == "auc" and r["value"] is not None for r in summary)
    artifact, scores = tmp_path / "export", tmp_path / "scores.parquet"
    assert main(["export", "--run", str(out), "--out", str(artifact)]) == 0
    samples = next((data / "samples/split=test").rglob("*.parquet"))
    assert main(["score", "--artifact", str(artifact), "--input", str(samples), "--out", str(scores)]) == 0
    scored = pl.read_parquet(scores).sort(keys)
    probabilities = [c for c in frame.columns if c.startswith("prob_")]
    assert scored.select(keys).equals(frame.sort(keys).select(keys)) and probabilities
    given, wanted = (t.sort(keys).select(probabilities).to_numpy() for t in (scored, frame))
    assert given == pytest.approx(wanted, abs=1e-6) and len(set(wanted[:, 0])) > 250


# All but column_wise are to train as one rank does with whole tables. column_wise has a sum of row-wise Adagrad per row
# and column shard, so it is compared with itself: one rank holds both shards.
PLACES = {
    "table_wise": ShardingConfig(default="table_wise"),
    "row_wise": ShardingConfig(default="row_wise"),
    "column_wise": ShardingConfig(default="column_wise", column_width=4),
    "auto": ShardingConfig(replicate_up_to=512),
}
SHARDINGS = {
    **{name: replace(how, sequences="bags") for name, how in PLACES.items()},
    **{f"{name}, unpooled": replace(how, sequences="unpooled") for name, how in PLACES.items()},
    "data_parallel": ShardingConfig(default="data_parallel"),
}
ALONE = ("table_wise", "column_wise")
ARMS = ("base", "poso")
# Beside row-wise Adagrad, which all arms have.
OPTIMIZERS = ("adagrad", "sgd")


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RANKS/ARM-SHARDING.pt: what `steps.py` leaves."""
    folder = tmp_path_factory.mktemp("learnt")
    data = write_samples(folder / "data")
    for name, config in zip(ARMS, (sample_base(), arms.poso(sample_base())), strict=True):
        assert config.model.dropout == 0, "ranks draw their dropout for themselves"
        config = replace(config, model=replace(config.model, positions=True))
        for sharding, how in SHARDINGS.items():
            (folder / f"{name}-{sharding}.json").write_text(json.dumps(to_dict(replace(config, sharding=how))))
    for kind in OPTIMIZERS:
        config = replace(with_optim(arms.poso(sample_base()), tables={"kind": kind}), sharding=PLACES["row_wise"])
        (folder / f"{kind}.json").write_text(json.dumps(to_dict(config)))
    for ranks, shardings in ((1, ALONE), (2, tuple(SHARDINGS))):
        (folder / str(ranks)).mkdir()
        names = [f"{name}-{sharding}" for name in ARMS for sharding in shardings] + [*OPTIMIZERS]
        configs = [str(folder / f"{name}.json") for name in names]
        command = [str(Path(__file__).with_name("steps.py")), "--config", *configs, "--data", str(data)]
        launch(ranks, *command, "--out", str(folder / str(ranks)), "--steps", str(STEPS))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("arm", ARMS)
def test_two_ranks_learn_what_one_rank_learns(learnt, arm, sharding):
    """The same global batches, with unknown labels among them, give the same losses, weights and optimizer states.

    The optimizers' states are compared because Adagrad and Adam hardly feel the scale of a gradient: tables and dense
    parameters divided differently by the number of ranks would show there, as a factor of 2 or 4, not in the weights.

    Tolerance: after these steps the largest difference of a tensor was 9e-7 of its largest element (in Adam's moments,
    where gradients cancel; weights: 3e-7), and of a loss 1e-7. Ten times that leaves room for another order of sums.
    """
    alone = "column_wise" if sharding.startswith("column_wise") else "table_wise"
    one, two = (torch.load(learnt / f"{ranks}/{arm}-{how}.pt") for ranks, how in ((1, alone), (2, sharding)))
    assert any("momentum1" in key for key in one) and any("exp_avg_sq" in key for key in one)
    same(one, two)


@pytest.mark.slow
@pytest.mark.tried("ranks", "adagrad and sgd, in bags on one rank, un-pooled on two", "what one rank does, to rounding")
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_optimizer_of_the_tables_learns_the_same(learnt, kind):
    same(*(torch.load(learnt / f"{ranks}/{kind}.pt") for ranks in (1, 2)))


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert len(one["loss"]) == STEPS
    torch.testing.assert_close(two.pop("loss"), one.pop("loss"), rtol=1e-6, atol=0)
    for key, value in one.items():
        assert (two[key] - value).abs().max() <= 1e-5 * value.abs().max(), key
