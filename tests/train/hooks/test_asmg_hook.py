"""ASMG in a stream: what the generator learns from, what it makes, and that the stream goes on as without it."""

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
from coldrank.train.distributed.tables import table_of
from coldrank.train.hooks.asmg import ASMG
from coldrank.train.hooks.past import dense_shapes, task_of
from coldrank.train.stepping import Taken

SHORT = {"length": 2, "hidden": 3}


def flat(run):
    """The dense weights side by side."""
    params = dict(task_of(run).named_parameters())
    names = dense_shapes(run.config, run.encoder.features)
    return torch.cat([params[name].detach().flatten() for name in names]).double()


def histories(config, run, of):
    """Tables and dense weights at the end of each period of one batch, without the hook."""
    found = []
    for at, batch in enumerate(of):
        period(run, [batch], at)
        found.append(({table_of(n): v.double() for n, v in weights(run).items() if table_of(n)}, flat(run)))
    return found


def in_sequence(nets, of_dense, history, first, last, hidden):
    """omega of models `first` to `last`, whose hidden state began with model 0 and passed all models since."""
    made, dense = {}, None
    for table, net in nets.items():
        h = torch.zeros(*history[0][0][table].shape, hidden).double()
        for tables, _ in history[:first]:
            h = net.step(tables[table], h)
        made[table] = net(torch.stack([tables[table] for tables, _ in history[first : last + 1]]), h)
    h = torch.zeros(1, len(history[0][1]), hidden).double()
    for _, weight in history[:first]:
        h = of_dense.step(weight.unsqueeze(0), h)
    dense = of_dense(torch.stack([w.unsqueeze(0) for _, w in history[first : last + 1]]), h)[0]
    return made, dense


def named(run, of_dense):
    shapes = dense_shapes(run.config, run.encoder.features)
    parts = of_dense.split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}


@pytest.mark.parametrize("model", [sample_base, two_tower])
def test_the_generator_descends_the_next_period_s_loss(fitted, model):
    """Its gradient against that of L(omega; D) in float64, and what it makes, over whole tables."""
    base = hashed(model())
    plain, run = fitted(streamed(base)), fitted(streamed(base, ASMG(after=99, lr_scale=1e-9, **SHORT)))
    of = some(run, 4)
    history = histories(base, plain, of[:2])
    for at, batch in enumerate(of[:2]):
        period(run, [batch], at)
    (hook,) = run.hooks
    nets, of_dense = copy.deepcopy(hook.nets).double(), copy.deepcopy(hook.of_dense).double()
    made, dense = in_sequence(nets, of_dense, history, 0, 1, 3)
    by_tables(run, made, of[2], named(run, dense)).backward()
    run.begin_step(Taken(of[2], 0, 1), 2, 100)
    run.model(of[2]).loss.backward()
    for ours, theirs in ((hook.nets, nets), (hook.of_dense, of_dense)):
        for name, p in theirs.named_parameters():
            found = ours.get_parameter(name).grad.double()
            assert (found - p.grad).abs().max() <= 2e-4 * p.grad.abs().max() + 1e-9, name
    assert all(p.grad.any() for p in [*nets.parameters(), *of_dense.parameters()])


def test_the_stream_goes_on_as_without_it_and_what_was_made_serves(fitted):
    """Losses and optimizers bit for bit; between two periods the weights are those of the equations."""
    base = hashed(sample_base())
    plain, run = fitted(streamed(base)), fitted(streamed(base, ASMG(after=3, lr_scale=1e-9, **SHORT)))
    of, losses = some(plain, 6), []
    history = histories(base, plain, of)
    (hook,) = run.hooks
    for at, batch in enumerate(of):
        losses += period(run, [batch], at)
        assert bool(hook.serves) == (at >= 3)
        if at < 3:
            continue
        nets, of_dense = copy.deepcopy(hook.nets).double(), copy.deepcopy(hook.of_dense).double()
        made, dense = in_sequence(nets, of_dense, history, at - 1, at, 3)
        for table, rows in whole_tables(hook._tables).items():
            assert torch.allclose(rows, made[table].detach(), rtol=1e-4, atol=1e-6), table
        assert torch.allclose(flat(run), dense.detach(), rtol=1e-4, atol=1e-6)
    again = fitted(streamed(base))
    assert losses == [loss for at, batch in enumerate(of) for loss in period(again, [batch], at)]
    hook.begins(run, None, type("P", (), {"step": 6}))
    mine = weights(run)
    assert all(torch.equal(value, mine[name]) for name, value in weights(again).items())


@pytest.mark.parametrize("model", [growing, two_tower])
def test_a_run_that_resumes_ends_as_one_that_was_not_stopped(folder, tmp_path, ranks, model):
    """Stopped at the end of the third period, and inside the fourth, of three steps each."""
    cut_and_whole(streamed(model(), ASMG(after=3, **SHORT)), folder, tmp_path, ranks, (9, 11))


def test_what_cannot_work_is_refused():
    with pytest.raises(UserError, match="train.mode=periods"):
        validate(replace(streamed(sample_base(), ASMG()), train=sample_base().train))
    with pytest.raises(UserError, match="asmg.after=2: has no effect"):
        validate(streamed(sample_base(), ASMG(after=2)))
