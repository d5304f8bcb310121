"""The in-batch softmax over items, and its correction by the items' frequency, against the equations of Yi et al."""

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from retrieving import PAM, two_tower
from torch import Tensor
from torch.nn import functional as F

from coldrank.data.errors import UserError
from coldrank.models.item_frequency import ItemFrequency
from coldrank.models.two_tower import TwoTower, TwoTowerModule
from coldrank.train.checks import validate

CORRECTED = TwoTower(candidates="items", log_q=True, log_q_decay=0.9, log_q_buckets=1 << 16)


def module(config: TwoTower) -> TwoTowerModule:
    built = config.build(validate(replace(two_tower(), model=config)), 1)
    return built.double()


def batch_of(items: Tensor, labels: Tensor) -> SimpleNamespace:
    return SimpleNamespace(keys={"item_id": items}, labels=labels.unsqueeze(1), sizes=())


@pytest.mark.parametrize("log_q", [True, False])
def test_the_loss_is_that_of_the_equation(log_q: bool) -> None:
    model = module(CORRECTED if log_q else TwoTower(candidates="items"))
    torch.manual_seed(0)
    user, item = (F.normalize(torch.randn(6, 4, dtype=torch.float64), dim=1).requires_grad_() for _ in range(2))
    ids, labels = torch.tensor([7, 3, 7, 9, 3, 2]), torch.tensor([1.0, 1.0, 0.0, math.nan, 1.0, 1.0]).double()
    batch = batch_of(ids, labels)
    model.sees(batch)
    found = model._over_items(user, item, batch)
    share = {i: n / 6 for i, n in Counter(ids.tolist()).items()}
    wanted = []
    for row in range(6):
        corrected = {
            j: user[row] @ item[j] / 0.07 - (math.log(share[int(ids[j])]) if log_q else 0)  # Eq. 4's s^c
            for j in range(6)
            if j == row or ids[j] != ids[row]
        }
        log_p = corrected[row] - torch.logsumexp(torch.stack(list(corrected.values())), 0)
        wanted.append(-log_p if labels[row] == 1 else torch.zeros((), dtype=torch.float64))  # Eq. 5
    # float32 holds the frequencies.
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-6, atol=1e-6)
    gradients = (torch.autograd.grad(x.sum(), (user, item)) for x in (found, torch.stack(wanted)))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_frequencies_are_decayed_shares_of_the_rows() -> None:
    frequency, rng = ItemFrequency(1 << 16, 0.8), np.random.default_rng(0)
    batches = [torch.from_numpy(rng.zipf(1.5, size) * 10**15) for size in (5, 9, 0, 12, 3)]
    for batch in batches:
        frequency.see(batch, ())
    weights = 0.8 ** np.arange(len(batches))[::-1]
    total = sum(w * len(b) for w, b in zip(weights, batches, strict=True))
    last = batches[-1]
    counts = [sum(w * int((b == i).sum()) for w, b in zip(weights, batches, strict=True)) for i in last]
    wanted = torch.tensor([math.log(count / total) for count in counts])
    torch.testing.assert_close(frequency.log_share(last), wanted)
    # One that was never seen, as if it had been just now.
    assert frequency.log_share(torch.tensor([-4])).item() == pytest.approx(-math.log(total))


def test_ids_of_all_kinds_have_buckets_of_their_own() -> None:
    ids = torch.cat([torch.arange(1000), torch.arange(1000) * 2**40, -torch.arange(1, 1000)])
    buckets = ItemFrequency(1 << 20, 0.5)._bucket(ids)
    assert buckets.min() >= 0 and buckets.max() < 1 << 20 and len(buckets.unique()) > 0.99 * len(ids.unique())


@pytest.mark.parametrize("seed", range(2))
def test_the_correction_lifts_popular_items_and_recall(seed: int) -> None:
    """Users of 8 tastes meet items of theirs by popularity: what the batch's own draw takes from popular items, the
    correction gives back."""
    rng, popularity = np.random.default_rng(seed), 1 / np.arange(1, 65)
    found = {}
    for log_q in (True, False):
        config = TwoTower(candidates="items", log_q=log_q, temperature=0.2)
        config = replace(config, log_q_decay=0.99) if log_q else config
        model = module(config)
        torch.manual_seed(seed)
        users, items = torch.nn.Embedding(8, 16).double(), torch.nn.Embedding(64, 16).double()
        optimizer = torch.optim.Adam([*users.parameters(), *items.parameters()], 0.05)
        chance = np.stack([popularity * np.where(np.arange(64) % 8 == taste, 20, 1) for taste in range(8)])
        chance /= chance.sum(1, keepdims=True)
        rng = np.random.default_rng(seed)
        for _ in range(250):
            taste = rng.integers(0, 8, 64)
            item = torch.from_numpy((chance[taste].cumsum(1) < rng.random((64, 1))).sum(1))
            batch = batch_of(item, torch.ones(64).double())
            model.sees(batch)
            asking, wanted = F.normalize(users(torch.from_numpy(taste)), dim=1), F.normalize(items(item), dim=1)
            optimizer.zero_grad()
            model._over_items(asking, wanted, batch).mean().backward()
            optimizer.step()
        scores = F.normalize(users.weight, dim=1) @ F.normalize(items.weight, dim=1).T
        top = scores.topk(5, 1).indices.numpy()
        # Of what users meet next, the share that is among the first five; and of the unpopular half of the items.
        hit = np.zeros((8, 64))
        np.put_along_axis(hit, top, 1, 1)
        rare = np.arange(64) >= 32
        found[log_q] = (hit * chance).sum() / 8, (hit * chance)[:, rare].sum() / chance[:, rare].sum()
    assert found[True][0] > found[False][0] + 0.02
    assert found[True][1] < found[False][1]


def test_settings_without_an_effect_are_refused() -> None:
    base = two_tower()
    for model, said in (
        (TwoTower(log_q=True), "model.log_q=True: has no effect with model.candidates='users'"),
        (TwoTower(candidates="items", log_q_decay=0.5), "model.log_q_decay=0.5: has no effect with model.log_q=False"),
        (TwoTower(candidates="items", same_user=False), "model.same_user=False: has no effect with model.candidates"),
    ):
        with pytest.raises(UserError, match=said):
            validate(replace(base, model=model))
    validate(replace(base, model=CORRECTED))


@pytest.mark.tried("hooks", "pam on a two-tower model with candidates=items", "refused: it has a loss over users")
def test_pam_is_refused() -> None:
    with pytest.raises(UserError, match="model.candidates='items': 'pam' has a softmax over users"):
        validate(replace(two_tower(), model=CORRECTED, hooks=(PAM,)))
