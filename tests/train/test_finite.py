"""Runs that stop being finite: they end with the step and the name, and what checkpoints there are is sound."""

from dataclasses import replace

import pytest
import torch
from launch import launch
from tiny import sample_base

from coldrank.configs import base as arms
from coldrank.data.errors import UserError
from coldrank.train import checkpoint
from coldrank.train.finite import not_finite
from coldrank.train.recent import Recent
from coldrank.train.run import Run
from coldrank.train.trainer import train


@pytest.fixture
def config():
    config = arms.poso(sample_base())
    return replace(config, train=replace(config.train, steps=8, log_every=50, checkpoint_every=1))


def parameter(run, part):
    return next(x for n, x in run.model.state_dict().items() if part in n)


def row_of_table(run):
    for shard in parameter(run, "embedding_bags.item.weight").local_shards():
        shard.tensor[3, 1] = float("inf")


def moment(run):
    state = run.optimizers.all.state_dict()["state"]
    name = next(n for n in state if "ranker" in n)
    state[name]["exp_avg_sq"].view(-1)[0] = float("nan")


def any_weight(run):
    x = parameter(run, "ranker.")
    x.view(-1)[-1] = float("nan")


SPOILT = {
    "a weight": (any_weight, r"model\.ranker\.\S+"),
    "a row of a table": (row_of_table, r"model\.embeddings\.ebc\.embedding_bags\.item\.weight"),
    "a moment of the optimizer": (moment, r"optimizers\.state\.\S*ranker\.\S+\.exp_avg_sq"),
}


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(
            what,
            marks=pytest.mark.tried(
                "configs and runs",
                f"{what} that is NaN or infinite, a checkpoint at each step",
                "one line with step and name; no such checkpoint; the last sound ones stay",
            ),
        )
        for what in SPOILT
    ],
)
def test_a_checkpoint_that_is_not_finite_gets_no_name(data, ranks, config, tmp_path, monkeypatch, what):
    spoil, name = SPOILT[what]
    end, done = Run.end_step, []

    def end_step(run):
        end(run)
        done.append(1)
        if len(done) == 5:
            with torch.no_grad():
                spoil(run)

    monkeypatch.setattr(Run, "end_step", end_step)
    with pytest.raises(UserError, match=rf"^step 5: {name} is not finite; the last checkpoint is of step 4; try"):
        train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    assert checkpoint.steps(tmp_path / "run/checkpoints") == [3, 4]
    assert [p.name for p in (tmp_path / "run/checkpoints").glob("*5*")] == []
    monkeypatch.undo()
    train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    assert checkpoint.steps(tmp_path / "run/checkpoints") == [7, 8]


@pytest.mark.tried("configs and runs", "a loss that is NaN at step 5 of lines every 50 steps", "one line says step 5")
def test_a_loss_that_is_not_finite_is_named_by_its_step(data, ranks, config, tmp_path, monkeypatch):
    add, done = Recent.add, []

    def added(recent, loss, task_losses, samples):
        done.append(1)
        add(recent, loss * float("nan") if len(done) >= 5 else loss, task_losses, samples)

    monkeypatch.setattr(Recent, "add", added)
    config = replace(config, train=replace(config.train, checkpoint_every=3))
    with pytest.raises(UserError, match=r"^step 5: the loss is not finite; the last checkpoint is of step 3; try"):
        train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    assert checkpoint.steps(tmp_path / "run/checkpoints") == [3]


def test_no_checkpoint_at_all_is_said(data, ranks, config, tmp_path, monkeypatch):
    monkeypatch.setattr("coldrank.train.checkpoint.not_finite", lambda state: "model.x")
    with pytest.raises(UserError, match=r"^step 1: model.x is not finite; there is no checkpoint before it"):
        train(config, data, tmp_path / "run", ranks, fresh=False, diff="")


@pytest.mark.usefixtures("ranks")
def test_large_numbers_are_finite_though_their_sum_is_not():
    large = torch.full((3,), 3e38)
    assert not torch.isfinite(large.sum())
    assert not_finite({"model": {"a": large, "n": torch.tensor([1]), "none": torch.zeros(0)}}) is None
    both = torch.tensor([float("inf"), -float("inf"), 1.0])
    assert (
        not_finite({"model": {"a": large}, "optimizers": {"state": {"w": {"m": [both]}}}}) == "optimizers.state.w.m.0"
    )
    assert not_finite({"h": torch.tensor([6e4, 6e4], dtype=torch.float16)}) is None


ON_TWO = """
import torch
from coldrank.train.distributed.ranks import process_group
from coldrank.train.finite import not_finite
from coldrank.models.heads import Binary
from coldrank.train.recent import Recent

with process_group() as ranks:
    x = torch.ones(4)
    x[2] = float("nan") if ranks.rank == 1 else 1.0
    assert not_finite({"a": torch.ones(2), "shard": x}) == "shard"
    recent, loss = Recent({"like": Binary()}, ranks), torch.tensor(0.5)
    one = torch.ones(1)
    for step in range(1, 6):
        bad = step == (4 if ranks.rank == 1 else 5)
        recent.add(loss * float("inf") if bad else loss, (one, one), 8)
    assert recent.not_finite(105) == 104
"""


@pytest.mark.slow
@pytest.mark.tried("ranks", "NaN in one rank's shard, or in one rank's loss", "every rank stops, with the same line")
def test_what_one_rank_holds_every_rank_hears_of(tmp_path):
    (tmp_path / "two.py").write_text(ON_TWO)
    launch(2, tmp_path / "two.py")
