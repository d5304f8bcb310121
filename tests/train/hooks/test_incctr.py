"""IncCTR: the loss against its equations, who teaches, and what a run that resumes knows of the teacher."""

from dataclasses import replace

import pytest
import torch
from retrieving import two_tower
from streams import cut_and_whole, hashed, period, some, stepped, streamed
from test_mwuf_hook import weights
from tiny import growing, sample_base

from coldrank.data.errors import UserError
from coldrank.models.heads import Regression
from coldrank.train.checks import validate
from coldrank.train.hooks.incctr import IncCTR
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.past import task_of
from coldrank.train.run import build


def logits_and_vectors(run, batch):
    task = task_of(run).eval()
    with torch.no_grad():
        out = task.ranker.outputs(task.embed(batch), batch, task.heads, None, bf16=False)
    task.train()
    return out.logits.double(), out.vectors


def cross_entropy(p, q):
    """Eq. 4 of one sample."""
    return -(q * torch.log(p) + (1 - q) * torch.log(1 - p))


def by_hand(student, teacher, batch, config, hook):
    """Eq. 2 to 4 in float64, sample by sample; weights of tasks, and the mean over the batch, are the model's."""
    (mine, vectors), (soft, of_teacher) = logits_and_vectors(student, batch), logits_and_vectors(teacher, batch)
    tau, labels = hook.temperature, batch.labels.double()

    def chance(logits, vectors, row, task, tau):
        if vectors is None:
            return torch.sigmoid(logits[row, task] / tau)
        of_all = vectors.users[0].double() @ vectors.item[row].double() / (config.model.temperature * tau)
        return torch.softmax(of_all, 0)[row]

    total = torch.zeros((), dtype=torch.float64)
    for task, head in enumerate(config.tasks.values()):
        for row in range(len(batch)):
            y = labels[row, task]
            if y.isnan():
                continue
            hard = cross_entropy(chance(mine, vectors, row, task, 1.0), y)
            kd = cross_entropy(chance(mine, vectors, row, task, tau), chance(soft, of_teacher, row, task, tau))
            total += head.weight * (hard + hook.weight * kd)
    return total.item() / len(batch)


@pytest.mark.parametrize("model", [sample_base, two_tower])
def test_the_loss_is_that_of_the_equations(fitted, model):
    hook = IncCTR(weight=0.7, temperature=1.5)
    base = hashed(model())
    config = streamed(base, hook)
    student, teacher = fitted(config), fitted(streamed(base))
    first, second = some(student, 6)[:3], some(student, 6)[3:]
    begun = period(student, first, 0)
    assert begun == list(stepped(teacher, first))  # nobody teaches in the first period
    losses = []
    task_of(student).hooks["incctr"].begins(student, None, type("P", (), {"step": 3}))
    for batch in second:
        expected = by_hand(student, teacher, batch, config, hook)
        losses.append((next(stepped(student, [batch])), expected))
    assert losses == [(pytest.approx(expected, rel=2e-5), expected) for _, expected in losses]


def test_a_teacher_that_is_asked_by_nobody_leaves_the_run_as_it_is(fitted):
    """A period of the same losses and weights, bit for bit, without distillation."""
    plain, taught = fitted(streamed(sample_base())), fitted(streamed(sample_base(), IncCTR()))
    of = some(plain, 3)
    assert period(plain, of, 0) == period(taught, of, 0)
    after, ours = weights(plain), weights(taught)
    assert all(torch.equal(value, ours[name]) for name, value in after.items())


@pytest.mark.parametrize("model", [growing, two_tower])
def test_a_run_that_resumes_ends_as_one_that_was_not_stopped(folder, tmp_path, ranks, model):
    """Stopped inside the first period, at its end, and inside the third, of three steps each."""
    config = streamed(model(), IncCTR(weight=2.0))
    cut_and_whole(config, folder, tmp_path, ranks, (2, 3, 8))


def test_a_warm_start_brings_no_teacher(fitted, folder, ranks):
    run = fitted(streamed(sample_base(), IncCTR()))
    (hook,) = run.hooks
    hook.taught.fill_(True)
    period(run, some(run, 1), 0)
    assert not hook.taught


def in_bf16(config):
    return replace(config, train=replace(config.train, precision="bf16"))


REFUSED = {
    "train.mode=periods": lambda: replace(streamed(sample_base(), IncCTR()), train=sample_base().train),
    "leave one out": lambda: streamed(sample_base(), IncCTR(), Mwuf()),
    "must be binary": lambda: replace(streamed(sample_base(), IncCTR()), tasks={"long_view": Regression()}),
    "must be 'users'": lambda: streamed(
        replace(two_tower(), model=replace(two_tower().model, candidates="items")), IncCTR()
    ),
    "cold_weight=2.0": lambda: replace(streamed(sample_base(), IncCTR()), cold_weight=2.0),
    "bf16": lambda: streamed(in_bf16(sample_base()), IncCTR()),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_leaves_no_room_is_refused(why, data, ranks):
    with pytest.raises(UserError, match=why):
        config = REFUSED[why]()
        validate(config)
        build(config, data, ranks)
