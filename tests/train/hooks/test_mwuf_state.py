"""What MWUF remembers: of which items, views and users; what it holds still on a frozen model."""

from dataclasses import replace

import pytest
import torch
from test_mwuf_hook import BELOW, some_batches, step, with_mwuf
from tiny import growing

from coldrank.configs import base as arms
from coldrank.train.hooks.mwuf import Views
from coldrank.train.hooks.rows import TableRows
from coldrank.train.ids.dynamic import NewRows
from coldrank.train.stepping import Taken


def test_views_are_those_of_the_last_event_and_itself(fitted):
    run = fitted(with_mwuf(common_init=False))
    (hook,) = run.hooks
    most: dict[int, int] = {}
    for number, batch in enumerate(some_batches(run, 2)):
        step(run, batch, number)
        for item, views in zip(batch.keys["item_id"].tolist(), batch.keys["item_views"].tolist(), strict=True):
            most[item] = max(most.get(item, 0), views + 1)
    assert {int(i): int(hook.views[i]) for i in hook.views.nonzero()} == most


@pytest.mark.tried(
    "hooks", "mwuf: two users at one moment of an item", "the one with the larger id is kept, whoever is read first"
)
@pytest.mark.parametrize("turned", [False, True])
def test_of_one_place_the_user_with_the_largest_id_has_it(fitted, turned):
    run = fitted(with_mwuf())
    (hook,) = run.hooks
    order = [2, 1, 0] if turned else [0, 1, 2]
    rows, views, ids = (torch.tensor(x)[order] for x in ([7, 7, 7], [3, 3, 4], [30, 20, 10]))
    hook._seen = Views(rows, views, ids, ids.float().unsqueeze(1).expand(-1, 4))
    hook.after_step(run)
    assert hook.users[7, :6, 0].tolist() == [0, 0, 0, 30, 10, 0]
    assert hook.present[7, :6].tolist() == [False, False, False, True, True, False] and int(hook.views[7]) == 5


@pytest.mark.tried(
    "hooks", "mwuf: a managed table gives an item's row to another", "the other begins without users and views"
)
def test_a_row_that_passes_to_another_item_remembers_nobody(fitted):
    run = fitted(with_mwuf(growing(), common_init=False))
    (hook,) = run.hooks
    hook.views[:], hook.present[:] = 9, True
    (batch,) = some_batches(run, 1)
    hook.before_step(run, Taken(batch, 0, 1, {"item": NewRows(10, 0, torch.tensor([3, 5]))}))
    assert (~hook.present).any(1).nonzero().squeeze(1).tolist() == [3, 5]
    assert (hook.views == 0).nonzero().squeeze(1).tolist() == [3, 5]


def test_the_mean_is_of_old_items_and_taken_every_so_many_steps(fitted):
    """Not of row 0, which all unknown items share."""
    run = fitted(with_mwuf(growing(), refresh=3))
    (hook,) = run.hooks
    batches = some_batches(run, 5)
    table = TableRows(run.model, "item").parts[0][0]
    found = []
    for number, batch in enumerate(batches):
        taken = Taken(batch, 0, number + 1, run.dynamic_ids(batch))
        hook.views[0] = 10 * BELOW
        table[0] = 1e3
        old = (hook.views >= BELOW).nonzero().squeeze(1)
        mean = table[old[old > 0]].mean(0)
        run.begin_step(taken, number, 10)
        if number in (0, 3):  # steps of which the third is a multiple; at the first no item is known
            assert number == 0 or torch.allclose(hook.common, mean, atol=1e-6)
        found.append(hook.common.clone())
        run.model(batch).loss.backward()
        run.end_step()
    assert not found[0].any() and not found[2].any()
    assert found[3].any() and torch.equal(found[3], found[4])


def test_on_a_frozen_model_the_ids_of_cold_items_alone_have_a_gradient(fitted):
    base = arms.poso(growing())
    run = fitted(with_mwuf(base, mode="warm_up", train_fields={"warm_start": "of another run"}))
    (hook,) = run.hooks
    task, (batch,) = run.model.module, some_batches(run, 1)
    given = {name: x.detach().requires_grad_() for name, x in task.embeddings(batch).items()}
    seen = hook.embed(batch, given)
    assert all(torch.equal(seen[name], x) for name, x in given.items())
    (gradient,) = torch.autograd.grad(seen["item_id"].sum(), given["item_id"])
    cold = (batch.keys["item_views"] < BELOW).float().unsqueeze(1)
    assert 0 < cold.sum() < len(batch)
    assert torch.equal(gradient, cold.expand(-1, 8))
    assert not any(x.requires_grad for name, x in seen.items() if name != "item_id")


def test_on_a_frozen_model_no_other_rate_is_above_0(fitted):
    base = replace(arms.poso(growing()), hooks=())
    run = fitted(with_mwuf(base, mode="warm_up", train_fields={"warm_start": "of another run"}))
    (hook,) = run.hooks
    run.hooks[0].views[:] = 1
    (batch,) = some_batches(run, 1)
    run.optimizers.begin_step(1, 10)
    hook.before_step(run, Taken(batch, 0, 2))
    rates = {part.what: {group["lr"] for group in part.optimizer.param_groups} for part in run.optimizers.parts}
    assert len(rates) >= 4
    assert {what for what, lrs in rates.items() if lrs != {0.0}} == {"tables", "hook mwuf"}
