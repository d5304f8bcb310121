"""MetaCF's defaults on any log, and its negatives where a log has positive events only."""

from dataclasses import replace

import pytest
import torch
from test_metacf_hook import BELOW, with_metacf
from test_mwuf_hook import some_batches, step
from torch.nn import functional as F

from coldrank.data.errors import UserError
from coldrank.models.adapted_users import POOL
from coldrank.models.heads import Binary
from coldrank.train.checks import validate
from coldrank.train.hooks.make import make_hooks
from coldrank.train.hooks.metacf import _drawn


def without_signals(base=None, **fields):
    """MetaCF on a history of items alone."""
    config = with_metacf(base, **fields)
    return replace(config, features=tuple(f for f in config.features if f.kind != "signals"))


@pytest.mark.tried("hooks", "metacf at its defaults on a log of other labels", "hist_<task> of the first task tells")
@pytest.mark.parametrize(
    ("tasks", "signal"), [(("like", "long_view"), "hist_like"), (("long_view", "like"), "hist_long_view")]
)
def test_the_signal_is_that_of_the_first_task(fitted, tasks, signal):
    found = []
    for c in (with_metacf(), with_metacf(signal=signal)):
        run = fitted(replace(c, tasks={task: Binary() for task in tasks}))
        (batch,) = some_batches(run, 1)
        task = run.model.module
        found.append(run.hooks[0].embed(batch, task.embeddings(batch))["user_id"])
    assert torch.equal(*found)
    assert run.hooks[0].users.negatives == 0


@pytest.mark.tried("hooks", "metacf on a history whose signals are of no task", "refused: the field, and what there is")
def test_signals_of_no_task_are_named():
    config = replace(with_metacf(), tasks={"follow": Binary()})
    with pytest.raises(
        UserError, match=r"metacf: signal='': the history has \['hist_like', 'hist_long_view'\], and no task"
    ):
        make_hooks(config, validate(config))


@pytest.mark.parametrize(("fields", "text"), [({"negatives": -1}, "negatives=-1"), ({"items": "past"}, "'past'")])
def test_settings_without_signals_are_checked(fields, text):
    config = without_signals(**fields)
    with pytest.raises(UserError, match=text):
        make_hooks(config, validate(config))


@pytest.mark.tried(
    "hooks", "metacf on a log of positive events only", "three times their weight goes to items of others' histories"
)
@pytest.mark.parametrize("config", [without_signals, lambda: with_metacf(signal="none")])
def test_without_a_signal_events_are_positive_and_other_items_negative(fitted, config):
    run = fitted(config())
    (hook,) = run.hooks
    users, task = hook.users, run.model.module
    (batch,) = some_batches(run, 1)
    rows = [3, 7, 11, 59]
    users.pool_rows[:4] = torch.tensor(rows)
    users.pool[:4].normal_()
    embedded = task.embeddings(batch)
    run.model.eval()
    with torch.no_grad():
        after = hook.embed(batch, embedded)["user_id"]
    history = batch.positions("hist_item_id")
    assert any(set(h) & set(rows) for h in history.tolist())
    new = 0
    for row, events in enumerate(history.tolist()):
        if batch.keys["user_views"][row] >= BELOW:
            assert torch.equal(after[row], embedded["user_id"][row])
            continue
        items = [i for i in events if i >= 0]
        free = [i for i, of in enumerate(rows) if of not in items]
        met = embedded["hist_item_id"][row, : len(items)].detach()
        q = torch.cat([met, users.pool[free]])
        y = torch.tensor([1.0] * len(items) + [0.0] * len(free))
        weight = torch.tensor([1.0] * len(items) + [3 * len(items) / len(free)] * len(free))
        p = users.metacf.learner((met.mean(0) if items else torch.zeros(8)).unsqueeze(0))[0]
        for rate in users.metacf.rates:
            loss = F.binary_cross_entropy_with_logits(q @ p, y, weight, reduction="sum")
            p = p - rate * torch.autograd.grad(loss, p)[0]
        torch.testing.assert_close(after[row], p, rtol=1e-4, atol=1e-6)
        new += 1
    assert new > 5


def test_the_pool_is_of_the_items_met_and_of_their_first_event(fitted):
    """Each with its vector as it was read."""
    run = fitted(without_signals())
    (hook,) = run.hooks
    users, task = hook.users, run.model.module
    for number, batch in enumerate(some_batches(run, 2)):
        history = batch.positions("hist_item_id")
        read = task.embeddings(batch)["hist_item_id"].detach().clone()
        step(run, batch, number)
        vectors, born = {}, {}
        for row, events in enumerate(history.tolist()):
            for place, item in enumerate(events):
                if item >= 0:
                    vectors[item] = read[row, place]
                    born[item] = min(born.get(item, 1 << 62), int(batch.keys["time"][row]))
        pool = [i for i in users.pool_rows.tolist() if i >= 0]
        assert len(set(pool)) == len(pool) == min(POOL, len(vectors)) > 20 and set(pool) <= set(vectors)
        for place, item in enumerate(pool):
            assert torch.equal(users.pool[place], vectors[item])
            assert int(hook.born[place]) == born[item]


def test_a_draw_is_the_same_on_any_number_of_ranks_and_another_at_every_step():
    rows = torch.randint(0, 300, (900,), generator=torch.Generator().manual_seed(0))
    vectors, times = rows.unsqueeze(1).float(), torch.arange(900).flip(0)
    whole = _drawn(rows, vectors, times, 5)
    assert len(whole[0]) == POOL == len(whole[0].unique()) and torch.equal(whole[1][:, 0], whole[0].float())
    assert whole[2].tolist() == [int(times[rows == row].min()) for row in whole[0]]
    parts = [_drawn(rows[at], vectors[at], times[at], 5) for at in (slice(0, 500), slice(500, 900))]
    together = _drawn(*(torch.cat(x) for x in zip(*parts, strict=True)), 5)
    assert all(torch.equal(a, b) for a, b in zip(whole, together, strict=True))
    draws = [_drawn(rows, vectors, times, n)[0] for n in range(40)]
    often = torch.bincount(torch.cat(draws), minlength=300)[rows.unique()]
    assert often.max() < 25 and (often > 0).float().mean() > 0.95  # of 40; 64 of 285 rows at a time


@pytest.mark.tried(
    "hooks", "metacf on positive events only, in a shuffled pass", "no item is a negative before it was met"
)
def test_in_training_an_event_takes_no_item_of_its_future(fitted):
    run = fitted(without_signals())
    (hook,) = run.hooks
    (batch,) = some_batches(run, 1)
    task = run.model.module
    embedded = task.embeddings(batch)
    now = batch.keys["time"]
    middle = now.sort().values[len(now) // 2]
    plain = hook.embed(batch, embedded)["user_id"]
    hook.users.pool_rows[:2] = torch.tensor([1, 2])
    hook.users.pool[:2] = 3.0
    hook.born[:2] = middle
    with_pool = hook.embed(batch, embedded)["user_id"]
    history = batch.positions("hist_item_id")
    both = ((history == 1).any(1) & (history == 2).any(1)) | (history < 0).all(1)
    takes = (now >= middle) & (batch.keys["user_views"] < BELOW) & ~both
    assert 3 < takes.sum() < len(now) // 2
    assert torch.equal((plain != with_pool).any(1), takes)


def test_negatives_are_the_default_three_and_can_be_left_out(fitted):
    assert fitted(without_signals()).hooks[0].users.negatives == 3
    hook = fitted(without_signals(negatives=0)).hooks[0]
    assert len(hook.users.pool) == 0 and not [name for name in hook.state_dict() if "pool" in name or "born" in name]
    assert not [name for name in fitted(with_metacf()).hooks[0].state_dict() if "pool" in name or "steps" in name]
