"""The posterior as a hook: its equations in a double loop over events, who trains what, what counts, and what a
checkpoint holds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_mwuf_hook import loaded, some_batches, step, weights
from tiny import growing, sample_base

from coldrank.data.errors import UserError
from coldrank.models.embeddings import rows_of_embedded
from coldrank.models.two_tower import TwoTower
from coldrank.train.hooks.metacf import MetaCF
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.pam import Pam
from coldrank.train.hooks.posterior import Posterior
from coldrank.train.hooks.rows import TableRows
from coldrank.train.ids.dynamic import NewRows
from coldrank.train.optim.micro_batches import rows_of
from coldrank.train.run import build
from coldrank.train.stepping import Taken
from coldrank.train.trainer import train

COLD = {"item_max_views": 59, "refresh": 2, "memory": 3}


def with_posterior(base=None, *, train_fields=None, **fields):
    base = base or sample_base()
    base = replace(base, hooks=(Posterior(**(COLD | fields)),))
    return replace(base, train=replace(base.train, **(train_fields or {})))


def aged_batches(run, count):
    """Batches in which every third item and user is cold, and the others are not."""
    found = some_batches(run, count)
    for batch in found:
        for name in ("item", "user"):
            of = batch.keys[f"{name}_id"]
            batch.keys[f"{name}_views"] = torch.where(of % 3 == 0, 1 + of % 20, 60 + of)
    return found


def naive_slopes(task, embedded, batch, i, feature):
    """Derivatives of the logits of one event by its ID embedding, float64 [T, D], and the logits [T]."""
    row = torch.tensor([i])
    some, part = rows_of(batch, row), rows_of_embedded(embedded, row)
    leaf = part[feature].detach().requires_grad_()
    with torch.random.fork_rng():
        logits = task.rank(some, part | {feature: leaf}).logits[0]
    slopes = [torch.autograd.grad(z, leaf, retain_graph=True)[0][0].double().numpy() for z in logits]
    return np.array(slopes), logits.detach().double().numpy()


def naive_means(ids, embedded, batch):
    """ID embeddings as they are served: the prior's means, event by event in float64, where no event has come."""
    rows, views = batch.rows(ids.name).tolist(), batch.keys[ids.views].tolist()
    weight, values = ids.weight.double().numpy(), embedded[ids.name].clone()
    for i, (row, v) in enumerate(zip(rows, views, strict=True)):
        if v <= ids.max_views and not ids.trained[row] and not ids.begun[row]:
            side = [embedded[name][i].double().numpy() for name in ids.side]
            values[i] = torch.from_numpy(np.concatenate([*side, [1.0]]) @ weight)
    return values


def gained_of(ids):
    """c of the only rank, [R, D], as it lies there."""
    ((part, _),) = ids.gained.parts
    return part


def naive_update(task, hook, ids, embedded, batch):
    """Row -> (mean, gained) after a batch, from the equations, event by event in float64."""
    embedded = embedded | {of.name: naive_means(of, embedded, batch) for of in hook.in_order.values()}
    rows, views = batch.rows(ids.name).tolist(), batch.keys[ids.views].tolist()
    trained = {r for r, v in zip(rows, views, strict=True) if v > ids.max_views}
    trained |= set(ids.trained.nonzero().flatten().tolist())
    values, task_weights, sums = embedded[ids.name], task.heads.weights.double().numpy(), {}
    for i, (row, v) in enumerate(zip(rows, views, strict=True)):
        labels = batch.labels[i].double().numpy()
        if v > ids.max_views or row in trained or (ids.shared_row and row == 0) or np.isnan(labels[hook.tasks]).all():
            continue
        slopes, logits = naive_slopes(task, embedded, batch, i, ids.name)
        d = slopes.shape[1]
        means, g, h = sums.setdefault(row, ([], np.zeros(d), np.zeros((d, d))))
        means.append(values[i].double().numpy())
        for t in hook.tasks:
            if not np.isnan(labels[t]):
                p = 1 / (1 + np.exp(-logits[t]))
                g += task_weights[t] * (p - labels[t]) * slopes[t]
                h += task_weights[t] * p * (1 - p) * np.outer(slopes[t], slopes[t])
    found = {}
    for row, (means, g, h) in sums.items():
        gained = gained_of(ids)[row].double().numpy()
        precision = np.diag(ids.precision.double().numpy() + gained) + h
        found[row] = np.mean(means, 0) - np.linalg.solve(precision, g), gained + np.diag(h)
    return found


def prepared(run, batch, number):
    """The batch before its step: what the lookup gives, and a fitted prior."""
    taken = Taken(batch, 0, number + 1, run.dynamic_ids(batch))
    run.begin_step(taken, number, 10)
    with torch.no_grad():
        return {name: x.detach().clone() for name, x in run.model.module.embed(batch).items()}


OF_BOTH = {"prior": "mean", "strength": 0.2, "user": "user_id"}


@pytest.mark.parametrize("fields", [{}, {"tasks": ("like",)}, OF_BOTH], ids=len)
def test_means_and_precisions_are_those_of_the_equations(fitted, fields):
    """Float32 against a double loop over events in float64; a third of the labels is not known yet."""
    run = fitted(with_posterior(growing(), **fields))
    (hook,) = run.hooks
    task, told = run.model.module, dict.fromkeys(hook.in_order, 0)
    for number, batch in enumerate(aged_batches(run, 6)):
        batch.labels[torch.rand(batch.labels.shape, generator=torch.Generator().manual_seed(number)) < 0.33] = torch.nan
        embedded = prepared(run, batch, number)
        fitted_roles = {role: ids for role, ids in hook.in_order.items() if ids.is_fitted}
        wanted = {role: naive_update(task, hook, ids, embedded, batch) for role, ids in fitted_roles.items()}
        run.model(batch).loss.backward()
        run.end_step()
        for role, of_role in wanted.items():
            ids, table = hook.in_order[role], TableRows(run.model, role).parts[0][0]
            assert {r for r in of_role if not ids.begun[r]} == set()
            for row, (mean, gained) in of_role.items():
                torch.testing.assert_close(table[row].double(), torch.from_numpy(mean), rtol=1e-4, atol=1e-6)
                torch.testing.assert_close(gained_of(ids)[row].double(), torch.from_numpy(gained), rtol=1e-4, atol=1e-7)
            told[role] += len(of_role)
    assert min(told.values()) > 10 and all(ids.trained.any() for ids in hook.in_order.values())


def test_the_prior_is_the_weighted_least_squares_of_the_trained(fitted):
    """Over all events of trained items, forgotten by a third each step."""
    run = fitted(with_posterior(growing()))
    (hook,) = run.hooks
    ids = hook.in_order["item"]
    rows, weight = [], []
    for number, batch in enumerate(aged_batches(run, 3)):
        embedded = prepared(run, batch, number)
        if number == 2:
            break
        weight = [w * (1 - 1 / 3) for w in weight]
        for i, views in enumerate(batch.keys["item_views"].tolist()):
            if views > 59 and batch.rows("item_id")[i] > 0:
                z = torch.cat([embedded["item_tags"][i], torch.ones(1), embedded["item_id"][i]])
                rows.append(z.double().numpy())
                weight.append(1 / (views + 1))
        run.model(batch).loss.backward()
        run.end_step()
    z, w, n = np.array(rows), np.array(weight) / sum(weight), int(ids.trained.sum())
    x, y = z[:, :13], z[:, 13:]
    xx = x.T @ (w[:, None] * x)
    penalty = np.eye(13) * np.trace(xx) / 13 / n
    penalty[-1, -1] = 0
    fit = np.linalg.solve(xx + penalty, x.T @ (w[:, None] * y))
    variance = (w[:, None] * (y - x @ fit) ** 2).sum(0) * n / (n - 13)
    assert n > 13
    np.testing.assert_allclose(ids.weight.numpy(), fit, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ids.precision.numpy(), 1 / variance, rtol=1e-4)


def test_until_the_first_fit_it_is_the_base_bit_for_bit(fitted):
    """Losses, weights and dropout; from the fit on no gradient reaches the rows of cold items."""
    base = replace(sample_base(), model=replace(sample_base().model, dropout=0.2))
    plain, run = fitted(base), fitted(with_posterior(base, refresh=4))
    found = []
    for r in (plain, run):
        torch.manual_seed(0)
        found.append([step(r, batch, number).loss.item() for number, batch in enumerate(some_batches(r, 6))])
    assert found[0][:4] == found[1][:4]
    assert found[0][4:] != found[1][4:]


def test_the_rows_of_cold_items_move_by_evidence_alone(fitted):
    """Their labels unknown, they stay: neither a gradient nor evidence comes of their events."""
    config = with_posterior(prior="mean")
    config = replace(config, features=tuple(f for f in config.features if f.name != "hist_item_id"))
    run = fitted(config)
    ids = run.hooks[0].in_order["item"]
    *first, last = aged_batches(run, 6)
    for number, batch in enumerate(first):
        step(run, batch, number)
    table = TableRows(run.model, "item").parts[0][0]
    before = table.clone()
    few, rows = last.keys["item_views"] <= 59, last.rows("item_id")
    cold = few & ~ids.trained[rows]
    last.labels[cold] = torch.nan
    step(run, last, 5)
    changed = (table != before).any(1)
    trained = set(rows[~cold].tolist())
    assert trained and {r for r in rows[cold].tolist() if changed[r]} <= trained
    assert changed.nonzero().flatten().tolist() and set(changed.nonzero().flatten().tolist()) <= trained


@pytest.mark.parametrize("mode", ["passes", "periods"])
def test_a_second_pass_counts_nothing_and_a_second_period_does(mode, fitted):
    run = fitted(with_posterior(train_fields={"mode": mode}))
    ids = run.hooks[0].in_order["item"]
    batches = aged_batches(run, 5)
    for number, batch in enumerate(batches):
        step(run, batch, number)
    before = gained_of(ids).clone()
    assert before.any()
    for batch in batches:
        run.begin_step(Taken(batch, 1, 1), 5, 10)
        run.model(batch).loss.backward()
        run.end_step()
    assert torch.equal(gained_of(ids), before) == (mode == "passes")


def test_a_row_that_passes_to_another_item_begins_anew(fitted):
    run = fitted(with_posterior(growing()))
    ids = run.hooks[0].in_order["item"]
    ids.begun[:], ids.trained[:], gained_of(ids)[:] = True, True, 1.0
    (batch,) = aged_batches(run, 1)
    run.hooks[0].before_step(run, Taken(batch, 0, 1, {"item": NewRows(10, 0, torch.tensor([3, 5]))}))
    for state in (~ids.begun, ~ids.trained, (gained_of(ids) == 0).any(1)):
        assert state.nonzero().squeeze(1).tolist() == [3, 5]


def test_users_and_items_are_learnt_of_in_one_pass(fitted):
    run = fitted(with_posterior(user="user_id", user_max_views=30))
    (hook,) = run.hooks
    for number, batch in enumerate(aged_batches(run, 5)):
        step(run, batch, number)
    assert all(ids.is_fitted and gained_of(ids).any() for ids in hook.in_order.values())
    assert hook.in_order["user"].side == []  # no other id of users: the prior is the mean


def test_a_run_goes_on_where_it_stopped(data, ranks, tmp_path):
    config = with_posterior(growing(), train_fields={"steps": 6, "log_every": 1, "checkpoint_every": 3})
    whole = train(config, data, tmp_path / "whole", ranks, fresh=False, diff="")
    short = replace(config, train=replace(config.train, steps=3))
    train(short, data, tmp_path / "parts", ranks, fresh=False, diff="")
    (tmp_path / "parts/config.json").write_text((tmp_path / "whole/config.json").read_text())
    assert train(config, data, tmp_path / "parts", ranks, fresh=False, diff="") == whole
    a, b = (loaded(config, data, ranks, tmp_path / n) for n in ("whole", "parts"))
    assert all(torch.equal(v, b[n]) for n, v in a.items())
    assert any(v.any() for n, v in a.items() if n.endswith("item.gained"))


def test_a_model_that_knows_its_ids_keeps_them(fitted):
    run = fitted(with_posterior(growing(), train_fields={"warm_start": "of another run"}))
    batch, _ = aged_batches(run, 2)
    run.dynamic_ids(batch)
    run.begin_step(Taken(batch, 0, 1), 0, 10)
    ids = run.hooks[0].in_order["item"]
    assert set(batch.rows("item_id").tolist()) - {0} <= set(ids.trained.nonzero().flatten().tolist())
    assert not ids.trained[0]


@pytest.mark.parametrize("first", [True, False])
def test_beside_metacf_and_mwuf_each_learns_what_it_learns_alone(first, fitted):
    """MWUF warms items, the posterior users; then the posterior items, MetaCF users."""
    base = growing()
    tables = tuple(replace(t, dim=8) if t.name == "user" else t for t in base.tables)
    other = Mwuf(max_views=59, users=8, common_init=False) if first else MetaCF(max_views=5, signal="hist_like")
    mine = {"item": "", "user": "user_id", "user_max_views": 20} if first else {"item_max_views": 59}
    hooks = (Posterior(refresh=2, **mine), other)
    for order in (hooks, hooks[::-1]):
        run = fitted(replace(base, tables=tables, hooks=order))
        before = weights(run)
        for number, batch in enumerate(aged_batches(run, 5)):
            step(run, batch, number)
        changed = {name for name, value in weights(run).items() if not torch.equal(value, before[name])}
        parts = ("mwuf.users", "mwuf.nets") if first else ("metacf.users",)
        for part in (*parts, f"posterior.ids.{'user' if first else 'item'}.gained"):
            assert any(f"hooks.{part}" in name for name in changed), part


def beside(hook):
    return lambda: replace(with_posterior(), hooks=(*with_posterior(user="user_id").hooks, hook))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: with_posterior(item="nothing"), "item='nothing' is no embedded feature"),
        (lambda: with_posterior(item="item_tags"), "item='item_tags': must be one id"),
        (lambda: with_posterior(item="user_id"), "item='user_id': has role 'user'; must be 'item'"),
        (lambda: replace(sample_base(), hooks=(Posterior(item=""),)), "name the feature of an id"),
        (lambda: with_posterior(tasks=("likes",)), "tasks: 'likes' is no task"),
        (lambda: with_posterior(tasks=("like", "like")), "names one twice"),
        (lambda: with_posterior(strength=0.0), "posterior.strength=0.0: must be above 0"),
        (lambda: with_posterior(train_fields={"accumulate": 2}), "accumulate=2"),
        (beside(Pam()), "posterior beside pam"),
        (beside(Mwuf()), "posterior.item='item_id': is warmed up by mwuf"),
        (beside(MetaCF(max_views=5)), "posterior.user='user_id': is adapted by metacf"),
        (lambda: replace(with_posterior(), model=TwoTower(widths=(8,))), "compares rows"),
    ],
    ids=lambda x: x if isinstance(x, str) else "config",
)
def test_settings_are_checked(make, text, data, ranks):
    with pytest.raises(UserError, match=text):
        build(make(), data, ranks)


def test_a_checkpoint_holds_what_is_learnt_and_nothing_that_the_config_gives(fitted):
    run = fitted(with_posterior())
    names = {"begun", "trained", "gained", "weight", "precision", "moments"}
    assert set(run.hooks[0].state_dict()) == {f"ids.item.{name}" for name in names} | {"steps"}
    assert any(name.endswith("posterior.ids.item.gained") for name in weights(run))
