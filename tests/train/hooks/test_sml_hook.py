"""SML in a stream: what the transfer network learns from, what it makes, and what goes on as without it."""

import copy
from dataclasses import replace

import pytest
import torch
from retrieving import two_tower
from streams import by_tables, cut_and_whole, hashed, period, some, streamed, whole_tables
from test_mwuf_hook import weights
from tiny import growing, sample_base

from coldrank.data.errors import UserError
from coldrank.train.checks import validate
from coldrank.train.hooks.mwuf import rows_with_an_id
from coldrank.train.hooks.past import task_of
from coldrank.train.hooks.sml import SML
from coldrank.train.stepping import Taken


@pytest.mark.parametrize("model", [sample_base, two_tower])
@pytest.mark.parametrize("added", [False, True])
def test_the_network_descends_the_next_period_s_loss(fitted, model, added):
    """Its gradient against that of L(f(W, W^); D) in float64, over whole tables."""
    run = fitted(streamed(hashed(model()), SML(after=0, added=added)))
    of = some(run, 5)
    for at, batch in enumerate(of[:4]):
        period(run, [batch], at)
    (hook,) = run.hooks
    nets = copy.deepcopy(hook.nets).double()
    before, trained = (whole_tables(past.tables) for past in (hook.before, hook.trained))
    made = {t: nets[t](before[t], trained[t]) for t in before}
    by_tables(run, made, of[4]).backward()
    run.begin_step(Taken(of[4], 0, 1), 4, 100)
    run.model(of[4]).loss.backward()
    for name, p in nets.named_parameters():
        found = hook.nets.get_parameter(name).grad.double()
        assert (found - p.grad).abs().max() <= 2e-4 * p.grad.abs().max() + 1e-9, name
    assert all(p.grad.any() for p in nets.parameters() if p.requires_grad and not added)


@pytest.mark.parametrize("model", [hashed(sample_base()), growing()], ids=["hash", "growing"])
def test_what_serves_is_made_of_what_served_and_what_was_trained(fitted, model):
    """In the third period's end; rows of no id are left alone."""
    run = fitted(streamed(model, SML(after=2)))
    of = some(run, 3)
    (hook,) = run.hooks
    period(run, of[:1], 0)
    first = whole_tables(hook._tables)
    period(run, of[1:2], 1)
    second = whole_tables(hook._tables)
    assert all(torch.equal(rows, second[t]) for t, rows in whole_tables(hook.served.tables).items())
    assert all(torch.equal(rows, first[t]) for t, rows in whole_tables(hook.before.tables).items())
    ends, hook.ends = hook.ends, lambda *_: None
    period(run, of[2:], 2)
    third = whole_tables(hook._tables)
    ends(run, None, None)
    nets = copy.deepcopy(hook.nets).double()
    for table, rows in whole_tables(hook._tables).items():
        maps = run.encoder.maps
        held = rows_with_an_id(maps[table], len(rows)) if table in maps else torch.ones(len(rows), dtype=torch.bool)
        made = nets[table](second[table], third[table]).detach()
        assert torch.allclose(rows[held], made[held], rtol=1e-4, atol=1e-6), table
        assert torch.equal(rows[~held], third[table][~held]), table
        assert (rows[held] != third[table][held]).any()


def test_the_first_periods_train_as_they_do_without_the_hook(fitted):
    """Losses and weights, bit for bit, dropout included; the networks learn."""
    base = replace(sample_base(), model=replace(sample_base().model, dropout=0.2))
    plain, ours = fitted(streamed(base)), fitted(streamed(base, SML(after=9)))
    begun, of, losses = weights(ours), some(plain, 6), []
    for run in (plain, ours):
        torch.manual_seed(0)
        losses.append([period(run, of[at : at + 2], at) for at in (0, 2, 4)])
    assert losses[0] == losses[1]
    after, mine = weights(plain), weights(ours)
    assert all(torch.equal(value, mine[name]) for name, value in after.items())
    moved = [name for name, value in mine.items() if "sml.nets" in name and (value != begun[name]).any()]
    assert len(moved) > len(task_of(ours).hooks["sml"].nets)


@pytest.mark.parametrize("model", [growing, two_tower])
def test_a_run_that_resumes_ends_as_one_that_was_not_stopped(folder, tmp_path, ranks, model):
    """Stopped at the end of the second period, and inside the fourth, of three steps each."""
    cut_and_whole(streamed(model(), SML(after=1)), folder, tmp_path, ranks, (6, 11))


def test_passes_are_refused():
    with pytest.raises(UserError, match="train.mode=periods"):
        validate(replace(streamed(sample_base(), SML()), train=sample_base().train))
