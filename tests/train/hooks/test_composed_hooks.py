"""Hooks in company: every subset in every order, with POSO on the ranker, and on the two-tower model with PAM's
enhancer."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from retrieving import two_tower
from test_metacf_hook import towers, with_metacf
from test_mwuf_hook import some_batches, step, weights
from tiny import growing, hook_of

from coldrank.configs import base as arms
from coldrank.train.config import RunConfig
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.pam import Pam
from coldrank.train.stepping import Taken
from coldrank.train.trainer import train

NAMES = ("metacf", "mwuf", "pam")
ORDERS = [order for count in (1, 2, 3) for order in permutations(NAMES, count)]
MODELS: dict[str, Callable[[], RunConfig]] = {
    "poso": lambda: with_metacf(arms.poso(growing())),
    "towers": lambda: with_metacf(towers()),
}


def composed(
    model: str, hooks: tuple[str, ...], *, steps=0, fraction=1.0, common_init=True, others=None, **pam
) -> RunConfig:
    """A model with hooks, whose limits part the samples. pam: settings of PAM's."""
    base = MODELS[model]()
    if base.model.retrieves and "metacf" not in hooks:  # which reads a sequence that the towers do not
        base = replace(base, features=two_tower().features)
    gamma = (1.0, 3.0, 2.0) if base.model.retrieves else (1.0, 0.0, 0.0)
    settings = {"cuts": (20, 60, 120, 500), "behaviour": ("item_id",), "rate": 0.1, "gamma": gamma, **pam}
    mwuf = Mwuf(max_views=59, users=8, common_init=common_init, **({"refresh": 2} if common_init else {}))
    metacf = replace(hook_of(base, "metacf"), fraction=fraction)
    by_name = {"pam": Pam(**settings), "metacf": metacf, "mwuf": mwuf, **(others or {})}
    training = replace(base.train, steps=steps, log_every=1, checkpoint_every=2)
    return replace(base, hooks=tuple(by_name[name] for name in hooks), train=training)


def cases(quick: tuple[tuple[str, ...], ...]):
    """Model and order; all but some are slow."""
    every = [(m, o, "-".join(o)) for m in MODELS for o in ORDERS]
    return [pytest.param(m, o, id=f"{m}-{name}", marks=[] if o in quick else pytest.mark.slow) for m, o, name in every]


PAIRS = (("pam", "mwuf"), ("mwuf", "pam"))


def losses(config, data, folder, ranks):
    train(config, data, folder, ranks, fresh=False, diff="")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [r["value"] for r in rows if r["metric"] == "loss"]


@pytest.mark.tried("hooks", "every subset of the hooks in every order", "every parameter of every hook is trained")
@pytest.mark.parametrize(("model", "order"), cases(PAIRS))
def test_every_parameter_gets_a_gradient(model, order, fitted):
    run = fitted(composed(model, order))
    *first, last = some_batches(run, 4)
    for number, batch in enumerate(first):
        step(run, batch, number)
    run.begin_step(Taken(last, 0, 4, run.dynamic_ids(last)), 3, 10)
    run.model(last).loss.backward()
    gradients = {name: p.grad for hook in run.hooks for name, p in hook.named_parameters()}
    assert gradients and [name for name, g in gradients.items() if g is None or not g.abs().sum() > 0] == []


def changed(config, fitted):
    """What three steps change: names of weights and buffers."""
    run = fitted(config)
    before = weights(run)
    for number, batch in enumerate(some_batches(run, 3)):
        step(run, batch, number)
    return {name for name, value in weights(run).items() if not torch.equal(value, before[name])}


@pytest.mark.tried("hooks", "every subset of the hooks in every order", "each trains and keeps what it does alone")
@pytest.mark.parametrize(("model", "order"), [c for c in cases(PAIRS) if len(c.values[1]) > 1])
def test_a_hook_trains_in_company_what_it_trains_alone(model, order, fitted):
    together = changed(composed(model, order), fitted)
    for hook in order:
        alone = changed(composed(model, (hook,)), fitted)
        assert any(name.startswith(f"hooks.{hook}.") for name in alone)
        assert alone - together == set()


@pytest.mark.tried(
    "hooks", "MetaCF and MWUF at neutral, in any company", "the first loss is what it is without them, bit for bit"
)
@pytest.mark.parametrize(("model", "order"), [c for c in cases((*PAIRS, NAMES)) if c.values[1] != ("pam",)])
def test_at_neutral_the_first_loss_stays_bit_for_bit(model, order, data, ranks, tmp_path):
    on = composed(model, order, steps=1, fraction=0.0, common_init=False)
    off = composed(model, tuple(name for name in order if name == "pam"), steps=1)
    found = {name: losses(c, data, tmp_path / name, ranks) for name, c in (("on", on), ("off", off))}
    assert found["on"] == found["off"]
