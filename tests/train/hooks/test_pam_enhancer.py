"""PAM's enhancer against the paper's equations: losses, what they train, and the store. In float64."""

from dataclasses import replace

import pytest
import torch
from retrieving import with_pam as config
from test_pam import batch_and_task, naive
from torch.func import functional_call

from coldrank.train.ids.dynamic import NewRows
from coldrank.train.stepping import Taken

INNER = [{}, {"second_order": False}, {"steps": 0, "support": 0.0}, {"candidates": "set"}]
TRAINS = ["all", "towers"]


def enhanced(folder, gamma, **pam):
    """A batch and a model whose store holds something of most items."""
    batch, task, hook = batch_and_task(folder, config(gamma=gamma, **pam))
    hook.enhancer.store.normal_()
    hook.enhancer.kept[:] = torch.rand(len(hook.enhancer.kept)) < 0.7
    hook.enhancer.kept[0] = True  # in a growing table all items without a row of their own: no item's
    batch.sparse["item_id"].values()[batch.keys["item_views"] % 11 == 0] = 0
    return batch, task, hook


def dressed_sides(batch, task, hook):
    """User and dressed item of every row (Eq. 12): behaviour as it was kept, content as it is now, with its gradients;
    and the item as it is."""
    sides = task.ranker.sides(task.embeddings(batch), batch.dense)
    items = batch.sparse["item_id"].values()
    dressed = torch.cat([hook.enhancer.store[items], sides.item[:, 8:]], 1)
    if hook.config.enhancer_trains == "towers":
        return sides.user.detach(), dressed.detach(), sides.item
    return sides.user, dressed, sides.item


def popular(batch, hook, dress="all"):
    """Rows of popular items that the store knows."""
    route, items = hook.split(batch).group, batch.sparse["item_id"].values()
    known = hook.enhancer.kept[items] & (items > 0)
    assert (hook.enhancer.kept[items] & (route > 1)).sum() > (known & (route > 1)).sum() > 0
    return known & (route == 2 if dress == "next" else route > 1)


def check(task, hook, batch, expected):
    """The loss, and its gradients in everything that there is."""
    loss = task(batch).loss
    torch.testing.assert_close(loss, expected)
    wanted = [*task.ranker.parameters(), *task.embeddings.ebc.parameters(), *hook.parameters()]
    ours, theirs = (torch.autograd.grad(x, wanted, materialize_grads=True) for x in (loss, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("trains", TRAINS)
@pytest.mark.parametrize("inner", INNER)
def test_instruction(folder, inner, trains):
    batch, task, hook = enhanced(folder, (0.0, 1.5, 0.0), enhancer_trains=trains, **inner)
    enhancer = hook.enhancer
    _, dressed, item = dressed_sides(batch, task, hook)
    _, adapted = naive(task, batch, hook.config, hook.loop.rates)
    use = popular(batch, hook)
    w = {k.removeprefix("towers.item."): v for k, v in adapted[1].items() if "item" in k}
    hidden = torch.relu(dressed[use] @ w["layers.0.weight"].T + w["layers.0.bias"])
    found = hidden @ enhancer.to_id.weight.T + enhancer.to_id.bias
    check(task, hook, batch, 1.5 * ((found - item[use, :8].detach()) ** 2).mean())  # Eq. 15-16


def augmented(batch, task, hook, sides, donors):
    """Eq. 14 with a support set of each group's first rows. Users of a set's rows, dressed or not, or of all of the
    batch."""
    model, c = task.ranker, hook.config
    user, dressed = sides
    names = [n for n, _ in model.named_parameters()]
    weights = dict(model.named_parameters())
    route = hook.split(batch).group
    first = torch.zeros_like(donors)
    for n in range(c.groups):
        of_group = (route == n).nonzero().squeeze(1)
        first[of_group[: int(c.support * len(of_group))]] = True
    support, query = ((donors & f).nonzero().squeeze(1) for f in (first, ~first))
    assert c.steps == 0 or len(support) > 1

    def losses(weights, rows, of_set):
        own = lambda side: {k.removeprefix(f"towers.{side}."): v for k, v in weights.items() if side in k}
        users = functional_call(model.towers["user"], own("user"), (user,))
        items = functional_call(model.towers["item"], own("item"), (dressed[rows],))
        scores = items @ users.T / 0.07
        if c.candidates == "set":
            scores = scores.masked_fill(~of_set, -torch.inf)
        share = torch.softmax(scores, 1)[torch.arange(len(rows)), rows]
        y = batch.labels[rows, 0]
        return -(y * share.log() + (1 - y) * (1 - share).log())

    for step in range(c.steps):
        loss = losses(weights, support, first).mean()
        grads = torch.autograd.grad(loss, [weights[k] for k in names], create_graph=c.second_order)
        rates = hook.loop.rates[step]
        weights = {k: weights[k] - r * g for k, r, g in zip(names, rates, grads, strict=True)}
    return losses(weights, query, ~first).sum() / len(batch)


@pytest.mark.tried(
    "hooks", "pam.gamma with L_A, at the defaults", "it trains the embeddings, and dresses all popular items"
)
@pytest.mark.parametrize("trains", TRAINS)
@pytest.mark.parametrize("dress", ["all", "next"])
@pytest.mark.parametrize("inner", INNER)
def test_augmentation_is_a_cold_group_of_dressed_rows(folder, inner, dress, trains):
    batch, task, hook = enhanced(folder, (0.0, 0.0, 2.5), dress=dress, enhancer_trains=trains, **inner)
    user, dressed, _ = dressed_sides(batch, task, hook)
    donors = popular(batch, hook, dress)
    check(task, hook, batch, 2.5 * augmented(batch, task, hook, (user, dressed), donors))


def test_gamma_weighs_the_three_losses(folder):
    batch, task, hook = enhanced(folder, (2.0, 3.0, 5.0))
    wanted, losses = task(batch).loss, []
    for gamma in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)):
        hook.config = hook.enhancer.config = replace(hook.config, gamma=gamma)
        losses.append(task(batch).loss)
    assert min(losses) > 1e-6 and len(set(losses)) == 3
    torch.testing.assert_close(wanted, 2 * losses[0] + 3 * losses[1] + 5 * losses[2])


@pytest.mark.parametrize("gamma", [(0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_at_the_defaults_the_embeddings_get_the_slope_of_the_loss(folder, gamma):
    """By finite differences, of users and content. The ID embedding of a popular item gets none: it is dressed, and L_S
    holds its target."""
    batch, task, hook = enhanced(folder, gamma)
    assert (hook.config.dress, hook.config.enhancer_trains) == ("all", "all")
    embedded = task.embeddings(batch)
    given = {name: x.detach().requires_grad_() for name, x in embedded.items()}
    loss = lambda x: task.dense(batch, x).loss
    gradient = dict(zip(given, torch.autograd.grad(loss(given), list(given.values())), strict=True))
    assert not gradient["item_id"][batch.keys["item_views"] > 60].any()
    # L_S sees users only by the weights that support rows adapt.
    sizes = {name: gradient[name].abs() for name in ("item_tags", "user_id", "hist_item_id")}
    assert all(size.max() > 0 for size in sizes.values())
    for name, size in sizes.items():
        row, column = divmod(int(size.argmax()), size.shape[1])
        nudge = torch.zeros_like(given[name])
        nudge[row, column] = 1e-6
        more, less = (loss(given | {name: given[name] + sign * nudge}) for sign in (1, -1))
        torch.testing.assert_close(gradient[name][row, column], ((more - less) / 2e-6).detach(), rtol=1e-5, atol=1e-9)


@pytest.mark.tried(
    "hooks", "pam.store=spread with quantiles, or with the cold group 0", "an item is kept at views of the cold group"
)
@pytest.mark.parametrize(
    ("store", "cold", "cuts", "views"),
    [
        ("last", 1, None, range(21, 61)),
        ("spread", 1, None, range(21, 61)),
        ("spread", 0, None, range(21)),
        ("spread", 1, (10, 14, 90, 150), range(11, 15)),  # as quantiles have set them
    ],
)
def test_the_store_keeps_what_cold_items_were(folder, store, cold, cuts, views):
    batch, task, hook = batch_and_task(folder, config(gamma=(1.0, 1.0, 0.0), store=store, cold=cold))
    if cuts:
        hook.cuts.copy_(torch.tensor(cuts))
    batch.keys["item_views"] = torch.arange(64) % 62
    batch.sparse["item_id"].values()[::3] = 0
    task(batch)
    hook.enhancer.keep()
    items, inputs = batch.sparse["item_id"].values(), task.ranker.sides(task.embeddings(batch), batch.dense).item
    expected = {}
    for row, (seen, item) in enumerate(zip(batch.keys["item_views"].tolist(), items.tolist(), strict=True)):
        due = store == "last" or seen == views[batch.keys["item_id"][row].item() % len(views)]
        if seen in views and due and item:
            expected[item] = inputs[row, :8]
    assert expected
    assert set(hook.enhancer.kept.nonzero().squeeze(1).tolist()) == set(expected)
    for item, was in expected.items():
        assert torch.equal(hook.enhancer.store[item], was)


@pytest.mark.tried(
    "hooks", "pam: a managed table gives a popular item's row to another", "the other is not dressed in what that was"
)
def test_a_row_that_passes_to_another_item_is_not_stored(folder):
    batch, _, hook = batch_and_task(folder, config(gamma=(1.0, 1.0, 0.0)))
    hook.enhancer.kept[:] = True
    hook.before_step(
        None,
        Taken(batch, 0, 1, {"item": NewRows(10, 0, torch.tensor([3, 5])), "user": NewRows(1, 0, torch.tensor([4]))}),
    )
    assert (~hook.enhancer.kept).nonzero().squeeze(1).tolist() == [3, 5]


def test_of_an_item_met_twice_the_last_is_stored(folder):
    _, _, hook = batch_and_task(folder, config(gamma=(1.0, 1.0, 0.0)))
    values = torch.arange(4.0).unsqueeze(1).expand(-1, 8).double()
    hook.enhancer._cold = torch.tensor([7, 3, 7, 3]), values
    hook.enhancer.keep()
    assert hook.enhancer.store[[3, 7], 0].tolist() == [3, 2]


def test_a_checkpoint_holds_what_was_learnt_and_not_what_the_config_says(folder):
    _, _, hook = batch_and_task(folder, config(gamma=(1.0, 1.0, 0.0)))
    assert set(hook.enhancer.state_dict()) == {"store", "kept", "to_id.weight", "to_id.bias"}
