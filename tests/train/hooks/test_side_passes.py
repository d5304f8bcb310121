"""Side passes: nothing is kept from them, and MWUF's second pass has the gradient that it has on paper, with PAM around
or inside."""

from dataclasses import dataclass, replace
from itertools import permutations

import pytest
import torch
from test_composed_hooks import MODELS, composed
from test_mwuf_hook import some_batches, step, weights
from test_pam import batch_and_task, naive
from tiny import changed

from coldrank.data.errors import UserError
from coldrank.models.model import Outputs
from coldrank.train.checks import validate
from coldrank.train.hooks.hook import Hook, HookModule, Rest


class TwiceModule(HookModule):
    """Looks at other embeddings in a side pass, and throws away what it finds."""

    micro_batches = False

    def dense(self, rest, batch, embedded):
        out = rest(batch, embedded)
        if self.training and torch.is_grad_enabled():
            other = {name: values.detach() + 1.0 for name, values in embedded.items()}
            assert rest.aside(batch, other).loss != out.loss
        return out


class NeverModule(HookModule):
    def dense(self, rest, batch, embedded):
        sums = batch.labels.sum(0)
        return Outputs(embedded["user_id"].sum(), batch.labels, (sums, sums))


class AgainModule(HookModule):
    def dense(self, rest, batch, embedded):
        rest(batch, embedded)
        return rest(batch, embedded)


@dataclass(kw_only=True, slots=True)
class Twice(Hook):
    def build(self, config, features):
        return TwiceModule()


@dataclass(kw_only=True, slots=True)
class Never(Hook):
    def build(self, config, features):
        return NeverModule()


@dataclass(kw_only=True, slots=True)
class Again(Hook):
    def build(self, config, features):
        return AgainModule()


OTHERS = {"twice": Twice(), "never": Never(), "again": Again()}


ORDERS = [o for o in permutations(("twice", "mwuf", "pam")) if o[-1] != "twice"]


@pytest.mark.tried("hooks", "a hook of one's own that makes a side pass around MWUF and PAM", "they keep nothing of it")
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("model", MODELS)
def test_a_side_pass_leaves_no_trace(model, order, fitted):
    found = []
    for hooks in (order, tuple(name for name in order if name != "twice")):
        previous = {"support_of": "previous"} if model == "towers" else {}
        run = fitted(composed(model, hooks, others=OTHERS, **previous))
        for number, batch in enumerate(some_batches(run, 3)):
            step(run, batch, number)
        found.append(weights(run))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.tried("hooks", "a hook of one's own that leaves out the hooks inside it", "an error that names it, no run")
@pytest.mark.parametrize(
    ("name", "text"), [("never", "NeverModule.dense calls its rest 0"), ("again", "AgainModule.*2 times")]
)
def test_a_hook_calls_its_rest_once(name, text, fitted):
    run = fitted(composed("poso", (name, "mwuf"), others=OTHERS))
    with pytest.raises(RuntimeError, match=text):
        run.model(some_batches(run, 1)[0])


@pytest.mark.tried(
    "hooks", "pam,mwuf and mwuf,pam", "MWUF's networks get the gradient of PAM's loss with warm embeddings"
)
@pytest.mark.parametrize("order", [("pam", "mwuf"), ("mwuf", "pam")], ids="-".join)
def test_the_networks_get_the_gradient_of_pam_s_loss(order, folder):
    """In float64, against the loop over PAM's groups. PAM inside: warm support rows adapt the weights. PAM outside: the
    weights are those that the batch's own pass has adapted."""
    wanted = composed("towers", order, gamma=(1.0, 0.0, 0.0))
    batch, task, pam = batch_and_task(folder, changed(wanted, "mwuf", warm_every=1))
    mwuf = task.hooks["mwuf"]
    for p in mwuf.nets.parameters():
        torch.nn.init.normal_(p, std=0.3)
    mwuf.users.normal_()
    mwuf.present[:] = True
    nets = list(mwuf.nets.parameters())
    found = torch.autograd.grad(task(batch).loss, nets)

    embedded = task.embeddings(batch)
    rows = batch.sparse["item_id"].values()
    ids = mwuf.warmed(embedded["item_id"], embedded["item_tags"], rows, batch.keys["item_views"])
    cold = batch.keys["item_views"] < 60
    still = {name: values.detach() for name, values in embedded.items()}
    warm = still | {"item_id": torch.where(cold.unsqueeze(1), ids, still["item_id"])}
    settings, given = pam.config, None
    if order[0] == "pam":
        _, adapted = naive(task, batch, pam.config, pam.loop.rates)
        given = {
            name: torch.stack([(w[name] - p).detach() for w in adapted]) for name, p in task.ranker.named_parameters()
        }
        settings = replace(pam.config, steps=0)
    total, _ = naive(task, batch, settings, pam.loop.rates, given, embedded=warm)
    for ours, theirs in zip(found, torch.autograd.grad(total, nets), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)
        assert ours.abs().max() > 0


@pytest.mark.tried("hooks", "pam with mwuf.mode=warm_up", "refused: PAM adapts the towers that warm_up holds still")
def test_pam_is_refused_beside_a_model_that_is_held_still():
    wanted = composed("poso", ("pam", "mwuf"))
    wanted = replace(changed(wanted, "mwuf", mode="warm_up"), train=replace(wanted.train, warm_start="somewhere"))
    with pytest.raises(UserError, match=r"mwuf.mode='warm_up'.*'pam'"):
        validate(wanted)


@pytest.mark.tried("hooks", "pam with cold_weight=2 or train.precision=bf16", "refused: PAM's loss knows neither")
@pytest.mark.parametrize(
    ("field", "text"), [("cold", "cold_weight=2.0: 'pam'"), ("bf16", "train.precision='bf16': 'pam'")]
)
def test_what_pam_s_loss_does_not_know_is_refused(field, text):
    wanted = composed("poso", ("pam",))
    if field == "cold":
        wanted = replace(wanted, cold_weight=2.0)
    else:
        wanted = replace(wanted, train=replace(wanted.train, precision="bf16"))
    with pytest.raises(UserError, match=text):
        validate(wanted)


@pytest.mark.tried("configs and runs", "two_tower with train.precision=bf16", "refused: its towers train in float32")
def test_bf16_is_refused_where_the_towers_do_not_know_it():
    wanted = composed("towers", ())
    with pytest.raises(UserError, match=r"train.precision='bf16': model='two_tower' compares rows, in float32"):
        validate(replace(wanted, train=replace(wanted.train, precision="bf16")))


def test_what_is_inside_goes_by_rows_where_no_row_meets_another(fitted):
    """MWUF's second pass takes the warm rows alone then; PAM's loss in the model's place, hooks that compare rows and
    the two-tower model leave it the whole batch."""
    ranker, towers = (fitted(composed(model, ("metacf", "mwuf"))).model.module for model in ("poso", "towers"))
    metacf, mwuf = ranker.in_order
    rank = lambda batch, embedded, side: ranker.rank(batch, embedded)
    rest = lambda task, *hooks: Rest(task.ranker, task.heads, hooks, rank, by_rows=task.by_rows)
    assert rest(ranker, metacf).by_rows and rest(ranker).by_rows
    assert not rest(ranker, metacf, mwuf).by_rows
    assert not rest(ranker, metacf).around(rank).by_rows
    assert not rest(towers).by_rows


def test_pam_s_loss_sees_the_whole_batch_in_mwuf_s_pass(fitted):
    """On the ranker: the query rows of the whole batch, by the weights that its support rows have adapted."""
    run = fitted(composed("poso", ("pam", "mwuf")))
    pam, seen = run.hooks[0], []
    learnt = pam._learnt

    def noted(task, batch, embedded, path, *, keep):
        seen.append((len(batch), path is not None, keep))
        return learnt(task, batch, embedded, path, keep=keep)

    pam._learnt = noted
    run.model(some_batches(run, 1)[0])
    assert seen == [(64, False, True), (64, True, False)]
