"""The loss of a training step with cold rows re-weighted."""

import pytest
import torch
from samples import write_samples
from tiny import sample_base

from coldrank.data.batches import BatchMaker, DataFolder
from coldrank.data.read import SampleReader
from coldrank.models.batch import Batch
from coldrank.models.encode import FeatureEncoder
from coldrank.models.model import Outputs
from coldrank.train.checks import validate
from coldrank.train.hooks.hook import HookModule
from coldrank.train.task import RankingTask

CONFIG = sample_base()


@pytest.fixture(scope="module")
def batch(tmp_path_factory) -> Batch:
    files = DataFolder.open(write_samples(tmp_path_factory.mktemp("data"))).files(("train",))
    make = BatchMaker(FeatureEncoder(validate(CONFIG)), CONFIG.tasks)
    return make(next(SampleReader(files, make.columns(), 50).epoch(0)))


def step(batch: Batch, **changes: float) -> tuple[Outputs, list[torch.Tensor]]:
    """Outputs and gradients of a fresh task."""
    torch.manual_seed(0)
    task = RankingTask(validate(CONFIG), CONFIG.model, CONFIG.tasks, **changes)
    outputs = task(batch)
    outputs.loss.backward()
    return outputs, [p.grad for p in task.parameters()]


def test_weight_1_is_the_plain_loss_bit_for_bit(batch):
    (plain, gradients), (weighted, others) = step(batch), step(batch, cold_weight=1.0, new_user_max_views=5)
    assert torch.equal(plain.loss, weighted.loss)
    assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))


def test_rows_of_new_users_weigh_more_up_to_the_threshold(batch):
    outputs, _ = step(batch, cold_weight=3.0, new_user_max_views=7)
    views = batch.keys["user_views"]
    assert (views == 7).any() and (views == 8).any(), "rows on both sides of the threshold"
    total = 0.0
    for b in range(len(batch)):
        for t in range(len(CONFIG.tasks)):
            if not torch.isnan(batch.labels[b, t]):
                p = torch.sigmoid(outputs.logits[b, t])
                weight = 3.0 if views[b] <= 7 else 1.0
                total -= (
                    list(CONFIG.tasks.values())[t].weight
                    * weight
                    * torch.log(p if batch.labels[b, t] else 1 - p).item()
                )
    assert outputs.loss.item() == pytest.approx(total / len(batch), rel=1e-5)
    for mine, plain in zip(outputs.task_losses, step(batch)[0].task_losses, strict=True):
        assert torch.equal(mine, plain)


def test_weight_0_leaves_new_users_out(batch):
    _, gradients = step(batch, cold_weight=0.0, new_user_max_views=7)
    other = batch.labels.clone()
    other[batch.keys["user_views"] <= 7] = float("nan")
    _, expected = step(Batch(batch.sparse, batch.dense, batch.sequence_lengths, other, batch.keys))
    for mine, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


class Misspelt(HookModule):
    """Gives what no model reads."""

    def embed(self, batch, embedded):
        return embedded | {"item_idd": embedded["item_id"]}


class Forgetful(HookModule):
    """Leaves a feature out."""

    def embed(self, batch, embedded):
        return {name: values for name, values in embedded.items() if name != "item_id"}


@pytest.mark.parametrize(("hook", "feature"), [(Misspelt, "item_idd"), (Forgetful, "item_id")])
def test_a_hook_gives_the_features_that_it_was_given(batch, hook, feature):
    task = RankingTask(validate(CONFIG), CONFIG.model, CONFIG.tasks, hooks={"odd": hook()})
    with pytest.raises(ValueError, match=f"{hook.__name__}.embed: '{feature}'"):
        task(batch)
