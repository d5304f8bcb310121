"""The two-tower model against its equations, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from retrieving import two_tower
from samples import write_samples

from coldrank.data.batches import BatchMaker, DataFolder
from coldrank.data.errors import UserError
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader
from coldrank.models.encode import FeatureEncoder
from coldrank.models.features import Feature
from coldrank.models.heads import Binary
from coldrank.models.two_tower import Tower
from coldrank.modules.contrast import log_share, share_loss
from coldrank.train.checks import validate
from coldrank.train.task import RankingTask


@pytest.fixture(scope="module")
def batch_and_task(tmp_path_factory):
    config = two_tower()
    data = DataFolder.open(write_samples(tmp_path_factory.mktemp("data")))
    features = validate(config)
    encoder = FeatureEncoder(features)
    fit_encoder(encoder, data.files(("train",)))
    make = BatchMaker(encoder, config.tasks)
    reader = SampleReader(data.files(("train",)), make.columns(), 32)
    torch.manual_seed(0)
    task = RankingTask(features, config.model, config.tasks)
    return make(next(reader.epoch(0))), task


def test_scores_and_loss_are_those_of_the_equations(batch_and_task):
    batch, task = batch_and_task
    out = task(batch)
    of = task.embeddings(batch)
    sides = {
        "user": torch.cat([of["user_id"], of["hist_item_id"], batch.dense], 1),
        "item": torch.cat([of["item_id"], of["item_tags"]], 1),
    }
    vectors = {}
    for side, x in sides.items():
        w = dict(task.ranker.towers[side].named_parameters())
        hidden = torch.relu(x @ w["layers.0.weight"].T + w["layers.0.bias"])
        top = hidden @ w["layers.1.weight"].T + w["layers.1.bias"]
        vectors[side] = top / top.norm(dim=1, keepdim=True)
    share = torch.softmax(vectors["item"] @ vectors["user"].T / 0.07, 1).diagonal()  # Eq. 6
    y = batch.labels[:, 0]
    loss = -(y * share.log() + (1 - y) * (1 - share).log())  # Eq. 7
    torch.testing.assert_close(out.loss, loss.mean())
    torch.testing.assert_close(out.logits[:, 0], (vectors["item"] * vectors["user"]).sum(1) / 0.07)
    torch.testing.assert_close(task.ranker(of, batch), out.logits)
    torch.testing.assert_close(out.vectors.users[0], vectors["user"])
    torch.testing.assert_close(out.vectors.item, vectors["item"])
    assert out.task_losses[1].item() == len(batch)


@pytest.mark.parametrize("all_count", [True, False])
@pytest.mark.parametrize("chunk", [1, 20, 1 << 17])
def test_shares_and_their_gradients_are_those_of_the_equation(all_count, chunk, monkeypatch):
    monkeypatch.setattr("coldrank.modules.contrast._CHUNK", chunk)
    monkeypatch.setattr("coldrank.modules.contrast._KEPT", 1 << 22 if chunk > 1 else 0)
    torch.manual_seed(1)
    users, items = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (6, 4))
    own, ids = torch.tensor([2, 0, 5, 3]), torch.tensor([3, 5, 3, 7, 3, 5])

    def share(items, users):
        return log_share(items, users, own, None if all_count else ids)

    def naive(row):  # Eq. 6
        place = int(own[row])
        candidates = [u for u in range(6) if u == place or all_count or ids[u] != ids[place]]
        scores = torch.stack([users[u] @ items[row] for u in candidates])
        return torch.log(scores[candidates.index(place)].exp() / scores.exp().sum())

    expected = torch.stack([naive(row) for row in range(4)])
    torch.testing.assert_close(share(items, users), expected)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    wanted = torch.autograd.grad((weights * expected).sum(), (items, users))
    torch.testing.assert_close(torch.autograd.grad((weights * share(items, users)).sum(), (items, users)), wanted)
    assert torch.autograd.gradcheck(share, (items, users))
    assert torch.autograd.gradgradcheck(share, (items, users))


def test_shares_of_tasks_are_those_of_each():
    torch.manual_seed(1)
    users, items = torch.randn(3, 6, 2, dtype=torch.float64), torch.randn(3, 4, 2, dtype=torch.float64)
    users.requires_grad_(), items.requires_grad_()
    own, ids, counts = torch.tensor([2, 0, 5, 3, 1]), torch.tensor([3, 5, 3, 7, 3, 5]), [1, 0, 4]
    share = lambda items, users: log_share(items, users, own, ids, counts)
    alone = [
        log_share(items[0, :1], users[0], own[:1], ids),
        log_share(items[2], users[2], own[1:], ids),
    ]
    torch.testing.assert_close(share(items, users), torch.cat(alone))
    assert torch.autograd.gradcheck(share, (items, users))
    assert torch.autograd.gradgradcheck(share, (items, users))


def test_unknown_labels_cost_nothing_and_certain_shares_no_infinity():
    log_p = torch.tensor([-1.0, -2.0, 0.0], requires_grad=True)
    loss = share_loss(log_p, torch.tensor([1.0, float("nan"), 0.0]))
    assert loss[0] == 1 and loss[1] == 0 and loss[2].item() == pytest.approx(-np.log(1e-7), rel=0.1)
    loss.sum().backward()
    assert log_p.grad[1] == 0 and torch.isfinite(log_p.grad).all()


def test_stacked_weights_are_the_weights_one_by_one():
    torch.manual_seed(2)
    towers = [Tower(5, (4, 3)) for _ in range(3)]
    stacked = {n: torch.stack([dict(t.named_parameters())[n] for t in towers]) for n, _ in towers[0].named_parameters()}
    x = torch.randn(7, 5)
    together = towers[0](x, stacked)
    for n, tower in enumerate(towers):
        torch.testing.assert_close(together[n], tower(x))


def test_what_the_towers_do_not_read_is_refused():
    config = two_tower()
    with pytest.raises(UserError, match="learns one task"):
        validate(replace(config, tasks={"long_view": Binary(), "like": Binary()}))
    with pytest.raises(UserError, match="item's tower"):
        validate(replace(config, features=tuple(f for f in config.features if f.role != "item")))
    sequence = Feature(
        name="hist", column="hist_item_id", role="sequence", kind="id", table="item", sequence="h", length=3
    )
    with pytest.raises(UserError, match="many=True"):
        validate(replace(config, features=(*config.features, sequence)))


def test_an_item_s_columns_are_named(batch_and_task):
    _, task = batch_and_task
    assert task.ranker.item_columns == {"item_id": slice(0, 8), "item_tags": slice(8, 20)}
