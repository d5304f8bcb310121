"""MWUF as a hook: who trains what, which users an event sees, and what a checkpoint holds."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from tiny import growing, sample_base

from coldrank.data.batches import batches
from coldrank.data.errors import UserError
from coldrank.models.embeddings import rows_of_embedded
from coldrank.models.features import Table
from coldrank.models.ids.growing import GrowingMap
from coldrank.models.ids.maps import HashMap, VocabularyMap
from coldrank.train.hooks.mwuf import Mwuf, rows_with_an_id
from coldrank.train.hooks.rows import TableRows
from coldrank.train.optim.micro_batches import rows_of
from coldrank.train.passes import Passes
from coldrank.train.run import build
from coldrank.train.stepping import Taken
from coldrank.train.trainer import train

BELOW = 60


def with_mwuf(base=None, *, train_fields=None, **fields):
    base = base or sample_base()
    config = replace(base, hooks=(Mwuf(**{"max_views": BELOW - 1, "users": 8} | fields),))
    return replace(config, train=replace(config.train, **(train_fields or {})))


def some_batches(run, count):
    reader = Passes.of(run.config, run.data, run.make, run.ranks).reader(0)
    with batches(reader, run.make, 2) as source:
        return list(islice(source, count))


def step(run, batch, number=0):
    taken = Taken(batch, 0, number + 1, run.dynamic_ids(batch))
    run.begin_step(taken, number, 10)
    outputs = run.model(batch)
    outputs.loss.backward()
    run.end_step()
    return outputs


def weights(run):
    found = {}
    for name, value in run.model.state_dict().items():
        tensor = value.local_shards()[0].tensor if hasattr(value, "local_shards") else value
        found[name] = tensor.detach().clone()
    return found


def test_the_model_trains_as_it_does_without_the_hook(fitted):
    """Losses and weights, bit for bit, dropout included; the networks learn."""
    base = replace(sample_base(), model=replace(sample_base().model, dropout=0.2))
    plain, warm = fitted(base), fitted(with_mwuf(base, common_init=False))
    nets, losses = weights(warm), []
    for run in (plain, warm):
        torch.manual_seed(0)
        losses.append([step(run, batch, number).loss.item() for number, batch in enumerate(some_batches(run, 4))])
    assert losses[0] == losses[1]
    after, ours = weights(plain), weights(warm)
    assert all(torch.equal(value, ours[name]) for name, value in after.items())
    assert all((ours[n] != nets[n]).any() for n in nets if "mwuf.nets" in n)


def test_the_networks_move_by_their_own_rate(fitted):
    """A first step of Adam is the rate times the gradient's sign, to Adam's eps."""
    moved = []
    for lr_scale in (1.0, 3.0):
        run = fitted(with_mwuf(lr_scale=lr_scale, common_init=False))
        before = weights(run)
        step(run, some_batches(run, 1)[0])
        moved.append({name: value.float() - before[name].float() for name, value in weights(run).items()})
    of_nets = [name for name in moved[0] if "mwuf.nets" in name]
    assert any(moved[0][name].any() for name in of_nets)
    for name, by in moved[0].items():
        torch.testing.assert_close(moved[1][name], by * (3 if name in of_nets else 1), rtol=1e-3, atol=1e-6)


def naive_warm(hook, task, embedded, batch, row):
    """The warm ID embedding of a row, from the users of the item's earlier views alone."""
    of = {name: values.detach()[row] for name, values in embedded.items()}
    at = batch.sparse.keys().index("item_id") * len(batch)
    table_row = int(batch.sparse.values()[batch.sparse.offsets()[at + row]])
    met = [k for k in range(min(8, int(batch.keys["item_views"][row]))) if hook.present[table_row, k]]
    if hook.shared_row and table_row == 0:
        met = []
    users = hook.users[table_row, met].mean(0) if met else torch.zeros(4)
    return of["item_id"] * (1 + hook.nets.scaling(of["item_tags"])) + hook.nets.shifting(users)


@pytest.mark.tried(
    "hooks", "mwuf: users of an item's later views are known", "an event sees those of earlier views alone"
)
@pytest.mark.parametrize("base", [sample_base, growing])
def test_in_training_a_warm_embedding_is_of_the_users_before(fitted, base):
    """All places are taken: what leaks of later ones would change the gradient."""
    run = fitted(with_mwuf(base(), warm_every=1, common_init=False))
    (hook,) = run.hooks
    for parameter in hook.nets.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    hook.users.normal_()
    hook.present.bernoulli_(0.7)
    first, batch = some_batches(run, 2)
    step(run, first)
    batch.keys["item_views"] = torch.arange(len(batch)) % 70
    taken = Taken(batch, 0, 2, run.dynamic_ids(batch))
    at = batch.sparse.keys().index("item_id") * len(batch)
    batch.sparse.values()[batch.sparse.offsets()[at + 9]] = 0  # in a growing table an item without a row of its own
    task = run.model.module
    run.begin_step(taken, 1, 10)
    hook.users.normal_()
    hook.present.bernoulli_(0.7)
    embedded = task.embeddings(batch)
    rows, ids = (batch.keys["item_views"] <= hook.config.max_views).nonzero(), list(embedded["item_id"].detach())
    for row in rows.squeeze(1).tolist():
        ids[row] = naive_warm(hook, task, embedded, batch, row)
    still = {name: values.detach() for name, values in embedded.items()}
    loss = task.rank(batch, still | {"item_id": torch.stack(ids)}).loss
    wanted = torch.autograd.grad(loss, list(hook.nets.parameters()))
    run.model(batch).loss.backward()
    for p, theirs in zip(hook.nets.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, theirs, rtol=1e-4, atol=1e-7)
        assert theirs.abs().max() > 0


@pytest.mark.parametrize("every", [1, 3])
def test_the_networks_get_the_gradient_of_the_warm_loss(fitted, every):
    """Against autograd through the whole model, its own parameters held; of one cold row in three, three times as
    large."""
    run = fitted(with_mwuf(warm_every=every))
    (hook,) = run.hooks
    for parameter in hook.nets.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    *first, batch = some_batches(run, 4)
    for number, seen in enumerate(first):
        step(run, seen, number)
    task = run.model.module
    embedded = {
        name: x.detach().clone() for name, x in task.embeddings(batch).items()
    }  # before the tables change, which is in the backward pass
    run.optimizers.begin_step(3, 10)
    run.model(batch).loss.backward()
    found = [p.grad.clone() for p in hook.nets.parameters()]
    views = batch.keys["item_views"]
    cold = (views < BELOW).nonzero().squeeze(1)
    assert 3 < len(cold) < len(views)
    rows = cold[(batch.keys["user_id"] + views)[cold] % every == 0]
    assert every == 1 or 0 < len(rows) < len(cold)
    part = rows_of_embedded(embedded, rows)
    ids = hook.warmed(part["item_id"], part["item_tags"], batch.keys["item_id"][rows], views[rows])
    loss = task.rank(rows_of(batch, rows), part | {"item_id": ids}).loss * every * len(rows) / len(views)
    wanted = torch.autograd.grad(loss, list(hook.nets.parameters()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert all(g.abs().max() > 0 for g in wanted)


def test_an_event_sees_the_users_before_it_in_whatever_order_they_come(fitted):
    run = fitted(with_mwuf(common_init=False))
    (hook,) = run.hooks
    hook.nets.shifting[2].bias.data.zero_()
    seen = {}
    for number, batch in enumerate(some_batches(run, 3)):
        task = run.model.module
        users = task.embeddings(batch)["user_id"].detach().clone()
        step(run, batch, number)
        keys = [batch.keys[n].tolist() for n in ("item_id", "item_views", "user_id")]
        in_batch = {}
        for i, (item, views, user) in enumerate(zip(*keys, strict=True)):
            if views < 8 and user >= in_batch.get((item, views), (-1,))[0]:
                in_batch[item, views] = user, users[i]
        seen |= in_batch
    assert len(seen) > 5
    for (item, views), (_, user) in seen.items():
        assert torch.equal(hook.users[item, views], user)
    assert hook.present.sum() == len(seen)
    item, views = max(seen)
    before = [user for (i, v), (_, user) in seen.items() if i == item and v <= views]
    present = hook.present[item] & (torch.arange(8) < views + 1)
    assert present.sum() == len(before)


def test_evaluation_scores_cold_items_with_warm_embeddings_and_others_as_before(fitted):
    run = fitted(with_mwuf())
    (hook,) = run.hooks
    (batch,) = some_batches(run, 1)
    run.model.eval()
    with torch.no_grad():
        fresh = run.model(batch).logits
        hook.nets.shifting[2].bias.fill_(0.5)
        changed = (run.model(batch).logits != fresh).any(1)
    assert torch.equal(changed, batch.keys["item_views"] < BELOW)


def test_new_items_of_a_growing_table_begin_as_the_mean_of_the_old(fitted):
    run = fitted(with_mwuf(growing(), refresh=1))
    (hook,) = run.hooks
    first, second = some_batches(run, 2)
    step(run, first)
    table = TableRows(run.model, "item")
    part, (row, column) = table.parts[0]
    assert (row, column) == (0, 0)
    old = hook.views >= BELOW
    mean = part[old].mean(0)
    taken = Taken(second, 0, 2, run.dynamic_ids(second))
    at = second.sparse.keys().index("item_id") * len(second)
    rows = second.sparse.values()[second.sparse.offsets()[at : at + len(second)]]
    new = rows[(second.keys["item_views"] < BELOW) & (hook.views[rows] == 0)].unique()
    assert len(new) > 3
    others = part.clone()
    hook.before_step(run, taken)
    assert torch.allclose(table.mean(old), mean)
    assert torch.allclose(part[new], mean.expand(len(new), -1))
    keep = torch.ones(len(part), dtype=torch.bool)
    keep[new] = False
    assert torch.equal(part[keep], others[keep])


def test_a_frozen_model_keeps_all_but_the_cold_ids(data, ranks, fitted, tmp_path):
    base = growing()
    train(replace(base, train=replace(base.train, steps=6)), data, tmp_path / "base", ranks, fresh=False, diff="")
    start = str(tmp_path / "base")
    config = with_mwuf(growing(), mode="warm_up", train_fields={"warm_start": start, "steps": 3})
    train(config, data, tmp_path / "warm", ranks, fresh=False, diff="")
    before, after = (loaded(c, data, ranks, tmp_path / n) for c, n in ((base, "base"), (config, "warm")))
    changed = {n for n, v in before.items() if not torch.equal(after[n], v)}
    assert changed == {"embeddings.ebc.embedding_bags.item.weight"}
    assert any(after[n].any() for n in after if "nets.scaling.2" in n)


def loaded(config, data, ranks, folder):
    run = build(config, data, ranks)
    run.load(folder / "checkpoints", {})
    return weights(run)


def test_a_run_goes_on_where_it_stopped(data, ranks, tmp_path):
    config = with_mwuf(growing(), refresh=2, train_fields={"steps": 6, "log_every": 1, "checkpoint_every": 3})
    whole = train(config, data, tmp_path / "whole", ranks, fresh=False, diff="")
    short = replace(config, train=replace(config.train, steps=3))
    train(short, data, tmp_path / "parts", ranks, fresh=False, diff="")
    (tmp_path / "parts/config.json").write_text((tmp_path / "whole/config.json").read_text())
    assert train(config, data, tmp_path / "parts", ranks, fresh=False, diff="") == whole
    a, b = (loaded(config, data, ranks, tmp_path / n) for n in ("whole", "parts"))
    assert all(torch.equal(v, b[n]) for n, v in a.items())
    assert any(v.any() for n, v in a.items() if n.endswith("mwuf.users"))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"item": "nothing"}, "'nothing' is no embedded feature"),
        ({"item": "item_tags"}, "mwuf: item='item_tags': must be one id"),
        ({"user": ("user_id", "nobody")}, "'nobody' is no embedded feature"),
        ({"user": ()}, "name a feature"),
        ({"users": 0}, "mwuf.users=0: must be above 0"),
        ({"hidden": 0}, "mwuf.hidden=0: must be above 0"),
        ({"lr_scale": 0.0}, "mwuf.lr_scale=0.0: must be above 0"),
        ({"warm_every": 0}, "mwuf.warm_every=0: must be above 0"),
        ({"refresh": 0}, "mwuf.refresh=0: must be above 0"),
        ({"mode": "warm_up"}, "needs train.warm_start"),
    ],
)
def test_settings_are_checked(fields, text, data, ranks):
    with pytest.raises(UserError, match=text):
        build(with_mwuf(**fields), data, ranks)


def test_rows_with_an_id_are_those_that_the_map_gave_out():
    vocabulary, growing_map = VocabularyMap(6), GrowingMap(Table(name="t", rows=6, dim=4, mapping="growing"))
    vocabulary.set(torch.tensor([7, 9]))
    given = growing_map.add(torch.tensor([7, 9]))
    assert rows_with_an_id(vocabulary, 6).tolist() == [False, True, True, False, False, False]
    for _ in range(2):  # in the tail, then merged
        assert rows_with_an_id(growing_map, 6).nonzero().flatten().tolist() == sorted(given.tolist())
        growing_map.merge_tail()
    assert rows_with_an_id(HashMap(6), 6).all()


def test_a_checkpoint_holds_what_is_learnt_and_nothing_that_the_config_gives(fitted):
    (hook,) = fitted(with_mwuf()).hooks
    learnt = {
        f"nets.{net}.{layer}.{part}"
        for net in ("scaling", "shifting")
        for layer in (0, 2)
        for part in ("weight", "bias")
    }
    assert set(hook.state_dict()) == learnt | {"users", "present", "common", "views", "steps"}
